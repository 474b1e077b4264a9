// Multi-head self-attention (Vaswani et al., 2017) as in ViT: one packed projection to q, k, v, and one back.
#pragma once

#include "nn/layers.h"

namespace tessera {

struct Attention {
  int64_t heads;
  Linear qkv, proj;
  Dropout dropout;

  Attention(const Scope& scope, int64_t C, int64_t H, bool qkv_bias, WeightInit init, double dropout_rate)
      : heads(H),
        qkv(scope / "qkv", C, 3 * C, init, qkv_bias),
        proj(scope / "proj", C, C, init),
        dropout(scope, dropout_rate) {
    TESSERA_CHECK_AS(Exit::usage, H > 0 && C % H == 0, "model: dim ", C, " is not divisible by heads ", H);
  }

  // residual + proj(attention(x)), x(B,N,C), of the first `wanted` tokens
  Tensor forward(const Tensor& x, const Residual& residual, const Pass& pass, int64_t wanted) const {
    const int64_t B = x.size(0), N = x.size(1), C = x.size(2);
    const Tensor packed = qkv.forward(x).reshape({B, N, 3, heads, C / heads});
    const bool all = wanted == N;
    const Tensor attended = tessera::attention(packed, all ? 0 : wanted);
    return linear_residual(dropout.forward(attended, pass), proj.weight, proj.bias,
                           all ? residual.x : slice(residual.x, 1, 0, wanted), residual.scale);
  }
  Tensor forward(const Tensor& x, const Residual& residual, const Pass& pass) const {
    return forward(x, residual, pass, x.size(1));
  }
};

}  // namespace tessera
