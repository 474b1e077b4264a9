// batch_norm over the images and pixels of each channel, n = B H W of them: y = xhat gamma + beta with
// xhat = (x - mean) rstd. With batch statistics
//   dx = gamma rstd (dy - mean(dy) - xhat mean(dy xhat)),   else   dx = gamma rstd dy;
//   dgamma = sum dy xhat,  dbeta = sum dy.
#include <cmath>

#include "engine/kernels/channels.h"
#include "engine/kernels/columns.h"
#include "engine/kernels/rows.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/cases.h"
#include "engine/ops/copy.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// Mean and rstd of the batch; moves the running statistics towards them.
template <class T>
struct Statistics {
  T momentum, eps;
  const T* x;
  T *mean, *rstd, *running_mean, *running_var;
  TESSERA_FN void operator()(const Channel& channel) const {
    const T n = T(channel.count());
    const T center = channel.sum([=, this](int64_t i) { return x[i]; }) / n;
    const T squares = channel.sum([=, this](int64_t i) { return (x[i] - center) * (x[i] - center); });
    channel.once([=, this, c = channel.c] {
      mean[c] = center;
      rstd[c] = T(1) / std::sqrt(squares / n + eps);
      running_mean[c] += momentum * (center - running_mean[c]);
      running_var[c] += momentum * (squares / (n - 1) - running_var[c]);
    });
  }
};

template <class T>
struct Normalise {
  const T *x, *mean, *rstd, *gamma, *beta;
  T* y;
  TESSERA_FN void operator()(const Channel& channel) const {
    const T center = mean[channel.c], factor = rstd[channel.c] * gamma[channel.c], shift = beta[channel.c];
    channel.each([=, this](int64_t i) { y[i] = (x[i] - center) * factor + shift; });
  }
};

template <class T>
struct Backward {
  bool training;
  const T *x, *mean, *rstd, *gamma, *dy;
  GradTarget<T> dx, dgamma, dbeta;
  TESSERA_FN void operator()(const Channel& channel) const {
    const int64_t c = channel.c;
    const T center = mean[c], inverse = rstd[c];
    const auto xhat = [=, this](int64_t i) { return (x[i] - center) * inverse; };
    const T sum = channel.sum([=, this](int64_t i) { return dy[i]; });
    const T sum_xhat = channel.sum([=, this](int64_t i) { return dy[i] * xhat(i); });
    channel.once([=, this] {
      if (dgamma) dgamma.put(c, sum_xhat);
      if (dbeta) dbeta.put(c, sum);
    });
    if (!dx) return;
    const T n = T(channel.count()), factor = gamma[c] * inverse;
    const T mean_dy = training ? sum / n : T(0), mean_dy_xhat = training ? sum_xhat / n : T(0);
    channel.each([=, this](int64_t i) { dx.put(i, factor * (dy[i] - mean_dy - xhat(i) * mean_dy_xhat)); });
  }
};

// On a card a channel would keep but one block busy. There its planes are summed first, a team each, and then
// the images; terms(c, i) are those of element i of channel c.
template <class T, size_t K, class Terms>
struct PlaneSums {
  int64_t C, area;
  Terms terms;
  std::array<T*, K> sums;  // (B,C) each
  TESSERA_FN void operator()(const Row& row, int64_t plane) const {
    const int64_t c = plane % C, first = plane * area;
    for (size_t k = 0; k < K; ++k) {
      const T sum = row.sum(area, [=, this](int64_t i) { return terms(c, first + i)[k]; });
      row.once([=, this] { sums[k][plane] = sum; });
    }
  }
};

template <class T, size_t K>
struct OfImage {
  int64_t C;
  std::array<T*, K> sums;
  TESSERA_FN std::array<T, K> operator()(int64_t b, int64_t c) const {
    std::array<T, K> terms;
    for (size_t k = 0; k < K; ++k) terms[k] = sums[k][b * C + c];
    return terms;
  }
};

template <class T, size_t K, class Terms>
void channel_sums(int64_t B, int64_t C, int64_t area, const std::array<T*, K>& out, const Terms& terms) {
  Tensor planes({int64_t(K), B, C}, dtype_of<T>());
  std::array<T*, K> sums;
  for (size_t k = 0; k < K; ++k) sums[k] = planes.mutable_data<T>() + int64_t(k) * B * C;
  rows(B * C, area, PlaneSums<T, K, Terms>{C, area, terms, sums});
  column_sums<T, K>(B, C, out, {}, OfImage<T, K>{C, sums});
}

template <class T>
struct Value {
  const T* x;
  TESSERA_FN std::array<T, 1> operator()(int64_t, int64_t i) const { return {x[i]}; }
};

template <class T>
struct Square {
  const T *x, *mean;
  TESSERA_FN std::array<T, 1> operator()(int64_t c, int64_t i) const {
    const T offset = x[i] - mean[c];
    return {offset * offset};
  }
};

// dy xhat and dy, whose sums are dgamma and dbeta.
template <class T>
struct Slopes {
  const T *x, *mean, *rstd, *dy;
  TESSERA_FN std::array<T, 2> operator()(int64_t c, int64_t i) const {
    return {dy[i] * (x[i] - mean[c]) * rstd[c], dy[i]};
  }
};

template <class T>
struct NormalisePlane {
  int64_t C, area;
  const T *x, *mean, *rstd, *gamma, *beta;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t plane) const {
    const int64_t c = plane % C, first = plane * area;
    const T factor = rstd[c] * gamma[c];
    row.each(area, [=, this](int64_t i) { y[first + i] = (x[first + i] - mean[c]) * factor + beta[c]; });
  }
};

template <class T>
struct BackwardPlane {
  int64_t C, area;
  T share;  // 1/n with batch statistics, otherwise 0
  const T *x, *mean, *rstd, *gamma, *dy, *dgamma, *dbeta;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t plane) const {
    const int64_t c = plane % C, first = plane * area;
    row.each(area, [=, this](int64_t i) {
      const T xhat = (x[first + i] - mean[c]) * rstd[c];
      dx.put(first + i, gamma[c] * rstd[c] * (dy[first + i] - share * (dbeta[c] + xhat * dgamma[c])));
    });
  }
};

}  // namespace

Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor& running_mean,
                  Tensor& running_var, bool training, double momentum, double eps) {
  if (x.rank() == 2)
    return batch_norm_rows(x, gamma, beta, running_mean, running_var, training, momentum, eps);
  Dims dim("batch_norm");
  dim(x, "x(B,C,H,W)")(gamma, "gamma(C)")(beta, "beta(C)");
  dim(running_mean, "running_mean(C)")(running_var, "running_var(C)");
  refuse_gradient("batch_norm (running statistics)", {running_mean, running_var});
  const int64_t B = dim['B'], C = dim['C'], area = dim['H'] * dim['W'];
  TESSERA_CHECK(!training || B * area > 1, "batch_norm: x", x.shape(),
                " has one value a channel, which has no variance; train with larger batches");
  Tensor y = like(x), means({C}, x.dtype()), rstds({C}, x.dtype());
  for_float("batch_norm", x.dtype(), [&]<class T>() {
    T *mean = means.mutable_data<T>(), *rstd = rstds.mutable_data<T>();
    if (training && on_card()) {
      const T n = T(B * area);
      Tensor squares({C}, x.dtype());
      channel_sums<T, 1>(B, C, area, {mean}, Value<T>{x.data<T>()});
      elements(C, DivideSums<T>{n, mean});
      channel_sums<T, 1>(B, C, area, {squares.mutable_data<T>()}, Square<T>{x.data<T>(), mean});
      elements(C, SettleStatistics<T>{n, T(eps), T(momentum), mean, squares.data<T>(), rstd,
                                      running_mean.mutable_data<T>(), running_var.mutable_data<T>()});
    } else if (training) {
      channels(B, C, area,
               Statistics<T>{T(momentum), T(eps), x.data<T>(), mean, rstd, running_mean.mutable_data<T>(),
                             running_var.mutable_data<T>()});
    } else {
      elements(C, TakeRunning<T>{T(eps), running_mean.data<T>(), running_var.data<T>(), mean, rstd});
    }
    if (on_card())
      rows(B * C, area,
           NormalisePlane<T>{C, area, x.data<T>(), mean, rstd, gamma.data<T>(), beta.data<T>(),
                             y.mutable_data<T>()});
    else
      channels(B, C, area,
               Normalise<T>{x.data<T>(), mean, rstd, gamma.data<T>(), beta.data<T>(), y.mutable_data<T>()});
  });
  record("batch_norm", {x, gamma, beta}, y,
         [training, B, C, area, x, gamma, means, rstds, gx = x.gradient(), gg = gamma.gradient(),
          gb = beta.gradient()](const Gradient& gy) {
           for_float("batch_norm", x.dtype(), [&]<class T>() {
             if (on_card()) {
               const T *in = x.data<T>(), *mean = means.data<T>(), *rstd = rstds.data<T>(),
                       *dy = gy.read<T>();
               Tensor sums({2, C}, x.dtype());
               T *const sum_xhat = sums.mutable_data<T>(), *const sum = sum_xhat + C;
               channel_sums<T, 2>(B, C, area, {sum_xhat, sum}, Slopes<T>{in, mean, rstd, dy});
               if (const auto dgamma = gg.target<T>()) elements(C, CopyElements<T>{sum_xhat, dgamma});
               if (const auto dbeta = gb.target<T>()) elements(C, CopyElements<T>{sum, dbeta});
               if (const auto dx = gx.target<T>())
                 rows(B * C, area,
                      BackwardPlane<T>{C, area, training ? 1 / T(B * area) : T(0), in, mean, rstd,
                                       gamma.data<T>(), dy, sum_xhat, sum, dx});
               return;
             }
             channels(B, C, area,
                      Backward<T>{training, x.data<T>(), means.data<T>(), rstds.data<T>(), gamma.data<T>(),
                                  gy.read<T>(), gx.target<T>(), gg.target<T>(), gb.target<T>()});
           });
         });
  return y;
}

namespace {

// A value for each channel, spread over the pixels.
Tensor column(const Tensor& values) { return values.reshape({values.count(), 1, 1}); }

Tensor composed(const Tensor& x, const Tensor& mean, const Tensor& variance, const Inputs& in) {
  const Tensor rstd = pow(add(variance, Tensor::full({1}, 1e-5, x.dtype())), -0.5);
  const Tensor xhat = mul(subtract(x, column(mean)), column(rstd));
  return add(mul(xhat, column(in[1])), column(in[2]));
}

Tensor composed_training(const Inputs& in) {
  const int64_t C = in[0].size(1), n = in[0].count() / C;
  const auto channel_mean = [=](const Tensor& x) {
    return mean(permute_axes(x, {1, 0, 2, 3}).reshape({C, n}), 1);
  };
  const Tensor center = channel_mean(in[0]), offset = subtract(in[0], column(center));
  return composed(in[0], center, channel_mean(mul(offset, offset)), in);
}

struct Running {
  Tensor mean, variance;
  explicit Running(const Tensor& like) {
    const int64_t C = like.count();
    mean = Tensor::full({C}, 0.3, like.dtype());
    variance = Tensor::full({C}, 1.7, like.dtype());
  }
};

TESSERA_CASES(OpCase{"batch_norm(training)",
                     {"2x3x5x7 3 3", "2x1x1x1 1 1", "1x5x2x1 5 5", "7x65x3x3 65 65", "2x1x181x183 1 1"},
                     [](const Inputs& in) {
                       Running running(in[1]);
                       return batch_norm(in[0], in[1], in[2], running.mean, running.variance, true);
                     },
                     composed_training});
TESSERA_CASES(OpCase{"batch_norm(inference)",
                     {"2x3x5x7 3 3", "1x1x1x1 1 1", "2x1x181x183 1 1"},
                     [](const Inputs& in) {
                       Running running(in[1]);
                       return batch_norm(in[0], in[1], in[2], running.mean, running.variance, false);
                     },
                     [](const Inputs& in) {
                       const Running running(in[1]);
                       return composed(in[0], running.mean, running.variance, in);
                     }});

}  // namespace
}  // namespace tessera
