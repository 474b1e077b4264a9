// AutoAugment: policies found by search (Cubuk et al., arXiv 1805.09501).
#pragma once

#include "data/augment/policy.h"

namespace tessera {

// cifar10, svhn or imagenet; null for another name.
std::unique_ptr<const AugmentPolicy> auto_augment(const std::string& name);

}  // namespace tessera
