#include "models/vit.h"

#include <algorithm>

namespace tessera {
namespace {

double drop_path_rate(const ModelConfig& config, int64_t block) {
  if (!config.drop_path_linear || config.depth == 1) return config.drop_path;
  return config.drop_path * double(block) / double(config.depth - 1);
}

std::unique_ptr<FeedForward> make_feed_forward(const Scope& scope, const ModelConfig& c, bool moe) {
  if (moe)
    return std::make_unique<RandomPartitionMoe>(scope / "moe", c.moe.experts, c.dim, c.hidden(), c.init,
                                                c.moe.init, c.moe.partition, c.dropout);
  return std::make_unique<Mlp>(scope / "mlp", c.dim, c.hidden(), c.init, c.dropout);
}

}  // namespace

Block::Block(const Scope& scope, const ModelConfig& c, int64_t index, bool moe)
    : norm1(scope / "norm1", c.dim),
      attn(scope / "attn", c.dim, c.heads, c.qkv_bias, c.init, c.dropout),
      drop_path1(scope, drop_path_rate(c, index)),
      norm2(scope / "norm2", c.dim),
      mlp(make_feed_forward(scope, c, moe)),
      drop_path2(scope, drop_path_rate(c, index)),
      name(scope.name()) {}

Tensor Block::forward(const Tensor& input, const Pass& pass) const {
  Tensor x = attn.forward(norm1.forward(input), drop_path1.around(input, pass), pass);
  pass.show(name + ".attn", x);
  x = mlp->forward(norm2.forward(x), drop_path2.around(x, pass), pass);
  return pass.show(name + ".mlp", x);
}

Vit::Vit(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype) : Model(config, dtype) {
  const int64_t D = config.dim, P = config.patch, C = config.channels;
  const bool small_image = config.init == WeightInit::xavier;  // that code base draws tokens from N(0,1)
  const Scope scope(parameters());
  cls_token_ = (scope / "cls_token").weight({1, 1, D}, Init::normal(small_image ? 1 : 1e-6), false);
  if (config.distilled)
    dist_token_ = (scope / "dist_token").weight({1, 1, D}, Init::trunc_normal(0.02), false);
  pos_embed_ =
      (scope / "pos_embed")
          .weight({1, config.tokens(), D}, small_image ? Init::normal(1) : Init::trunc_normal(0.02), false);
  const Scope proj = scope / "patch_embed" / "proj";
  patch_weight_ = (proj / "weight").weight({D, C, P, P}, linear_init(config.init, C * P * P, D));
  patch_bias_ = (proj / "bias").bias({D});
  const std::vector<int64_t> moe = moe_blocks(config.moe.blocks, config.depth);
  for (int64_t i = 0; i < config.depth; ++i)
    blocks_.emplace_back(scope / "blocks" / std::to_string(i), config, i,
                         std::binary_search(moe.begin(), moe.end(), i));
  norm_ = std::make_unique<LayerNorm>(scope / "norm", D);
  head_ = std::make_unique<Linear>(scope / "head", D, config.classes, config.init);
  if (config.distilled)
    head_dist_ = std::make_unique<Linear>(scope / "head_dist", D, config.classes, config.init);
  parameters().allocate(seed);
}

Tensor Vit::forward(const Tensor& images, const Pass& pass) const {
  check_images(images);
  const int64_t B = images.size(0), D = config().dim, P = config().patch;
  const Tensor weight = patch_weight_.reshape({D, config().channels * P * P});
  Tensor x = linear(patches(images, P), weight, patch_bias_);
  pass.show("patch_embed", x);
  x = embed_tokens(x, head_dist_ ? concat({cls_token_, dist_token_}, 1) : cls_token_, pos_embed_);
  for (const Block& block : blocks_) x = block.forward(x, pass);
  const auto head = [&](const Linear& layer, int64_t token) {
    return layer.forward(norm_->forward(slice(x, 1, token, token + 1).reshape({B, D})));
  };
  if (!head_dist_) return pass.show("head", head(*head_, 0));
  return pass.show("head", scale(add(head(*head_, 0), head(*head_dist_, 1)), 0.5));
}

ModelCost vit_cost(const ModelConfig& c) {
  const int64_t N = c.tokens(), d = c.dim, h = c.hidden(), K = c.classes;
  const int64_t patch = c.channels * c.patch * c.patch;
  const int64_t moes = c.is_moe() ? int64_t(moe_blocks(c.moe.blocks, c.depth).size()) : 0;
  const int64_t mlp = 2 * d * h + h + d, norm = 2 * d;
  const int64_t attention = 4 * d * d + d + (c.qkv_bias ? 3 * d : 0);

  const int64_t P = c.prefix_tokens();  // each has a head

  ModelCost cost;
  cost.parameters = d * patch + d + P * d + N * d + c.depth * (2 * norm + attention) +
                    (c.depth - moes + moes * c.moe.experts) * mlp + norm + P * (d * K + K);
  cost.forward_flops =
      2 * ((N - P) * d * patch + c.depth * (N * (4 * d * d + 2 * d * h) + 2 * N * N * d) + P * d * K);
  return cost;
}

}  // namespace tessera
