// softmax over the last axis: y = exp(x - max) / sum, dx = y * (dy - sum(dy * y)).
#include "engine/base/vec_math.h"
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

template <class T>
struct Forward {
  int64_t C;
  const T* x;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const T* in = x + i * C;
    T* out = y + i * C;
    const T largest = row.max(C, [=](int64_t j) { return in[j]; });
    const T total = row.sum(C, [=](int64_t j) { return out[j] = vexp(in[j] - largest); });
    const T share = T(1) / total;
    row.each(C, [=](int64_t j) { out[j] *= share; });
  }
};

template <class T>
struct Backward {
  int64_t C;
  const T* y;
  const T* dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const int64_t at = i * C;
    const T dot = row.sum(C, [=, this](int64_t j) { return dy[at + j] * y[at + j]; });
    row.each(C, [=, this](int64_t j) { dx.put(at + j, y[at + j] * (dy[at + j] - dot)); });
  }
};

}  // namespace

Tensor softmax(const Tensor& x) {
  Dims dim("softmax");
  dim(x, "x(*,C)");
  const int64_t M = dim['*'], C = dim['C'];
  Tensor y = like(x);
  for_float("softmax", x.dtype(), [&]<class T>() {
    rows(M, C, Forward<T>{C, x.data<T>(), y.mutable_data<T>()});
  });
  record("softmax", {x}, y, [M, C, y = y.detach(), gx = x.gradient()](const Gradient& gy) {
    for_float("softmax", y.dtype(), [&]<class T>() {
      rows(M, C, Backward<T>{C, y.data<T>(), gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

namespace {

Tensor composed(const Inputs& in) {
  const Tensor powers = exp(in[0]);
  const Tensor total = scale(mean(powers, in[0].rank() - 1), double(in[0].size(-1)));
  Shape column = in[0].shape();
  column[-1] = 1;
  return mul(powers, pow(total.reshape(column), -1));
}

TESSERA_CASES(OpCase{"softmax",
                     {"3x5", "1x1", "2x3x33", "65537x3"},
                     [](const Inputs& in) { return softmax(in[0]); },
                     composed});

}  // namespace
}  // namespace tessera
