// narrow and widen: between f32 and bf16, in which a card stores activations by --dtype bf16. A gradient has
// the type of what it is the gradient of.
#include "engine/ops/copy.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

template <class From, class To>
struct Convert {
  const From* from;
  GradTarget<To> to;
  TESSERA_FN void operator()(int64_t i) const { to.put(i, Wide<To>(from[i])); }
};

}  // namespace

void narrow_to(Tensor& copy, const Tensor& x) {
  elements(x.count(), Convert<float, bf16>{x.data<float>(), {copy.mutable_data<bf16>()}});
}

Tensor narrow(const Tensor& x) {
  if (x.dtype() == DType::bf16) return x;
  Tensor y(x.shape(), DType::bf16);
  narrow_to(y, x);
  record("narrow", {x}, y, [gx = x.gradient()](const Gradient& gy) {
    elements(gx.shape().count(), Convert<bf16, float>{gy.read<bf16>(), gx.target<float>()});
  });
  return y;
}

Tensor widen(const Tensor& x) {
  if (x.dtype() != DType::bf16) return x;
  Tensor y(x.shape(), DType::f32);
  elements(x.count(), Convert<bf16, float>{x.data<bf16>(), {y.mutable_data<float>()}});
  record("widen", {x}, y, [gx = x.gradient()](const Gradient& gy) {
    elements(gx.shape().count(), Convert<float, bf16>{gy.read<float>(), gx.target<bf16>()});
  });
  return y;
}

}  // namespace tessera
