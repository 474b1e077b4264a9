#include "models/vit.h"

namespace tessera {

Vit::Vit(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype)
    : Vit(config, dtype, config.depth) {
  add_head();
  parameters().allocate(seed);
}

Vit::Vit(const ModelConfig& config, DType dtype, int64_t depth) : Model(config, dtype) {
  const int64_t D = config.dim;
  const Init token = token_init(config.init);
  const Scope scope(parameters());
  cls_token_ = (scope / "cls_token")
                   .weight({1, 1, D}, config.init == WeightInit::xavier ? token : Init::normal(1e-6), false);
  if (config.distilled)
    dist_token_ = (scope / "dist_token").weight({1, 1, D}, Init::trunc_normal(0.02), false);
  pos_embed_ = (scope / "pos_embed").weight({1, config.tokens(), D}, token, false);
  patch_embed_ = std::make_unique<PatchEmbed>(scope / "patch_embed", config);
  for (int64_t id = 0; id < depth; ++id)
    blocks_.emplace_back(scope / "blocks" / std::to_string(id), config, D, config.heads, id);
}

void Vit::add_head() {
  const ModelConfig& c = config();
  const Scope scope(parameters());
  norm_ = std::make_unique<LayerNorm>(scope / "norm", c.dim);
  head_ = std::make_unique<Linear>(scope / "head", c.dim, c.classes, c.init);
  if (c.distilled) head_dist_ = std::make_unique<Linear>(scope / "head_dist", c.dim, c.classes, c.init);
}

Tensor Vit::forward(const Tensor& images, const Pass& pass) const {
  return classify(through(blocks_, embed(images, pass), pass, config().prefix_tokens()), pass);
}

Tensor Vit::embed(const Tensor& images, const Pass& pass) const {
  check_images(images);
  const Tensor x = patch_embed_->forward(images, pass);
  return embed_tokens(x, head_dist_ ? concat({cls_token_, dist_token_}, 1) : cls_token_, pos_embed_);
}

Tensor Vit::classify(const Tensor& x, const Pass& pass) const {
  const int64_t B = x.size(0), D = x.size(2);
  const auto head = [&](const Linear& layer, int64_t token) {
    return layer.forward(norm_->forward(slice(x, 1, token, token + 1).reshape({B, D})));
  };
  if (!head_dist_) return pass.show("head", head(*head_, 0));
  return pass.show("head", scale(add(head(*head_, 0), head(*head_dist_, 1)), 0.5));
}

NamedTensors Vit::fused_parameters() const {
  NamedTensors parameters = Model::fused_parameters();
  patch_embed_->fold_norms(parameters);
  return parameters;
}

ModelCost vit_cost(const ModelConfig& c) {
  const int64_t N = c.tokens(), D = c.dim, K = c.classes, P = c.prefix_tokens();  // each of P has a head
  ModelCost cost = patch_embed_cost(c);
  cost += {P * D + N * D + 2 * D + P * (D * K + K), 2 * P * D * K};
  for (int64_t id = 0; id < c.depth; ++id) cost += block_cost(c, D, N, id);
  return cost;
}

}  // namespace tessera
