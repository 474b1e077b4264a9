// Vision Transformer (Dosovitskiy et al., 2021) with timm's names: pre-norm blocks, a class token, learned
// position embeddings. Blocks named by config.moe have random-partition experts in place of their MLP.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/flops.h"
#include "models/model.h"
#include "nn/attention.h"
#include "nn/feed_forward.h"

namespace tessera {

struct Block {
  LayerNorm norm1;
  Attention attn;
  DropPath drop_path1;
  LayerNorm norm2;
  std::unique_ptr<FeedForward> mlp;  // Mlp or RandomPartitionMoe
  DropPath drop_path2;
  std::string name;

  Block(const Scope& scope, const ModelConfig& config, int64_t index, bool moe);
  Tensor forward(const Tensor& input, const Pass& pass) const;  // (B,N,C) to (B,N,C)
};

class Vit : public Model {
 public:
  Vit(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype = DType::f32);

  Tensor forward(const Tensor& images, const Pass& pass) const override;
  std::vector<Block>& blocks() { return blocks_; }

 private:
  Tensor patch_weight_, patch_bias_;  // (D,C,P,P), (D)
  Tensor cls_token_, pos_embed_;      // (1,1,D), (1,N,D)
  std::vector<Block> blocks_;
  std::unique_ptr<LayerNorm> norm_;
  std::unique_ptr<Linear> head_;
};

// With N tokens (of them N-1 patches), width d, MLP width h and K classes the forward pass takes
//   2 [ (N-1) d channels patch^2 + depth (N (4 d^2 + 2 d h) + 2 N^2 d) + d K ]
// operations. Experts of a random partition cost parameters but no operations: each token goes through one.
ModelCost vit_cost(const ModelConfig& config);

}  // namespace tessera
