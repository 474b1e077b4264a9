#include "models/block.h"

#include <algorithm>

#include "nn/moe/random_partition.h"
#include "nn/moe/token_router.h"

namespace tessera {
namespace {

bool is_placed(const std::string& placement, const ModelConfig& c, int64_t id) {
  const std::vector<int64_t> ids = moe_blocks(placement, total_depth(c));
  return std::binary_search(ids.begin(), ids.end(), id);
}

bool has_experts(const ModelConfig& c, int64_t id) { return is_placed(c.moe.blocks, c, id); }

}  // namespace

int64_t hidden_width(const ModelConfig& c, int64_t dim, int64_t id) {
  return c.hidden(dim) * (is_placed(c.widen.blocks, c, id) ? c.widen.times : 1);
}

std::unique_ptr<FeedForward> make_feed_forward(const Scope& scope, const ModelConfig& c, int64_t dim,
                                               int64_t id) {
  const int64_t hidden = hidden_width(c, dim, id);
  if (!has_experts(c, id)) return std::make_unique<Mlp>(scope / "mlp", dim, hidden, c.init, c.dropout);
  if (c.moe.router == MoeRouter::token)
    return std::make_unique<TokenRoutedMoe>(scope / "moe", c.moe.experts, dim, hidden, c.init, c.moe.init,
                                            c.moe.routing, c.dropout);
  return std::make_unique<RandomPartitionMoe>(scope / "moe", c.moe.experts, dim, hidden, c.init, c.moe.init,
                                              c.moe.partition, c.dropout);
}

Tensor through(const std::vector<Block>& blocks, Tensor x, const Pass& pass, int64_t wanted) {
  for (const Block& block : blocks)
    x = &block == &blocks.back() ? block.forward(x, pass, wanted) : block.forward(x, pass);
  return x;
}

double drop_path_rate(const ModelConfig& c, int64_t id) {
  const int64_t depth = total_depth(c);
  if (!c.drop_path_linear || depth == 1) return c.drop_path;
  return c.drop_path * double(id) / double(depth - 1);
}

ModelCost attention_cost(const ModelConfig& c, int64_t d, int64_t N) {
  return {.parameters = 4 * d * d + d + (c.qkv_bias ? 3 * d : 0),
          .forward_flops = 2 * (4 * N * d * d + 2 * N * N * d)};
}

ModelCost feed_forward_cost(const ModelConfig& c, int64_t d, int64_t N, int64_t id) {
  const int64_t h = hidden_width(c, d, id), experts = has_experts(c, id) ? c.moe.experts : 1;
  ModelCost cost{.parameters = experts * (2 * d * h + h + d), .forward_flops = 2 * (2 * N * d * h)};
  if (experts > 1 && c.moe.router == MoeRouter::token) {
    cost.parameters += experts * d;
    cost.forward_flops = c.moe.routing.k * cost.forward_flops + 2 * N * experts * d;
  }
  return cost;
}

ModelCost block_cost(const ModelConfig& c, int64_t d, int64_t N, int64_t id) {
  ModelCost cost{.parameters = 2 * (2 * d)};  // of the norms
  cost += attention_cost(c, d, N);
  return cost += feed_forward_cost(c, d, N, id);
}

}  // namespace tessera
