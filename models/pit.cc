#include "models/pit.h"

namespace tessera {
namespace {

int64_t pooled(int64_t grid) { return (grid + 1) / 2; }

}  // namespace

PitPool::PitPool(const Scope& scope, int64_t C, WeightInit init)
    : conv_weight((scope / "conv" / "weight").weight({2 * C, 1, 3, 3}, linear_init(init, 9, 2 * C * 9))),
      conv_bias((scope / "conv" / "bias").bias({2 * C})),
      proj(scope / "proj", 2 * C, 2 * C, init),
      cls(scope / "cls", C, 2 * C, init) {}

Tensor PitPool::forward(const Tensor& tokens, int64_t grid) const {
  const int64_t B = tokens.size(0), N = tokens.size(1), C = tokens.size(2), half = pooled(grid);
  const Tensor patches = slice(tokens, 1, 1, N).reshape({B, grid, grid, C});
  const Tensor pooled = depthwise_conv(patches, conv_weight, conv_bias, 2, 1);
  return concat({cls.forward(slice(tokens, 1, 0, 1)), proj.forward(pooled.reshape({B, half * half, 2 * C}))},
                1);
}

Pit::Pit(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype) : Model(config, dtype) {
  const int64_t D = config.dim;
  const Init token = token_init(config.init);
  const Scope scope(parameters());
  cls_token_ = (scope / "cls_token").weight({1, 1, D}, token, false);
  pos_embed_ = (scope / "pos_embed").weight({1, config.tokens(), D}, token, false);
  patch_embed_ = std::make_unique<PatchEmbed>(scope / "patch_embed", config);
  int64_t id = 0, width = D;
  for (const Stage& stage : stages(config)) {
    if (id > 0)
      pools_.emplace_back(scope / "pools" / std::to_string(pools_.size()), stage.dim / 2, config.init);
    std::vector<Block>& blocks = stages_.emplace_back();
    for (int64_t i = 0; i < stage.depth; ++i, ++id)
      blocks.emplace_back(scope / "blocks" / std::to_string(id), config, stage.dim, stage.heads, id);
    width = stage.dim;
  }
  norm_ = std::make_unique<LayerNorm>(scope / "norm", width);
  head_ = std::make_unique<Linear>(scope / "head", width, config.classes, config.init);
  parameters().allocate(seed);
}

Tensor Pit::forward(const Tensor& images, const Pass& pass) const {
  check_images(images);
  const int64_t B = images.size(0);
  Tensor x = embed_tokens(patch_embed_->forward(images, pass), cls_token_, pos_embed_);
  int64_t grid = config().image_size / config().patch;
  for (size_t s = 0; s < stages_.size(); ++s) {
    if (s > 0) {
      x = pools_[s - 1].forward(x, grid);
      pass.show("pools." + std::to_string(s - 1), x);
      grid = pooled(grid);
    }
    x = through(stages_[s], x, pass, s + 1 < stages_.size() ? x.size(1) : 1);
  }
  const Tensor cls = slice(x, 1, 0, 1).reshape({B, x.size(2)});
  return pass.show("head", head_->forward(norm_->forward(cls)));
}

int64_t Pit::rows() const {
  int64_t tokens = 0, grid = config().image_size / config().patch;
  for (const Stage& stage : stages(config())) {
    tokens += stage.depth * (grid * grid + 1);
    grid = pooled(grid);
  }
  return tokens / total_depth(config());
}

ModelCost pit_cost(const ModelConfig& c) {
  const int64_t N = c.tokens(), D = c.dim, K = c.classes;
  ModelCost cost = patch_embed_cost(c);
  cost += {.parameters = D + N * D};
  int64_t id = 0, grid = c.image_size / c.patch, width = D;
  for (const Stage& stage : stages(c)) {
    width = stage.dim;
    if (id > 0) {
      grid = pooled(grid);
      const int64_t conv = 9 * width, proj = width * width, cls = width / 2 * width;
      cost += {.parameters = conv + proj + cls + 3 * width,
               .forward_flops = 2 * (grid * grid * (conv + proj) + cls)};
    }
    for (int64_t i = 0; i < stage.depth; ++i, ++id) cost += block_cost(c, width, grid * grid + 1, id);
  }
  return cost += {.parameters = 2 * width + width * K + K, .forward_flops = 2 * width * K};
}

}  // namespace tessera
