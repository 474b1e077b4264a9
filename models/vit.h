// Vision Transformer (Dosovitskiy et al., 2021) with timm's names: pre-norm blocks, a class token, learned
// position embeddings. A distilled one (Touvron et al., 2021) has a second token with a head of its own; its
// logits are the mean of both heads', in training too as long as there is no teacher. Blocks named by
// config.moe have experts in place of their MLP; config.stem puts convolutions before the
// patches.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/block.h"
#include "models/flops.h"
#include "models/model.h"
#include "models/patch_embed.h"

namespace tessera {

class Vit : public Model {
 public:
  Vit(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype = DType::f32);

  Tensor forward(const Tensor& images, const Pass& pass) const override;
  bool whole_batch() const override { return config().stem.batch_norm; }
  NamedTensors fused_parameters() const override;
  std::vector<Block>& blocks() { return blocks_; }

 protected:
  // With the first `depth` blocks alone, for a model that goes on from there, adds the head and then
  // allocates the store.
  Vit(const ModelConfig& config, DType dtype, int64_t depth);
  void add_head();
  Tensor embed(const Tensor& images, const Pass& pass) const;     // (B,C,H,W) to tokens (B,N,D)
  Tensor classify(const Tensor& tokens, const Pass& pass) const;  // (B,N,D) to logits (B,K)
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  Tensor cls_token_, dist_token_;  // (1,1,D) each; the second in a distilled model only
  Tensor pos_embed_;               // (1,N,D)
  std::unique_ptr<PatchEmbed> patch_embed_;
  std::vector<Block> blocks_;
  std::unique_ptr<LayerNorm> norm_;
  std::unique_ptr<Linear> head_, head_dist_;
};

// With width d and K classes the head takes 2 d K operations, with a distillation token twice that; the rest
// are those of the patch embedding and of the blocks.
ModelCost vit_cost(const ModelConfig& config);

}  // namespace tessera
