// gelu: y = x Phi(x), the exact (erf) form.
#include "engine/ops/gelu.h"

#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {

Tensor gelu(const Tensor& x) {
  Tensor y = like(x);
  for_float("gelu", x.dtype(), [&]<class T>() {
    elements(x.count(),
             [in = x.data<T>(), out = y.mutable_data<T>()](int64_t i) { out[i] = gelu_value(in[i]); });
  });
  record("gelu", {x}, y, [x, gx = x.gradient()](const Gradient& gy) {
    for_float("gelu", x.dtype(), [&]<class T>() {
      const auto dx = gx.target<T>();
      elements(x.count(), [in = x.data<T>(), dy = gy.read<T>(), dx](int64_t i) {
        dx.put(i, dy[i] * gelu_slope(in[i]));
      });
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
