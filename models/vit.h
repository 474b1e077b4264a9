// Vision Transformer (Dosovitskiy et al., 2021) with timm's names: pre-norm blocks, a class token, learned
// position embeddings. A distilled one (Touvron et al., 2021) has a second token with a head of its own; its
// logits are the mean of both heads', in training too as long as there is no teacher. Blocks named by
// config.moe have random-partition experts in place of their MLP.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/config.h"
#include "nn/attention.h"
#include "nn/feed_forward.h"
#include "optim/experts_averaging.h"

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

class Vit {
 public:
  // Builds the model and draws its first weights from `seed`; without one they are 0, to be loaded.
  Vit(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype = DType::f32);

  // images(B,C,H,W) to logits(B,K)
  Tensor forward(const Tensor& images, const Pass& pass) const;

  const ModelConfig& config() const { return config_; }
  ParameterStore& parameters() { return parameters_; }
  const ParameterStore& parameters() const { return parameters_; }
  std::vector<Block>& blocks() { return blocks_; }

 private:
  ModelConfig config_;
  ParameterStore parameters_;
  Tensor patch_weight_, patch_bias_;  // (D,C,P,P), (D)
  Tensor cls_token_, dist_token_;     // (1,1,D) each; the second in a distilled model only
  Tensor pos_embed_;                  // (1,N,D)
  std::vector<Block> blocks_;
  std::unique_ptr<LayerNorm> norm_;
  std::unique_ptr<Linear> head_, head_dist_;
};

// Where the experts lie in a model's flat buffer; empty for a dense one.
std::vector<StackedParameter> stacked_parameters(const Vit& model);

}  // namespace tessera
