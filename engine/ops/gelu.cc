// gelu: y = x Phi(x), the exact (erf) form.
#include "engine/ops/gelu.h"

#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

template <class T>
struct Forward {
  const T* x;
  T* y;
  TESSERA_FN void operator()(int64_t i) const { y[i] = gelu_value(x[i]); }
};

template <class T>
struct Backward {
  const T *x, *dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(int64_t i) const { dx.put(i, dy[i] * gelu_slope(x[i])); }
};

}  // namespace

Tensor gelu(const Tensor& x) {
  Tensor y = like(x);
  for_float("gelu", x.dtype(), [&]<class T>() {
    elements(x.count(), Forward<T>{x.data<T>(), y.mutable_data<T>()});
  });
  record("gelu", {x}, y, [x, gx = x.gradient()](const Gradient& gy) {
    for_float("gelu", x.dtype(), [&]<class T>() {
      elements(x.count(), Backward<T>{x.data<T>(), gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

namespace {

Tensor composed(const Inputs& in) {
  const Tensor one = Tensor::full({1}, 1.0, in[0].dtype());
  return mul(scale(in[0], 0.5), add(one, erf(scale(in[0], 0.70710678118654752))));
}

TESSERA_CASES(OpCase{
    "gelu", {"3x5", "1x1", "65537x2"}, [](const Inputs& in) { return gelu(in[0]); }, composed});

}  // namespace
}  // namespace tessera
