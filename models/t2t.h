// Tokens-to-Token ViT (Yuan et al., 2021), as in the code of "Vision Transformer for Small-Size Datasets"
// (arXiv 2112.13492): the image becomes tokens by soft splits, overlapping 3 x 3 windows of stride 2, each
// window one token. Between two splits a small transformer layer works on the tokens, which then form an
// image again. So a token of the last split stands for `patch` pixels in each direction, patch = 2^splits. A
// linear layer brings them to the width of a ViT with fixed sinusoidal positions.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/block.h"
#include "models/flops.h"
#include "models/model.h"

namespace tessera {

// The layer between two splits, from tokens (B,N,C) to narrow ones (B,N,T): one head, whose values are the
// residual, since the input has another width.
//   q, k, v = qkv(norm1(x));   x <- v + proj(attention(q, k, v));   x <- x + mlp(norm2(x))
struct TokenTransformer {
  LayerNorm norm1;
  Linear qkv, proj;
  Dropout dropout;
  LayerNorm norm2;
  Mlp mlp;
  std::string name;

  TokenTransformer(const Scope& scope, const ModelConfig& config, int64_t C, int64_t T);
  Tensor forward(const Tensor& x, const Pass& pass) const;
};

class T2t : public Model {
 public:
  T2t(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype = DType::f32);

  Tensor forward(const Tensor& images, const Pass& pass) const override;

 private:
  Tensor positions(DType dtype) const;

  std::vector<TokenTransformer> narrow_;  // between the splits
  std::unique_ptr<Linear> project_;
  Tensor cls_token_;                  // (1,1,D)
  std::vector<double> positions_;     // (1+N,D), fixed
  mutable Tensor positions_on_card_;  // (1,1+N,D), of the last card
  std::vector<Block> blocks_;
  std::unique_ptr<LayerNorm> norm_;
  std::unique_ptr<Linear> head_;
};

// sin(n / 10000^(2i/D)) at channel 2i of token n, the cosine at 2i+1 (Vaswani et al., 2017): (N,D).
std::vector<double> sinusoids(int64_t N, int64_t D);

// Patches are 4, 8, 16, ... pixels, and dim can be divided by 4.
void check_t2t(const ModelConfig& config);

// With N patches, width d and K classes the forward pass takes
//   2 [ N 9 T d + d K ]
// operations beside those of its blocks, and the layer between two splits, on n tokens of width C,
//   2 [ n (3 C T + 3 T^2) + 2 n^2 T ].
ModelCost t2t_cost(const ModelConfig& config);

}  // namespace tessera
