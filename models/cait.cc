#include "models/cait.h"

namespace tessera {
namespace {

constexpr int64_t kClassBlocks = 2;

// Where LayerScale starts in a network of this depth (section 2 of the paper).
double gamma_of_depth(int64_t depth) { return depth <= 18 ? 0.1 : depth <= 24 ? 1e-5 : 1e-6; }

// In block i of its kind.
double first_gamma(const ModelConfig& c, int64_t i) {
  const bool small_image = c.init == WeightInit::xavier;  // that code takes the block's number for the depth
  return gamma_of_depth(small_image ? i + 1 : c.depth);
}

}  // namespace

template <class A>
LayerScaleBlock<A>::LayerScaleBlock(const Scope& scope, const ModelConfig& c, int64_t id, double gamma,
                                    double drop_path)
    : gamma_1((scope / "gamma_1").weight({c.dim}, Init::constant(gamma), false)),
      gamma_2((scope / "gamma_2").weight({c.dim}, Init::constant(gamma), false)),
      norm1(scope / "norm1", c.dim),
      attn(scope / "attn", c.dim, c.heads, c.head_size(), c.qkv_bias, c.init, c.dropout),
      drop_path1(scope, drop_path),
      norm2(scope / "norm2", c.dim),
      mlp(make_feed_forward(scope, c, c.dim, id)),
      drop_path2(scope, drop_path),
      name(scope.name()) {}

template <class A>
Tensor LayerScaleBlock<A>::forward(const Tensor& input, const Tensor& seen, const Pass& pass) const {
  const Residual around_attn = drop_path1.around(input, pass);
  Tensor x = layer_scale(attn.forward(norm1.forward(seen), pass), gamma_1, around_attn.x, around_attn.scale);
  pass.show(name + ".attn", x);
  // The layer would add what it goes around, but LayerScale comes first: it adds to nothing.
  const Tensor branch = mlp->forward(norm2.forward(x), {Tensor::zeros(x.shape(), x.dtype())}, pass);
  const Residual around_mlp = drop_path2.around(x, pass);
  x = layer_scale(branch, gamma_2, around_mlp.x, around_mlp.scale);
  return pass.show(name + ".mlp", x);
}

Cait::Cait(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype) : Model(config, dtype) {
  const int64_t D = config.dim, grid = config.image_size / config.patch;
  const Init token = token_init(config.init);
  const Scope scope(parameters());
  cls_token_ = (scope / "cls_token").weight({1, 1, D}, token, false);
  pos_embed_ = (scope / "pos_embed").weight({1, grid * grid, D}, token, false);
  patch_embed_ = std::make_unique<PatchEmbed>(scope / "patch_embed", config);
  for (int64_t id = 0; id < config.depth; ++id)
    blocks_.emplace_back(scope / "blocks" / std::to_string(id), config, id, first_gamma(config, id),
                         drop_path_rate(config, id));
  for (int64_t i = 0; i < kClassBlocks; ++i)
    class_blocks_.emplace_back(scope / "blocks_token_only" / std::to_string(i), config, config.depth + i,
                               first_gamma(config, i), 0);
  norm_ = std::make_unique<LayerNorm>(scope / "norm", D);
  head_ = std::make_unique<Linear>(scope / "head", D, config.classes, config.init);
  parameters().allocate(seed);
}

Tensor Cait::forward(const Tensor& images, const Pass& pass) const {
  check_images(images);
  const int64_t B = images.size(0), D = config().dim;
  Tensor x = add(patch_embed_->forward(images, pass), pos_embed_);
  for (const auto& block : blocks_) x = block.forward(x, x, pass);
  Tensor token = add(Tensor::zeros({B, 1, D}, x.dtype()), cls_token_);
  for (const auto& block : class_blocks_) token = block.forward(token, concat({token, x}, 1), pass);
  return pass.show("head", head_->forward(norm_->forward(token.reshape({B, D}))));
}

void check_cait(const ModelConfig& c) {
  constexpr int64_t kMost = 1 << 23;
  TESSERA_CHECK_AS(Exit::usage, c.heads * c.tokens() <= kMost, "model.heads = ", c.heads,
                   ": cait mixes the heads of ", c.tokens(), " tokens, ", c.heads * c.tokens(),
                   " in all; at most ", kMost, " are possible");
}

ModelCost cait_cost(const ModelConfig& c) {
  const int64_t grid = c.image_size / c.patch, N = grid * grid, d = c.dim, H = c.heads, a = H * c.head_size();
  const int64_t K = c.classes;
  const ModelCost around{.parameters = 2 * (2 * d) + 2 * d};  // norms and LayerScale
  const int64_t projections = 4 * d * a + d + (c.qkv_bias ? 3 * a : 0);
  ModelCost cost = patch_embed_cost(c);
  cost += {.parameters = d + N * d + 2 * d + d * K + K, .forward_flops = 2 * d * K};
  for (int64_t id = 0; id < c.depth; ++id) {
    cost += around;
    cost += {.parameters = projections + 2 * (H * H + H),
             .forward_flops = 2 * (4 * N * d * a + 2 * N * N * a + 2 * N * N * H * H)};
    cost += feed_forward_cost(c, d, N, id);
  }
  for (int64_t i = 0; i < kClassBlocks; ++i) {
    cost += around;
    cost +=
        {.parameters = projections, .forward_flops = 2 * (2 * d * a + 2 * (N + 1) * d * a + 2 * (N + 1) * a)};
    cost += feed_forward_cost(c, d, 1, c.depth + i);
  }
  return cost;
}

}  // namespace tessera
