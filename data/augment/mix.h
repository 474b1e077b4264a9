// Mixup (Zhang et al., arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899) of a whole batch, as
// timm's batch mode: one draw for the batch, and each sample is mixed with the one as far from the other end.
#pragma once

#include <span>
#include <vector>

#include "data/augment/erase.h"

namespace tessera {

struct MixOptions {
  double mixup = 0, cutmix = 0;  // parameters of their Beta(a, a); 0: not this one
  double probability = 1;        // of a batch to be mixed
  double cutmix_share = 0.5;     // of the mixed batches, where both are in use

  bool in_use() const { return mixup > 0 || cutmix > 0; }
};

// How a batch is mixed: x_i <- lambda x_i + (1 - lambda) x_(B-1-i), or, where there is a rectangle, x_i takes
// it from x_(B-1-i) and lambda is the part of the image that stays its own. lambda = 1: not mixed.
struct Mix {
  double lambda = 1;
  Rectangle rectangle = {};
};

Mix draw_mix(const MixOptions& options, Dice dice, int64_t height, int64_t width);

// inputs (B, C, H, W), of samples of this shape.
void mix_inputs(std::span<float> inputs, const Shape& shape, const Mix& mix);

// (B, K): lambda of each sample's own class and 1 - lambda of the other's. The cross-entropy is linear in its
// target, so these give the papers' loss lambda L(y_i) + (1 - lambda) L(y_(B-1-i)); labels are smoothed
// afterwards, by the loss.
std::vector<float> mixed_targets(std::span<const int32_t> labels, int64_t classes, double lambda);

}  // namespace tessera
