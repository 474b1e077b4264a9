// Vision Transformer (Dosovitskiy et al., 2021) with timm's names: pre-norm blocks, a class token, learned
// position embeddings. A distilled one (Touvron et al., 2021) has a second token with a head of its own; its
// logits are the mean of both heads', in training too as long as there is no teacher. Blocks named by
// config.moe have random-partition experts in place of their MLP.
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
  Tensor cls_token_, dist_token_;     // (1,1,D) each; the second in a distilled model only
  Tensor pos_embed_;                  // (1,N,D)
  std::vector<Block> blocks_;
  std::unique_ptr<LayerNorm> norm_;
  std::unique_ptr<Linear> head_, head_dist_;
};

// With N tokens (of them N-1 patches), width d, MLP width h and K classes the forward pass takes
//   2 [ (N-1) d channels patch^2 + depth (N (4 d^2 + 2 d h) + 2 N^2 d) + d K ]
// operations, with a distillation token N-2 patches and 2 d K. Experts of a random partition cost parameters
// but no operations: each token goes through one.
ModelCost vit_cost(const ModelConfig& config);

}  // namespace tessera
