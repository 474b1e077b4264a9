// Colour jitter, as torchvision's ColorJitter without hue.
#pragma once

#include "data/augment/policy.h"

namespace tessera {

// Brightness, contrast and colour, in any order, each by a factor uniform in [max(0, 1 - strength), 1 +
// strength].
std::vector<ImageStep> draw_jitter(double strength, Dice dice);

}  // namespace tessera
