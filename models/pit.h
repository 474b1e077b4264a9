// Pooling-based Vision Transformer (Heo et al., 2021), as in the code of "Vision Transformer for Small-Size
// Datasets" (arXiv 2112.13492): a ViT in stages. Between two stages the grid of patch tokens is pooled: a
// depthwise 3 x 3 convolution of stride 2 gives half the side and twice the width, a 1 x 1 convolution mixes
// the channels, and the class token goes through a linear layer of its own. The class token has the head.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/block.h"
#include "models/flops.h"
#include "models/model.h"
#include "models/patch_embed.h"

namespace tessera {

// Between two stages: tokens (B,1+N*N,C) to (B,1+N'*N',2C) with N' = ceil(N / 2).
struct PitPool {
  Tensor conv_weight, conv_bias;  // (2C,1,3,3), (2C)
  Linear proj;                    // the 1 x 1 convolution
  Linear cls;

  PitPool(const Scope& scope, int64_t C, WeightInit init);
  Tensor forward(const Tensor& tokens, int64_t grid) const;
};

class Pit : public Model {
 public:
  Pit(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype = DType::f32);

  Tensor forward(const Tensor& images, const Pass& pass) const override;
  int64_t rows() const override;  // the mean over all blocks

 private:
  std::unique_ptr<PatchEmbed> patch_embed_;
  Tensor cls_token_, pos_embed_;  // (1,1,D), (1,1+N,D)
  std::vector<std::vector<Block>> stages_;
  std::vector<PitPool> pools_;
  std::unique_ptr<LayerNorm> norm_;
  std::unique_ptr<Linear> head_;
};

// With N patches, first width D, last width d and K classes the forward pass takes
//   2 [ N D channels patch^2 + d K ]
// operations beside those of its blocks, and each pool from width C to a grid of N' tokens
//   2 [ N' (2C 9 + (2C)^2) + 2 C^2 ].
ModelCost pit_cost(const ModelConfig& config);

}  // namespace tessera
