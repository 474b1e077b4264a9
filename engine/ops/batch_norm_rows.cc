// batch_norm of x(M,C) over its M rows: the formulas of batch_norm.cc where a channel is a column.
#include <cmath>

#include "engine/kernels/columns.h"
#include "engine/kernels/rows.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/cases.h"
#include "engine/ops/copy.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

template <class T>
struct Value {
  int64_t C;
  const T* x;
  TESSERA_FN std::array<T, 1> operator()(int64_t i, int64_t j) const { return {x[i * C + j]}; }
};

template <class T>
struct Square {
  int64_t C;
  const T *x, *mean;
  TESSERA_FN std::array<T, 1> operator()(int64_t i, int64_t j) const {
    const T offset = x[i * C + j] - mean[j];
    return {offset * offset};
  }
};

template <class T>
struct Normalise {
  int64_t C;
  const T *x, *mean, *rstd, *gamma, *beta;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    row.each(
        C, [=, this](int64_t j) { y[i * C + j] = (x[i * C + j] - mean[j]) * rstd[j] * gamma[j] + beta[j]; });
  }
};

// dy xhat and dy, whose sums are dgamma and dbeta.
template <class T>
struct Slopes {
  int64_t C;
  const T *x, *mean, *rstd, *dy;
  TESSERA_FN std::array<T, 2> operator()(int64_t i, int64_t j) const {
    const T slope = dy[i * C + j];
    return {slope * (x[i * C + j] - mean[j]) * rstd[j], slope};
  }
};

template <class T>
struct Backward {
  int64_t C;
  T share;  // 1/M with batch statistics, otherwise 0
  const T *x, *mean, *rstd, *gamma, *dy, *dgamma, *dbeta;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    row.each(C, [=, this](int64_t j) {
      const T xhat = (x[i * C + j] - mean[j]) * rstd[j];
      dx.put(i * C + j, gamma[j] * rstd[j] * (dy[i * C + j] - share * (dbeta[j] + xhat * dgamma[j])));
    });
  }
};

}  // namespace

Tensor batch_norm_rows(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor& running_mean,
                       Tensor& running_var, bool training, double momentum, double eps) {
  Dims dim("batch_norm_rows");
  dim(x, "x(M,C)")(gamma, "gamma(C)")(beta, "beta(C)");
  dim(running_mean, "running_mean(C)")(running_var, "running_var(C)");
  refuse_gradient("batch_norm_rows (running statistics)", {running_mean, running_var});
  const int64_t M = dim['M'], C = dim['C'];
  TESSERA_CHECK(!training || M > 1, "batch_norm_rows: x", x.shape(),
                " has one row, which has no variance; train with larger batches");
  Tensor y = like(x), means({C}, x.dtype()), rstds({C}, x.dtype());
  for_float("batch_norm_rows", x.dtype(), [&]<class T>() {
    T *mean = means.mutable_data<T>(), *rstd = rstds.mutable_data<T>();
    if (training) {
      Tensor squares({C}, x.dtype());
      column_sums<T, 1>(M, C, {mean}, {T(0)}, Value<T>{C, x.data<T>()});
      elements(C, DivideSums<T>{T(M), mean});
      column_sums<T, 1>(M, C, {squares.mutable_data<T>()}, {T(0)}, Square<T>{C, x.data<T>(), mean});
      elements(C, SettleStatistics<T>{T(M), T(eps), T(momentum), mean, squares.data<T>(), rstd,
                                      running_mean.mutable_data<T>(), running_var.mutable_data<T>()});
    } else {
      elements(C, TakeRunning<T>{T(eps), running_mean.data<T>(), running_var.data<T>(), mean, rstd});
    }
    rows(M, C,
         Normalise<T>{C, x.data<T>(), mean, rstd, gamma.data<T>(), beta.data<T>(), y.mutable_data<T>()});
  });
  record("batch_norm_rows", {x, gamma, beta}, y,
         [training, M, C, x, gamma, means, rstds, gx = x.gradient(), gg = gamma.gradient(),
          gb = beta.gradient()](const Gradient& gy) {
           for_float("batch_norm_rows", x.dtype(), [&]<class T>() {
             const T *in = x.data<T>(), *mean = means.data<T>(), *rstd = rstds.data<T>(), *dy = gy.read<T>();
             Tensor sums({2, C}, x.dtype());
             T *const sum_xhat = sums.mutable_data<T>(), *const sum = sum_xhat + C;
             column_sums<T, 2>(M, C, {sum_xhat, sum}, {T(0), T(0)}, Slopes<T>{C, in, mean, rstd, dy});
             if (const auto dgamma = gg.target<T>()) elements(C, CopyElements<T>{sum_xhat, dgamma});
             if (const auto dbeta = gb.target<T>()) elements(C, CopyElements<T>{sum, dbeta});
             if (const auto dx = gx.target<T>())
               rows(M, C,
                    Backward<T>{C, training ? 1 / T(M) : T(0), in, mean, rstd, gamma.data<T>(), dy, sum_xhat,
                                sum, dx});
           });
         });
  return y;
}

namespace {

struct Running {
  Tensor mean, variance;
  explicit Running(const Tensor& like)
      : mean(Tensor::full(like.shape(), 0.3, like.dtype())),
        variance(Tensor::full(like.shape(), 1.7, like.dtype())) {}
};

Tensor run(const Inputs& in, bool training) {
  Running running(in[1]);
  return batch_norm_rows(in[0], in[1], in[2], running.mean, running.variance, training);
}

// The rows as images of one pixel.
Tensor composed(const Inputs& in, bool training) {
  Running running(in[1]);
  const Tensor pixels = in[0].reshape({in[0].size(0), in[0].size(1), 1, 1});
  return batch_norm(pixels, in[1], in[2], running.mean, running.variance, training).reshape(in[0].shape());
}

TESSERA_CASES(OpCase{"batch_norm_rows(training)",
                     {"7x3 3 3", "2x1 1 1", "513x65 65 65", "65537x2 2 2"},
                     [](const Inputs& in) { return run(in, true); },
                     [](const Inputs& in) { return composed(in, true); }});
TESSERA_CASES(OpCase{"batch_norm_rows(inference)",
                     {"7x3 3 3", "1x1 1 1", "65537x2 2 2"},
                     [](const Inputs& in) { return run(in, false); },
                     [](const Inputs& in) { return composed(in, false); }});

}  // namespace
}  // namespace tessera
