// normal_noise: std * z with z standard normal, a constant.
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

template <class T>
struct Fill {
  double std;
  Draw draw;
  uint64_t first;  // the place of the first element in the whole batch
  T* y;
  TESSERA_FN void operator()(int64_t i) const { y[i] = T(std * draw.normal(first + uint64_t(i))); }
};

}  // namespace

Tensor normal_noise(const Shape& shape, double std, const Draw& draw, int64_t first_sample, DType dtype) {
  Tensor y(shape, dtype);
  const uint64_t first = uint64_t(first_sample * shape.count(1, shape.rank()));
  for_float("normal_noise", dtype, [&]<class T>() {
    elements(y.count(), Fill<T>{std, draw, first, y.mutable_data<T>()});
  });
  return y;
}

namespace {

constexpr Draw kDraw{.seed = 5};

Tensor composed(const Inputs& in) {  // the fourth sample on of a batch
  std::vector<double> noise;
  const int64_t first = 3 * in[0].shape().count(1, in[0].rank());
  for (int64_t i = 0; i < in[0].count(); ++i) noise.push_back(0.7 * kDraw.normal(uint64_t(first + i)));
  return add(in[0], Tensor::of(in[0].shape(), noise).to(in[0].dtype()));
}

TESSERA_CASES(OpCase{
    "normal_noise",
    {"2x3x5", "1x1", "65537x2"},
    [](const Inputs& in) { return add(in[0], normal_noise(in[0].shape(), 0.7, kDraw, 3, in[0].dtype())); },
    composed});

}  // namespace
}  // namespace tessera
