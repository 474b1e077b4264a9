// nearest_points: of each centre the k nearest points of its cloud, nearest first and of equal ones the
// first, as seen from the centre (minus its coordinates). No gradient.
#include "engine/kernels/rows.h"
#include "engine/ops/ops.h"
#include "engine/ops/points.h"

namespace tessera {
namespace {

template <class T>
struct NearestPoints {
  int64_t P, G, k;
  const T *points, *centres;
  T* distances;  // (B,G,P): squared distance to the centre, infinite once taken
  T* groups;     // (B,G,k,3)
  TESSERA_FN void operator()(const Row& row, int64_t group) const {
    const T *const cloud = points + group / G * P * 3, *const centre = centres + group * 3;
    T* const distance = distances + group * P;
    row.each(P, [=](int64_t j) { distance[j] = squared_distance(cloud + j * 3, centre); });
    for (int64_t i = 0; i < k; ++i) {
      const int64_t next = first_largest(row, P, [=](int64_t j) { return -distance[j]; });
      const T* const point = cloud + next * 3;
      T* const out = groups + (group * k + i) * 3;
      row.each(3, [=](int64_t c) { out[c] = point[c] - centre[c]; });
      row.once([=] { distance[next] = std::numeric_limits<T>::infinity(); });
      row.sync();
    }
  }
};

}  // namespace

Tensor nearest_points(const Tensor& points, const Tensor& centres, int64_t k) {
  Dims dim("nearest_points");
  dim(points, "points(B,P,3)")(centres, "centres(B,G,3)");
  const int64_t B = dim['B'], P = dim['P'], G = dim['G'];
  check_cloud("nearest_points", points, k);
  refuse_gradient("nearest_points", {centres});
  Tensor groups({B, G, k, 3}, points.dtype()), distances({B, G, P}, points.dtype());
  for_float("nearest_points", points.dtype(), [&]<class T>() {
    rows(B * G, P * k,
         NearestPoints<T>{P, G, k, points.data<T>(), centres.data<T>(), distances.mutable_data<T>(),
                          groups.mutable_data<T>()});
  });
  return groups;
}

}  // namespace tessera
