#include "models/mobile_vmoe.h"

namespace tessera {
namespace {

int64_t dense_depth(const ModelConfig& c) { return moe_blocks(c.moe.blocks, c.depth).front(); }

}  // namespace

ExpertBlock::ExpertBlock(const Scope& scope, const ModelConfig& c, int64_t id)
    : norm1(scope / "norm1", c.dim),
      attn(scope / "attn", c.dim, c.heads, c.qkv_bias, c.init, c.dropout),
      drop_path1(scope, drop_path_rate(c, id)),
      norm2(scope / "norm2", c.dim),
      experts(scope / "moe", c.moe.experts, c.dim, hidden_width(c, c.dim, id), c.init, c.moe.init, c.dropout,
              false),
      drop_path2(scope, drop_path_rate(c, id)),
      name(scope.name()) {}

Tensor ExpertBlock::forward(const Tensor& input, const Routing& routing, const Pass& pass) const {
  Tensor x = attn.forward(norm1.forward(input), drop_path1.around(input, pass), pass);
  pass.show(name + ".attn", x);
  x = through_experts(experts, norm2.forward(x), routing, drop_path2.around(x, pass), pass);
  return pass.show(name + ".moe", x);
}

MobileVmoe::MobileVmoe(const ModelConfig& c, std::optional<uint64_t> seed, DType dtype)
    : Vit(c, dtype, dense_depth(c)),
      router_(Scope(parameters()) / "router", c.moe.experts, c.dim, c.init, c.moe.routing, superclasses(c)) {
  for (int64_t id = dense_depth(c); id < c.depth; ++id)
    expert_blocks_.emplace_back(Scope(parameters()) / "blocks" / std::to_string(id), c, id);
  add_head();
  parameters().allocate(seed);
}

Tensor MobileVmoe::image_vector(const Tensor& x) const {
  const int64_t B = x.size(0), N = x.size(1), D = x.size(2);
  const bool cls = config().moe.routing.vector == ImageVector::cls;
  const Tensor vector =
      cls ? slice(x, 1, 0, 1).reshape({B, D}) : mean(slice(x, 1, config().prefix_tokens(), N), 1);
  return layer_norm(vector, Tensor::full({D}, 1, x.dtype()), Tensor::zeros({D}, x.dtype()));
}

Tensor MobileVmoe::forward(const Tensor& images, const Pass& pass) const {
  Tensor x = embed(images, pass);
  for (const Block& block : blocks()) x = block.forward(x, pass);
  const Routing routing = router_.route(image_vector(x), x.size(1), pass);
  for (const ExpertBlock& block : expert_blocks_) x = block.forward(x, routing, pass);
  return classify(x, pass);
}

ModelCost mobile_vmoe_cost(const ModelConfig& c) {
  const int64_t k = c.moe.routing.k, E = c.moe.experts;
  ModelConfig dense = c;
  dense.moe = {};
  ModelCost cost = vit_cost(dense);
  cost += {.parameters = c.dim * E, .forward_flops = 2 * c.dim * E};
  for (int64_t id = dense_depth(c); id < c.depth; ++id) {
    const ModelCost expert = feed_forward_cost(dense, c.dim, c.tokens(), id);
    cost += {.parameters = (E - 1) * expert.parameters,
             .forward_flops = (k - 1) * expert.forward_flops,
             .idle_parameters = (E - k) * expert.parameters};
  }
  return cost;
}

void check_mobile_vmoe(const ModelConfig& c) {
  TESSERA_CHECK_AS(Exit::usage, c.is_moe(),
                   "model.moe.blocks = none: a Mobile V-MoE has experts in its last "
                   "layers; final-2 puts them into the last two");
  const std::vector<int64_t> ids = moe_blocks(c.moe.blocks, c.depth);
  TESSERA_CHECK_AS(Exit::usage, ids.front() > 0 && ids.front() + int64_t(ids.size()) == c.depth,
                   "model.moe.blocks = ", c.moe.blocks, ": in a Mobile V-MoE of depth ", c.depth,
                   " these must be the last layers, after at least one dense layer, such as final-2");
}

}  // namespace tessera
