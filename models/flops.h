// What a model costs, from its configuration alone.
#pragma once

#include <cstdint>

#include "models/config.h"
#include "nn/rep_conv.h"

namespace tessera {

struct ModelCost {
  int64_t parameters = 0;
  int64_t forward_flops = 0;    // one image: two for each multiply-add of a matrix product, nothing else
  int64_t idle_parameters = 0;  // of experts that one image, all of it, does not go through

  ModelCost& operator+=(const ModelCost& part) {
    parameters += part.parameters;
    forward_flops += part.forward_flops;
    idle_parameters += part.idle_parameters;
    return *this;
  }
};

// By the formula that stands with the architecture.
ModelCost cost(const ModelConfig& config);

// The model after fusing: without experts, batch norms and branches. Experts that a router chooses among are
// no copies of one layer and do not fuse.
inline ModelConfig fused_config(ModelConfig config) {
  if (config.moe.router == MoeRouter::random) config.moe = {};
  config.stem.batch_norm = false;
  if (!config.branches.empty()) config.branches = kMergedBranch;
  return config;
}

// A convolution of side x side outputs takes 2 side^2 O C k^2 operations.
inline ModelCost conv_cost(const ConvOptions& conv, int64_t side) {
  const int64_t weights = conv.out * conv.in * conv.kernel * conv.kernel;
  return {weights + (conv.norm ? 2 : 1) * conv.out, 2 * side * side * weights};
}

// Of a training step, for one image: a product has one like it for each of its two gradients.
inline int64_t training_flops(const ModelCost& cost) { return 3 * cost.forward_flops; }

}  // namespace tessera
