// normal_cdf: y = Phi(x) = (1 + erf(x / sqrt 2)) / 2, dx = dy exp(-x^2 / 2) / sqrt(2 pi).
#include <numbers>

#include "engine/base/vec_math.h"
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

constexpr double kSqrtHalf = std::numbers::sqrt2 / 2;

template <class T>
struct Forward {
  const T* x;
  T* y;
  TESSERA_FN void operator()(int64_t i) const { y[i] = T(0.5) * (T(1) + verf(x[i] * T(kSqrtHalf))); }
};

template <class T>
struct Backward {
  const T* x;
  const T* dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(int64_t i) const {
    dx.put(i, dy[i] * T(kSqrtHalf * std::numbers::inv_sqrtpi) * vexp(T(-0.5) * x[i] * x[i]));
  }
};

}  // namespace

Tensor normal_cdf(const Tensor& x) {
  Tensor y = like(x);
  for_float("normal_cdf", x.dtype(), [&]<class T>() {
    elements(x.count(), Forward<T>{x.data<T>(), y.mutable_data<T>()});
  });
  record("normal_cdf", {x}, y, [x, gx = x.gradient()](const Gradient& gy) {
    for_float("normal_cdf", x.dtype(), [&]<class T>() {
      elements(x.count(), Backward<T>{x.data<T>(), gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

namespace {

TESSERA_CASES(OpCase{"normal_cdf",
                     {"3x5", "1", "65537x2"},
                     [](const Inputs& in) { return normal_cdf(in[0]); },
                     [](const Inputs& in) {
                       const Tensor half = Tensor::full({1}, 0.5, in[0].dtype());
                       return add(half, scale(erf(scale(in[0], kSqrtHalf)), 0.5));
                     }});

}  // namespace
}  // namespace tessera
