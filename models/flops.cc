#include "models/flops.h"

namespace tessera {

ModelCost cost(const ModelConfig& c) {
  const int64_t N = c.tokens(), d = c.dim, h = c.hidden(), K = c.classes;
  const int64_t patch = c.channels * c.patch * c.patch;
  const int64_t moes = c.is_moe() ? int64_t(moe_blocks(c.moe.blocks, c.depth).size()) : 0;
  const int64_t mlp = 2 * d * h + h + d, norm = 2 * d;
  const int64_t attention = 4 * d * d + d + (c.qkv_bias ? 3 * d : 0);

  ModelCost cost;
  const int64_t P = c.prefix_tokens();  // each has a head
  cost.parameters = d * patch + d + P * d + N * d + c.depth * (2 * norm + attention) +
                    (c.depth - moes + moes * c.moe.experts) * mlp + norm + P * (d * K + K);
  cost.forward_flops =
      2 * ((N - P) * d * patch + c.depth * (N * (4 * d * d + 2 * d * h) + 2 * N * N * d) + P * d * K);
  return cost;
}

}  // namespace tessera
