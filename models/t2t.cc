#include "models/t2t.h"

#include <bit>
#include <cmath>

namespace tessera {
namespace {

constexpr int64_t kTaps = 3 * 3;  // of a soft split

// Width of the tokens between the splits: 64 at the width 256 of that code. That it grows with the width is
// our choice.
int64_t narrow_width(const ModelConfig& c) { return c.dim / 4; }

int64_t split_count(const ModelConfig& c) { return std::countr_zero(uint64_t(c.patch)); }

// A soft split of tokens that form a square grid.
Tensor soft_split(const Tensor& tokens, int64_t grid) {
  return unfold(tokens.reshape({tokens.size(0), grid, grid, tokens.size(2)}), 3, 2, 1);
}

}  // namespace

TokenTransformer::TokenTransformer(const Scope& scope, const ModelConfig& c, int64_t C, int64_t T)
    : norm1(scope / "norm1", C),
      qkv(scope / "attn" / "qkv", C, 3 * T, c.init, c.qkv_bias),
      proj(scope / "attn" / "proj", T, T, c.init),
      dropout(scope, c.dropout),
      norm2(scope / "norm2", T),
      mlp(scope / "mlp", T, T, c.init, c.dropout),
      name(scope.name()) {}

Tensor TokenTransformer::forward(const Tensor& input, const Pass& pass) const {
  const int64_t B = input.size(0), N = input.size(1), T = proj.weight.size(0);
  const Tensor packed = qkv.forward(norm1.operand(input));
  const Tensor values = slice(widen(packed), 2, 2 * T, 3 * T);
  const Tensor attended = dropout.forward(attention(packed.reshape({B, N, 3, 1, T})), pass);
  const Tensor x = linear_residual(attended, proj.weight, proj.bias, values);
  pass.show(name + ".attn", x);
  return pass.show(name + ".mlp", mlp.forward(norm2.forward(x), {x}, pass));
}

std::vector<double> sinusoids(int64_t N, int64_t D) {
  std::vector<double> table;
  table.reserve(size_t(N * D));
  for (int64_t n = 0; n < N; ++n)
    for (int64_t j = 0; j < D; ++j) {
      const double angle = double(n) / std::pow(10000, double(j / 2 * 2) / double(D));
      table.push_back(j % 2 == 0 ? std::sin(angle) : std::cos(angle));
    }
  return table;
}

T2t::T2t(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype) : Model(config, dtype) {
  const int64_t D = config.dim, T = narrow_width(config);
  const Scope scope(parameters()), splits = scope / "tokens_to_token";
  int64_t width = config.channels;
  for (int64_t i = 1; i < split_count(config); ++i, width = T)
    narrow_.emplace_back(splits / ("attention" + std::to_string(i)), config, kTaps * width, T);
  project_ = std::make_unique<Linear>(splits / "project", kTaps * width, D, config.init);
  cls_token_ = (scope / "cls_token").weight({1, 1, D}, Init::trunc_normal(0.02), false);
  positions_ = sinusoids(config.tokens(), D);
  for (int64_t id = 0; id < config.depth; ++id)
    blocks_.emplace_back(scope / "blocks" / std::to_string(id), config, D, config.heads, id);
  norm_ = std::make_unique<LayerNorm>(scope / "norm", D);
  head_ = std::make_unique<Linear>(scope / "head", D, config.classes, config.init);
  parameters().allocate(seed);
}

// (1,1+N,D). A card, which one thread works, keeps them: a step that waits for the host is no graph.
Tensor T2t::positions(DType dtype) const {
  const Device device = Device::current();
  if (device.is_cuda() && positions_on_card_ && positions_on_card_.device() == device)
    return positions_on_card_;
  const Device::Scope host{Device()};  // the plan of a card's step is without it
  Tensor made;
  for_float("positions", dtype, [&]<class T>() {
    made = Tensor::of({1, config().tokens(), config().dim},
                      std::vector<T>(positions_.begin(), positions_.end()));
  });
  return device.is_cuda() ? positions_on_card_ = made.to(device) : made;
}

Tensor T2t::forward(const Tensor& images, const Pass& pass) const {
  check_images(images);
  const int64_t B = images.size(0), D = config().dim;
  int64_t grid = config().image_size;
  Tensor x = soft_split(patches(images, 1), grid);  // every pixel is a token
  for (const TokenTransformer& layer : narrow_) x = soft_split(layer.forward(x, pass), grid /= 2);
  x = pass.show("tokens_to_token", project_->forward(x));
  x = embed_tokens(x, cls_token_, positions(x.dtype()));
  x = through(blocks_, x, pass, 1);
  const Tensor cls = slice(x, 1, 0, 1).reshape({B, D});
  return pass.show("head", head_->forward(norm_->forward(cls)));
}

void check_t2t(const ModelConfig& c) {
  TESSERA_CHECK_AS(Exit::usage, c.patch >= 4 && std::has_single_bit(uint64_t(c.patch)),
                   "model.patch = ", c.patch,
                   ": t2t halves the image by soft splits, so it must be 4, 8, 16, ...");
  TESSERA_CHECK_AS(Exit::usage, c.image_size <= 512, "model.image_size = ", c.image_size,
                   ": every second pixel a side is a token of t2t's first layer; at most 512 are possible");
  TESSERA_CHECK_AS(Exit::usage, c.dim % 4 == 0, "model.dim = ", c.dim,
                   ": the tokens between t2t's soft splits have a quarter of it, so 4 must divide it");
}

ModelCost t2t_cost(const ModelConfig& c) {
  const int64_t D = c.dim, T = narrow_width(c), K = c.classes;
  ModelCost cost;
  int64_t grid = c.image_size, width = c.channels;
  for (int64_t i = 1; i < split_count(c); ++i, width = T) {
    grid /= 2;
    const int64_t n = grid * grid, C = kTaps * width;
    const int64_t biases = (c.qkv_bias ? 3 * T : 0) + 3 * T, norms = 2 * C + 2 * T;
    cost += {.parameters = norms + 3 * C * T + 3 * T * T + biases,
             .forward_flops = 2 * (n * (3 * C * T + 3 * T * T) + 2 * n * n * T)};
  }
  const int64_t N = c.tokens(), project = kTaps * width * D;
  cost += {.parameters = project + D, .forward_flops = 2 * (N - 1) * project};
  for (int64_t id = 0; id < c.depth; ++id) cost += block_cost(c, D, N, id);
  return cost += {.parameters = D + 2 * D + D * K + K, .forward_flops = 2 * D * K};
}

}  // namespace tessera
