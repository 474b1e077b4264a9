// Multi-head self-attention in windows of W x W tokens with a relative position bias (Liu et al., "Swin
// Transformer", 2021). A shifted one moves the grid of tokens round before it is cut: what lay at one edge
// comes to stand in a window with the other, and a mask keeps the two from seeing each other.
//
// To cut tokens into windows is to put their rows into another order; the residual connection brings them
// back.
#pragma once

#include "nn/layers.h"
#include "nn/token_windows.h"

namespace tessera {

struct WindowAttention {
  Windows windows;
  int64_t heads;
  Linear qkv, proj;
  Tensor relative_position_bias_table;  // ((2W-1)^2,H)
  Dropout dropout;

  WindowAttention(const Scope& scope, int64_t C, int64_t H, const Windows& windows, bool qkv_bias,
                  WeightInit init, double dropout_rate);

  // residual + proj(attention(x)), x(B,G*G,C)
  Tensor forward(const Tensor& x, const Residual& residual, const Pass& pass) const;
};

}  // namespace tessera
