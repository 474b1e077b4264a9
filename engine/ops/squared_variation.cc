// squared_variation: y = (std / mean)^2 over the last axis, population variance: how unevenly a sum is shared
// out (the balance losses of V-MoE, arXiv 2106.05974, appendix A).
//   dx_j = dy 2 ((x_j - mean) - variance / mean) / (C mean^2)
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

template <class T>
struct Moments {
  T mean, variance;
  TESSERA_FN Moments(const Row& row, int64_t C, const T* x) {
    mean = row.sum(C, [=](int64_t j) { return x[j]; }) / T(C);
    variance = row.sum(C, [=, m = mean](int64_t j) { return (x[j] - m) * (x[j] - m); }) / T(C);
  }
};

template <class T>
struct Forward {
  int64_t C;
  const T* x;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const Moments<T> of(row, C, x + i * C);
    row.once([=, this] { y[i] = of.variance / (of.mean * of.mean); });
  }
};

template <class T>
struct Backward {
  int64_t C;
  const T* x;
  const T* dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const Moments<T> of(row, C, x + i * C);
    const T factor = dy[i] * T(2) / (T(C) * of.mean * of.mean), zero = of.mean + of.variance / of.mean;
    row.each(C, [=, this](int64_t j) { dx.put(i * C + j, factor * (x[i * C + j] - zero)); });
  }
};

}  // namespace

Tensor squared_variation(const Tensor& x) {
  Dims dim("squared_variation");
  dim(x, "x(*,C)");
  const int64_t M = dim['*'], C = dim['C'];
  Shape shape;
  for (int axis = 0; axis + 1 < x.rank(); ++axis) shape.push_back(x.size(axis));
  Tensor y(shape, x.dtype());
  for_float("squared_variation", x.dtype(), [&]<class T>() {
    rows(M, C, Forward<T>{C, x.data<T>(), y.mutable_data<T>()});
  });
  record("squared_variation", {x}, y, [M, C, x, gx = x.gradient()](const Gradient& gy) {
    for_float("squared_variation", x.dtype(), [&]<class T>() {
      rows(M, C, Backward<T>{C, x.data<T>(), gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

namespace {

Tensor composed(const Inputs& in) {
  const int64_t M = in[0].size(0);
  const Tensor average = mean(in[0], 1);
  const Tensor variance = mean(pow(subtract(in[0], average.reshape({M, 1})), 2), 1);
  return mul(variance, pow(average, -2));
}

void make_positive(Inputs& inputs) {
  double* x = inputs[0].mutable_data<double>();
  for (int64_t i = 0; i < inputs[0].count(); ++i) x[i] = 0.5 + std::abs(x[i]);
}

TESSERA_CASES(OpCase{"squared_variation",
                     {"4x5", "1x1", "65537x3"},
                     [](const Inputs& in) { return squared_variation(in[0]); },
                     composed,
                     make_positive});

}  // namespace
}  // namespace tessera
