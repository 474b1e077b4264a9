// RandAugment as timm has it (Cubuk et al., arXiv 1909.13719).
#pragma once

#include "data/augment/policy.h"

namespace tessera {

// From timm's string, such as rand-m9-mstd0.5-inc1. Error(Exit::usage) for one that says something else.
std::unique_ptr<const AugmentPolicy> rand_augment(const std::string& name);

}  // namespace tessera
