// Swin Transformer (Liu et al., 2021): stages of pre-norm blocks whose attention stays in windows, every
// second one shifted; between the stages, 2 x 2 tokens merge into one of twice the width. As the code of
// "Vision Transformer for Small-Size Datasets" (arXiv 2112.13492) has it for small images: a norm after the
// patches, a learned position for each token besides the relative ones, and the mean of all tokens for the
// head.
//
// Names are the authors' (layers.S.blocks.I, layers.S.downsample), which timm reads. The table that numbers
// offsets, relative_position_index, is not stored.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/block.h"
#include "models/model.h"
#include "models/patch_embed.h"
#include "nn/window_attention.h"

namespace tessera {

// 2 x 2 tokens side by side, a norm, and half of their width: (B,G*G,C) to (B,G*G/4,2C).
struct PatchMerging {
  int64_t grid;
  LayerNorm norm;
  Linear reduction;

  PatchMerging(const Scope& scope, int64_t C, int64_t grid, WeightInit init);
  Tensor forward(const Tensor& x) const;
};

class Swin : public Model {
 public:
  Swin(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype = DType::f32);

  Tensor forward(const Tensor& images, const Pass& pass) const override;
  int64_t rows() const override;  // the mean over all blocks

 private:
  struct Block : PreNormBlock<WindowAttention> {
    Block(const Scope& scope, const ModelConfig& config, const Stage& stage, const Windows& windows,
          int64_t id);
  };
  struct Layer {
    std::string name;
    std::vector<Block> blocks;
    std::unique_ptr<PatchMerging> downsample;  // but for the last
  };

  std::unique_ptr<PatchEmbed> patch_embed_;
  std::unique_ptr<LayerNorm> patch_norm_;
  Tensor absolute_pos_embed_;  // (1,N,D)
  std::vector<Layer> layers_;
  std::unique_ptr<LayerNorm> norm_;
  std::unique_ptr<Linear> head_;
};

// The windows must fit the grids of the stages, which must merge.
void check_swin(const ModelConfig& config);

// With N tokens of width d in a stage and n to a window, a block takes
//   2 [ 4 N d^2 + 2 N n d + 2 N d h ]
// operations, a merging 2 [ N/4 8 d^2 ], the patches and the head what they take in a ViT.
ModelCost swin_cost(const ModelConfig& config);

}  // namespace tessera
