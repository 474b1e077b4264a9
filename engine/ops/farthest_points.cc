// farthest_points: farthest-point sampling (Eldar et al., 1997; as PointNet++ uses it, Qi et al., 2017). The
// first point of each cloud comes first; then always the point farthest from all those that were taken, of
// equal ones the first. So the first G' < G points are those of a shorter sampling. No gradient.
#include "engine/kernels/rows.h"
#include "engine/ops/ops.h"
#include "engine/ops/points.h"

namespace tessera {
namespace {

template <class T>
struct FarthestPoints {
  int64_t P, G;
  const T* points;
  T* nearest;  // (B,P): squared distance to the nearest point taken
  T* taken;    // (B,G,3)
  TESSERA_FN void operator()(const Row& row, int64_t b) const {
    const T* const cloud = points + b * P * 3;
    T* const distance = nearest + b * P;
    row.each(P, [=](int64_t j) { distance[j] = std::numeric_limits<T>::infinity(); });
    int64_t next = 0;
    for (int64_t g = 0; g < G; ++g) {
      const T* const point = cloud + next * 3;
      T* const out = taken + (b * G + g) * 3;
      row.each(3, [=](int64_t c) { out[c] = point[c]; });
      row.each(P, [=](int64_t j) {
        const T here = squared_distance(cloud + j * 3, point);
        distance[j] = here < distance[j] ? here : distance[j];
      });
      next = first_largest(row, P, [=](int64_t j) { return distance[j]; });
    }
  }
};

}  // namespace

Tensor farthest_points(const Tensor& points, int64_t G) {
  Dims dim("farthest_points");
  dim(points, "points(B,P,3)");
  const int64_t B = dim['B'], P = dim['P'];
  check_cloud("farthest_points", points, G);
  Tensor taken({B, G, 3}, points.dtype()), nearest({B, P}, points.dtype());
  for_float("farthest_points", points.dtype(), [&]<class T>() {
    rows(B, P * G,
         FarthestPoints<T>{P, G, points.data<T>(), nearest.mutable_data<T>(), taken.mutable_data<T>()});
  });
  return taken;
}

}  // namespace tessera
