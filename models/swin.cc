#include "models/swin.h"

namespace tessera {
namespace {

constexpr double kNormEps = 1e-5;  // as in the authors' code

// Of a stage's block i. Where one window holds all tokens there is nothing to shift.
Windows windows_of(const ModelConfig& c, int64_t grid, int64_t i) {
  if (grid <= c.window) return {.grid = grid, .size = grid, .shift = 0};
  return {.grid = grid, .size = c.window, .shift = i % 2 == 0 ? 0 : c.window / 2};
}

// Calls f(stage, its number, grid) for each stage.
template <class F>
void each_stage(const ModelConfig& c, F f) {
  int64_t grid = c.image_size / c.patch, number = 0;
  for (const Stage& stage : stages(c)) {
    f(stage, number++, grid);
    grid /= 2;
  }
}

}  // namespace

PatchMerging::PatchMerging(const Scope& scope, int64_t C, int64_t grid, WeightInit init)
    : grid(grid),
      norm(scope / "norm", 4 * C, kNormEps),
      reduction(scope / "reduction", 4 * C, 2 * C, init, false) {}

Tensor PatchMerging::forward(const Tensor& x) const {
  const int64_t B = x.size(0), N = x.size(1), C = x.size(2);
  const Tensor rows = permute_rows(x.reshape({B * N, C}), merging_order(grid, B));
  return reduction.forward(norm.forward(rows.reshape({B, N / 4, 4 * C})));
}

Swin::Block::Block(const Scope& scope, const ModelConfig& c, const Stage& stage, const Windows& windows,
                   int64_t id)
    : PreNormBlock(scope, c, stage.dim, id, stage.dim, stage.heads, windows, c.qkv_bias, c.init, c.dropout) {
  norm1.eps = norm2.eps = kNormEps;
}

Swin::Swin(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype) : Model(config, dtype) {
  const int64_t D = config.dim, grid = config.image_size / config.patch;
  const Scope scope(parameters()), patch_embed = scope / "patch_embed";
  patch_embed_ = std::make_unique<PatchEmbed>(patch_embed, config);
  patch_norm_ = std::make_unique<LayerNorm>(patch_embed / "norm", D, kNormEps);
  absolute_pos_embed_ =
      (scope / "absolute_pos_embed").weight({1, grid * grid, D}, Init::trunc_normal(0.02), false);
  int64_t id = 0, width = D;
  const int64_t last = int64_t(stages(config).size()) - 1;
  each_stage(config, [&](const Stage& stage, int64_t s, int64_t grid) {
    const Scope layer = scope / "layers" / std::to_string(s);
    layers_.emplace_back().name = layer.name();
    for (int64_t i = 0; i < stage.depth; ++i)
      layers_.back().blocks.emplace_back(layer / "blocks" / std::to_string(i), config, stage,
                                         windows_of(config, grid, i), id++);
    if (s < last)
      layers_.back().downsample =
          std::make_unique<PatchMerging>(layer / "downsample", stage.dim, grid, config.init);
    width = stage.dim;
  });
  norm_ = std::make_unique<LayerNorm>(scope / "norm", width, kNormEps);
  head_ = std::make_unique<Linear>(scope / "head", width, config.classes, config.init);
  parameters().allocate(seed);
}

Tensor Swin::forward(const Tensor& images, const Pass& pass) const {
  check_images(images);
  Tensor x = patch_norm_->forward(patch_embed_->forward(images, pass));
  x = add(pass.show("patch_embed.norm", x), absolute_pos_embed_);
  for (const Layer& layer : layers_) {
    for (const Block& block : layer.blocks) x = block.forward(x, pass);
    if (layer.downsample) x = pass.show(layer.name + ".downsample", layer.downsample->forward(x));
  }
  return pass.show("head", head_->forward(mean(norm_->forward(x), 1)));
}

int64_t Swin::rows() const {
  int64_t tokens = 0;
  each_stage(config(),
             [&](const Stage& stage, int64_t, int64_t grid) { tokens += stage.depth * grid * grid; });
  return std::max<int64_t>(1, tokens / total_depth(config()));
}

void check_swin(const ModelConfig& c) {
  const int64_t last = int64_t(stages(c).size()) - 1;
  each_stage(c, [&](const Stage&, int64_t s, int64_t grid) {
    TESSERA_CHECK_AS(Exit::usage, grid <= c.window || grid % c.window == 0, "model.window = ", c.window,
                     " does not divide the ", grid, " x ", grid, " tokens of stage ", s);
    TESSERA_CHECK_AS(Exit::usage, s == last || grid % 2 == 0, "model.depths = ", c.depths, ": the ", grid,
                     " x ", grid, " tokens of stage ", s, " do not merge by 2 x 2");
  });
}

ModelCost swin_cost(const ModelConfig& c) {
  const int64_t K = c.classes, last = int64_t(stages(c).size()) - 1;
  ModelCost cost = patch_embed_cost(c);
  int64_t id = 0;
  each_stage(c, [&](const Stage& stage, int64_t s, int64_t grid) {
    const int64_t N = grid * grid, d = stage.dim;
    if (s == 0) cost += {.parameters = 2 * d + N * d};
    for (int64_t i = 0; i < stage.depth; ++i) {
      const Windows windows = windows_of(c, grid, i);
      ModelCost attention = attention_cost(c, d, windows.tokens());  // of one window
      attention.forward_flops *= windows.count();
      const int64_t offsets = (2 * windows.size - 1) * (2 * windows.size - 1);
      attention.parameters += offsets * stage.heads;
      cost += attention;
      cost += feed_forward_cost(c, d, N, id++);
      cost += {.parameters = 2 * (2 * d)};  // of the norms
    }
    if (s < last)
      cost += {.parameters = 2 * (4 * d) + 8 * d * d, .forward_flops = 2 * (N / 4 * 8 * d * d)};
    else
      cost += {.parameters = 2 * d + d * K + K, .forward_flops = 2 * d * K};
  });
  return cost;
}

}  // namespace tessera
