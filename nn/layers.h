// The small layers. Names and layouts are timm's.
#pragma once

#include <string>

#include "engine/ops/ops.h"
#include "nn/module.h"

namespace tessera {

// How the weights of linear layers start: timm's truncated normal (0.02), or Xavier as the small-image code
// does.
enum class WeightInit { trunc_normal, xavier };

inline Init linear_init(WeightInit kind, int64_t C, int64_t O) {
  return kind == WeightInit::xavier ? Init::xavier_normal(C, O) : Init::trunc_normal(0.02);
}

// How tokens and position embeddings start: timm's truncated normal, or N(0,1) as the small-image code draws
// them.
inline Init token_init(WeightInit kind) {
  return kind == WeightInit::xavier ? Init::normal(1) : Init::trunc_normal(0.02);
}

// y(*,O) = x(*,C) weight(O,C)^T + bias(O)
struct Linear {
  Tensor weight, bias;

  Linear(const Scope& scope, int64_t C, int64_t O, WeightInit init, bool with_bias = true)
      : weight((scope / "weight").weight({O, C}, linear_init(init, C, O))) {
    if (with_bias) bias = (scope / "bias").bias({O});
  }
  Tensor forward(const Tensor& x) const { return linear(x, weight, bias); }
};

struct LayerNorm {
  Tensor weight, bias;
  double eps;

  LayerNorm(const Scope& scope, int64_t C, double eps = 1e-6)
      : weight((scope / "weight").weight({C}, Init::ones(), false)),
        bias((scope / "bias").bias({C})),
        eps(eps) {}
  Tensor forward(const Tensor& x) const { return layer_norm(x, weight, bias, eps); }
  // For products alone, which may take it in bf16.
  Tensor operand(const Tensor& x) const { return layer_norm_operand(x, weight, bias, eps); }
};

// Stochastic depth (Huang et al., 2016): in training a sample's branch is dropped with probability `rate`,
// and scaled by 1/(1 - rate) where it is kept.
struct DropPath {
  double rate;
  uint32_t site;

  DropPath(const Scope& scope, double rate) : rate(rate), site(scope.site()) {}
  // The connection around a branch that starts from x(B,N,C).
  Residual around(const Tensor& x, const Pass& pass) const {
    if (!pass.training || rate == 0) return {x};
    return {x, drop_path_scale(x.size(0), rate, pass.draw(Stream::drop_path, site), pass.first_sample,
                               x.dtype())};
  }
};

// Dropout of elements, in training.
struct Dropout {
  double rate;
  uint32_t site;

  Dropout(const Scope& scope, double rate) : rate(rate), site(scope.site()) {}
  bool draws(const Pass& pass) const { return pass.training && rate > 0; }
  Tensor forward(const Tensor& x, const Pass& pass) const {
    if (!draws(pass)) return x;
    return dropout(x, rate, pass.draw(Stream::dropout, site), pass.first_sample);
  }
};

}  // namespace tessera
