// layer_norm over the last axis: y = xhat * gamma + beta with xhat = (x - mean) * rstd.
// dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) with g = dy * gamma.
// An operand of products in bf16 is y alone: x, all sums and all parameters are f32.
#include "engine/kernels/backends.h"
#include "engine/kernels/columns.h"
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

template <class Y, class T = Wide<Y>>
struct Forward {
  int64_t C;
  T eps;
  const T *x, *gamma, *beta;
  Y* y;
  T *mean, *rstd;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const T* in = x + i * C;
    Y* out = y + i * C;
    const T center = row.sum(C, [=](int64_t j) { return in[j]; }) / T(C);
    const T variance = row.sum(C, [=](int64_t j) { return (in[j] - center) * (in[j] - center); }) / T(C);
    const T inverse = T(1) / std::sqrt(variance + eps);
    row.each(C, [=, this](int64_t j) { out[j] = (in[j] - center) * inverse * gamma[j] + beta[j]; });
    row.once([=, this] {
      mean[i] = center;
      rstd[i] = inverse;
    });
  }
};

template <class Y, class T = Wide<Y>>
struct Backward {
  int64_t C;
  const T *x, *gamma, *mean, *rstd;
  const Y* dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const T* in = x + i * C;
    const Y* g = dy + i * C;
    const T center = mean[i], inverse = rstd[i];
    const T mean_g = row.sum(C, [=, this](int64_t j) { return g[j] * gamma[j]; }) / T(C);
    const T mean_gx =
        row.sum(C, [=, this](int64_t j) { return g[j] * gamma[j] * (in[j] - center) * inverse; }) / T(C);
    row.each(C, [=, this](int64_t j) {
      const T xhat = (in[j] - center) * inverse;
      dx.put(i * C + j, inverse * (g[j] * gamma[j] - mean_g - xhat * mean_gx));
    });
  }
};

// The terms of dgamma and dbeta.
template <class Y, class T = Wide<Y>>
struct ParameterTerms {
  int64_t C;
  const T *x, *mean, *rstd;
  const Y* dy;
  TESSERA_FN std::array<T, 2> operator()(int64_t i, int64_t j) const {
    const T g = dy[i * C + j];
    return {g * (x[i * C + j] - mean[i]) * rstd[i], g};
  }
};

// With y of this type.
Tensor normalized(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps, DType type) {
  Dims dim("layer_norm");
  dim(x, "x(*,C)")(gamma, "gamma(C)")(beta, "beta(C)");
  const int64_t M = dim['*'], C = dim['C'];
  Tensor y(x.shape(), type), means({M}, x.dtype()), rstd({M}, x.dtype());
  for_activation("layer_norm", type, [&]<class Y>() {
    using T = Wide<Y>;
    const Forward<Y> all{C,
                         T(eps),
                         x.data<T>(),
                         gamma.data<T>(),
                         beta.data<T>(),
                         y.mutable_data<Y>(),
                         means.mutable_data<T>(),
                         rstd.mutable_data<T>()};
    if constexpr (std::is_same_v<T, float>)
      if (on_card() &&
          cuda::layer_norm_forward(M, C, all.eps, all.x, all.gamma, all.beta, all.y, all.mean, all.rstd))
        return;
    rows(M, C, all);
  });
  record("layer_norm", {x, gamma, beta}, y,
         [M, C, type, x, gamma, means, rstd, gx = x.gradient(), gg = gamma.gradient(),
          gb = beta.gradient()](const Gradient& gy) {
           for_activation("layer_norm", type, [&]<class Y>() {
             using T = Wide<Y>;
             const Y* dy = gy.read<Y>();
             const T *in = x.data<T>(), *mean = means.data<T>(), *inverse = rstd.data<T>();
             const auto dx = gx.target<T>(), dgamma = gg.target<T>(), dbeta = gb.target<T>();
             if constexpr (std::is_same_v<T, float>)
               if (on_card() &&
                   cuda::layer_norm_backward(M, C, in, gamma.data<T>(), mean, inverse, dy, dx, dgamma, dbeta))
                 return;
             if (dx) rows(M, C, Backward<Y>{C, in, gamma.data<T>(), mean, inverse, dy, dx});
             if (dgamma || dbeta)
               column_sums<T, 2>(M, C, {dgamma.data, dbeta.data}, {dgamma.beta, dbeta.beta},
                                 ParameterTerms<Y>{C, in, mean, inverse, dy});
           });
         });
  return y;
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps) {
  return normalized(x, gamma, beta, eps, x.dtype());
}

Tensor layer_norm_operand(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps) {
  return normalized(x, gamma, beta, eps, gamma.product_dtype());
}

namespace {

Tensor composed(const Inputs& in) {
  Shape column = in[0].shape();
  column[-1] = 1;
  const int last = in[0].rank() - 1;
  const Tensor centered = subtract(in[0], mean(in[0], last).reshape(column));
  const Tensor variance = mean(mul(centered, centered), last).reshape(column);
  const Tensor rstd = pow(add(variance, Tensor::full({1}, 1e-6, in[0].dtype())), -0.5);
  return add(mul(mul(centered, rstd), in[1]), in[2]);
}

TESSERA_CASES(OpCase{"layer_norm",
                     {"3x5 5 5", "1x3 3 3", "2x3x192 192 192", "65537x3 3 3", "515x70 70 70", "4300x64 64 64",
                      "9x768 768 768", "5x1000 1000 1000"},
                     [](const Inputs& in) { return layer_norm(in[0], in[1], in[2]); },
                     composed});
TESSERA_CASES(OpCase{"layer_norm_operand",
                     {"2x3x5 5 5", "1x3 3 3", "65537x3 3 3", "5x192 192 192", "4300x64 64 64"},
                     [](const Inputs& in) { return layer_norm_operand(in[0], in[1], in[2]); },
                     composed});

}  // namespace
}  // namespace tessera
