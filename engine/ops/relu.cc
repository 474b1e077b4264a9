// relu: y = max(x, 0). NaN stays NaN.
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
  TESSERA_FN void operator()(int64_t i) const { y[i] = x[i] < 0 ? 0 : x[i]; }
};

template <class T>
struct Backward {
  const T *y, *dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(int64_t i) const { dx.put(i, y[i] > 0 ? dy[i] : T(0)); }
};

}  // namespace

Tensor relu(const Tensor& x) {
  Tensor y = like(x);
  for_float("relu", x.dtype(), [&]<class T>() {
    elements(x.count(), Forward<T>{x.data<T>(), y.mutable_data<T>()});
  });
  record("relu", {x}, y, [y = y.detach(), gx = x.gradient()](const Gradient& gy) {
    for_float("relu", y.dtype(), [&]<class T>() {
      elements(y.count(), Backward<T>{y.data<T>(), gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

namespace {

void away_from_zero(Inputs& inputs) {
  double* x = inputs[0].mutable_data<double>();
  for (int64_t i = 0; i < inputs[0].count(); ++i) x[i] += x[i] < 0 ? -0.1 : 0.1;
}

// (x + |x|) / 2
Tensor composed(const Inputs& in) { return scale(add(in[0], pow(mul(in[0], in[0]), 0.5)), 0.5); }

TESSERA_CASES(OpCase{"relu",
                     {"3x5", "1x1", "65537x2"},
                     [](const Inputs& in) { return relu(in[0]); },
                     composed,
                     away_from_zero});

}  // namespace
}  // namespace tessera
