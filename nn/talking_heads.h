// The two kinds of attention of CaiT (Touvron et al., "Going deeper with Image Transformers", 2021), with
// timm's names. Both give the branch alone: LayerScale stands between it and the residual connection.
#pragma once

#include <cmath>

#include "nn/layers.h"

namespace tessera {

// Talking heads (Shazeer et al., 2020): a linear layer over the heads before the softmax and one after it. A
// head has D channels, whatever the width C.
struct TalkingHeads {
  int64_t heads, D;
  Linear qkv, proj_l, proj_w, proj;
  Dropout dropout;

  TalkingHeads(const Scope& scope, int64_t C, int64_t H, int64_t D, bool qkv_bias, WeightInit init,
               double dropout_rate)
      : heads(H),
        D(D),
        qkv(scope / "qkv", C, 3 * H * D, init, qkv_bias),
        proj_l(scope / "proj_l", H, H, init),
        proj_w(scope / "proj_w", H, H, init),
        proj(scope / "proj", H * D, C, init),
        dropout(scope, dropout_rate) {}

  Tensor forward(const Tensor& x, const Pass& pass) const {  // (B,N,C) to (B,N,C)
    const Tensor packed = qkv.forward(x).reshape({x.size(0), x.size(1), 3, heads, D});
    const Tensor q = scale(split_heads(packed, 0), 1 / std::sqrt(double(D)));
    const Tensor scores = matmul(q, split_heads(packed, 1), false, true);
    const Tensor weights = softmax(mix_heads(scores, proj_l.weight, proj_l.bias));
    const Tensor talked = mix_heads(weights, proj_w.weight, proj_w.bias);
    return proj.forward(dropout.forward(merge_heads(matmul(talked, split_heads(packed, 2))), pass));
  }
};

// Class attention: the first token alone asks, of itself and all others.
struct ClassAttention {
  int64_t heads, D;
  Linear q, k, v, proj;
  Dropout dropout;

  ClassAttention(const Scope& scope, int64_t C, int64_t H, int64_t D, bool qkv_bias, WeightInit init,
                 double dropout_rate)
      : heads(H),
        D(D),
        q(scope / "q", C, H * D, init, qkv_bias),
        k(scope / "k", C, H * D, init, qkv_bias),
        v(scope / "v", C, H * D, init, qkv_bias),
        proj(scope / "proj", H * D, C, init),
        dropout(scope, dropout_rate) {}

  Tensor forward(const Tensor& x, const Pass& pass) const {  // (B,N,C) to (B,1,C)
    const auto part = [&](const Linear& layer, const Tensor& tokens) {
      return split_heads(layer.forward(tokens).reshape({tokens.size(0), tokens.size(1), 1, heads, D}), 0);
    };
    const Tensor query = scale(part(q, slice(x, 1, 0, 1)), 1 / std::sqrt(double(D)));
    const Tensor weights = softmax(matmul(query, part(k, x), false, true));
    return proj.forward(dropout.forward(merge_heads(matmul(weights, part(v, x))), pass));
  }
};

}  // namespace tessera
