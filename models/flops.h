// What a model costs, from its configuration alone.
#pragma once

#include <cstdint>

#include "models/config.h"

namespace tessera {

struct ModelCost {
  int64_t parameters = 0;
  int64_t forward_flops = 0;  // one image: two for each multiply-add of a matrix product, nothing else
};

// With N tokens (of them N-1 patches), width d, MLP width h and K classes the forward pass takes
//   2 [ (N-1) d channels patch^2 + depth (N (4 d^2 + 2 d h) + 2 N^2 d) + d K ],
// operations, with a distillation token N-2 patches and 2 d K.
// Experts of a random partition cost parameters but no operations: each token goes through one.
ModelCost cost(const ModelConfig& config);

// The model after fusing.
inline ModelConfig fused_config(ModelConfig config) {
  config.moe = {};
  return config;
}

// Of a training step, for one image: a product has one like it for each of its two gradients.
inline int64_t training_flops(const ModelCost& cost) { return 3 * cost.forward_flops; }

}  // namespace tessera
