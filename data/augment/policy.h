// Chains of image operations drawn at random: AutoAugment and RandAugment.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/augment/dice.h"
#include "data/resize.h"

namespace tessera {

enum class ImageOp {
  auto_contrast,
  equalize,
  invert,
  rotate,        // by degrees
  posterize,     // to bits
  solarize,      // from a threshold
  solarize_add,  // by a value
  color,         // these four by a factor
  contrast,
  brightness,
  sharpness,
  shear_x,  // by a factor
  shear_y,
  translate_x,  // by pixels
  translate_y
};

struct ImageStep {
  ImageOp op;
  double argument = 0;
};

// How pixels are found when an image is moved, and what lies outside of it: a byte a channel.
struct Surroundings {
  Filter filter = Filter::bicubic;
  std::vector<uint8_t> fill;
};

void apply(Image& image, const ImageStep& step, const Surroundings& around);

class AugmentPolicy {
 public:
  virtual ~AugmentPolicy() = default;
  // The steps for one image of this size.
  virtual std::vector<ImageStep> draw(Dice& dice, int64_t height, int64_t width) const = 0;
};

// By name:
//   none        nothing
//   cifar10, svhn, imagenet
//               the policies of AutoAugment (Cubuk et al., arXiv 1805.09501): one of 25 pairs of operations,
//               each with its probability and strength. Strengths as torchvision's.
//   rand-m9-mstd0.5-inc1
//               RandAugment (Cubuk et al., arXiv 1909.13719) as timm has it: n operations (n2), each with
//               probability p (p0.5) and a strength of normal distribution around m with deviation mstd (0),
//               within 0 and mmax (10). inc1: all grow stronger with the strength.
// Error(Exit::usage) for another. Null for "none".
std::unique_ptr<const AugmentPolicy> make_policy(const std::string& name);

}  // namespace tessera
