#include "data/augment/auto_augment.h"

#include <array>
#include <cmath>

namespace tessera {
namespace {

using enum ImageOp;

// An operation, its probability, and its strength from 0 to 9.
struct Choice {
  ImageOp op;
  double probability;
  int level;
};
using Pair = std::array<Choice, 2>;
using Pairs = std::array<Pair, 25>;

// The tables of the paper's appendix.

constexpr Pairs kCifar10 = {{
    {{{invert, 0.1, 0}, {contrast, 0.2, 6}}},           {{{rotate, 0.7, 2}, {translate_x, 0.3, 9}}},
    {{{sharpness, 0.8, 1}, {sharpness, 0.9, 3}}},       {{{shear_y, 0.5, 8}, {translate_y, 0.7, 9}}},
    {{{auto_contrast, 0.5, 0}, {equalize, 0.9, 0}}},    {{{shear_y, 0.2, 7}, {posterize, 0.3, 7}}},
    {{{color, 0.4, 3}, {brightness, 0.6, 7}}},          {{{sharpness, 0.3, 9}, {brightness, 0.7, 9}}},
    {{{equalize, 0.6, 0}, {equalize, 0.5, 0}}},         {{{contrast, 0.6, 7}, {sharpness, 0.6, 5}}},
    {{{color, 0.7, 7}, {translate_x, 0.5, 8}}},         {{{equalize, 0.3, 0}, {auto_contrast, 0.4, 0}}},
    {{{translate_y, 0.4, 3}, {sharpness, 0.2, 6}}},     {{{brightness, 0.9, 6}, {color, 0.2, 8}}},
    {{{solarize, 0.5, 2}, {invert, 0.0, 0}}},           {{{equalize, 0.2, 0}, {auto_contrast, 0.6, 0}}},
    {{{equalize, 0.2, 0}, {equalize, 0.6, 0}}},         {{{color, 0.9, 9}, {equalize, 0.6, 0}}},
    {{{auto_contrast, 0.8, 0}, {solarize, 0.2, 8}}},    {{{brightness, 0.1, 3}, {color, 0.7, 0}}},
    {{{solarize, 0.4, 5}, {auto_contrast, 0.9, 0}}},    {{{translate_y, 0.9, 9}, {translate_y, 0.7, 9}}},
    {{{auto_contrast, 0.9, 0}, {solarize, 0.8, 3}}},    {{{equalize, 0.8, 0}, {invert, 0.1, 0}}},
    {{{translate_y, 0.7, 9}, {auto_contrast, 0.9, 0}}},
}};

constexpr Pairs kSvhn = {{
    {{{shear_x, 0.9, 4}, {invert, 0.2, 0}}},       {{{shear_y, 0.9, 8}, {invert, 0.7, 0}}},
    {{{equalize, 0.6, 0}, {solarize, 0.6, 6}}},    {{{invert, 0.9, 0}, {equalize, 0.6, 0}}},
    {{{equalize, 0.6, 0}, {rotate, 0.9, 3}}},      {{{shear_x, 0.9, 4}, {auto_contrast, 0.8, 0}}},
    {{{shear_y, 0.9, 8}, {invert, 0.4, 0}}},       {{{shear_y, 0.9, 5}, {solarize, 0.2, 6}}},
    {{{invert, 0.9, 0}, {auto_contrast, 0.8, 0}}}, {{{equalize, 0.6, 0}, {rotate, 0.9, 3}}},
    {{{shear_x, 0.9, 4}, {solarize, 0.3, 3}}},     {{{shear_y, 0.8, 8}, {invert, 0.7, 0}}},
    {{{equalize, 0.9, 0}, {translate_y, 0.6, 6}}}, {{{invert, 0.9, 0}, {equalize, 0.6, 0}}},
    {{{contrast, 0.3, 3}, {rotate, 0.8, 4}}},      {{{invert, 0.8, 0}, {translate_y, 0.0, 2}}},
    {{{shear_y, 0.7, 6}, {solarize, 0.4, 8}}},     {{{invert, 0.6, 0}, {rotate, 0.8, 4}}},
    {{{shear_y, 0.3, 7}, {translate_x, 0.9, 3}}},  {{{shear_x, 0.1, 6}, {invert, 0.6, 0}}},
    {{{solarize, 0.7, 2}, {translate_y, 0.6, 7}}}, {{{shear_y, 0.8, 4}, {invert, 0.8, 0}}},
    {{{shear_x, 0.7, 9}, {translate_y, 0.8, 3}}},  {{{shear_y, 0.8, 5}, {auto_contrast, 0.7, 0}}},
    {{{shear_x, 0.7, 2}, {invert, 0.1, 0}}},
}};

constexpr Pairs kImageNet = {{
    {{{posterize, 0.4, 8}, {rotate, 0.6, 9}}},  {{{solarize, 0.6, 5}, {auto_contrast, 0.6, 0}}},
    {{{equalize, 0.8, 0}, {equalize, 0.6, 0}}}, {{{posterize, 0.6, 7}, {posterize, 0.6, 6}}},
    {{{equalize, 0.4, 0}, {solarize, 0.2, 4}}}, {{{equalize, 0.4, 0}, {rotate, 0.8, 8}}},
    {{{solarize, 0.6, 3}, {equalize, 0.6, 0}}}, {{{posterize, 0.8, 5}, {equalize, 1.0, 0}}},
    {{{rotate, 0.2, 3}, {solarize, 0.6, 8}}},   {{{equalize, 0.6, 0}, {posterize, 0.4, 6}}},
    {{{rotate, 0.8, 8}, {color, 0.4, 0}}},      {{{rotate, 0.4, 9}, {equalize, 0.6, 0}}},
    {{{equalize, 0.0, 0}, {equalize, 0.8, 0}}}, {{{invert, 0.6, 0}, {equalize, 1.0, 0}}},
    {{{color, 0.6, 4}, {contrast, 1.0, 8}}},    {{{rotate, 0.8, 8}, {color, 1.0, 2}}},
    {{{color, 0.8, 8}, {solarize, 0.8, 7}}},    {{{sharpness, 0.4, 7}, {invert, 0.6, 0}}},
    {{{shear_x, 0.6, 5}, {equalize, 1.0, 0}}},  {{{color, 0.4, 0}, {equalize, 0.6, 0}}},
    {{{equalize, 0.4, 0}, {solarize, 0.2, 4}}}, {{{solarize, 0.6, 5}, {auto_contrast, 0.6, 0}}},
    {{{invert, 0.6, 0}, {equalize, 1.0, 0}}},   {{{color, 0.6, 4}, {contrast, 1.0, 8}}},
    {{{equalize, 0.8, 0}, {equalize, 0.6, 0}}},
}};

// What the strength means, with torchvision's bins; the sign of what has one is drawn.
double argument_of(const Choice& choice, Dice& dice, int64_t height, int64_t width) {
  const double part = choice.level / 9.0;
  const auto pixels = [&](int64_t side) { return std::trunc(dice.sign() * part * 150 / 331 * double(side)); };
  switch (choice.op) {
    case rotate:
      return dice.sign() * part * 30;
    case shear_x:
    case shear_y:
      return dice.sign() * part * 0.3;
    case translate_x:
      return pixels(width);
    case translate_y:
      return pixels(height);
    case color:
    case contrast:
    case brightness:
    case sharpness:
      return 1 + dice.sign() * part * 0.9;
    case posterize:
      return 8 - std::nearbyint(part * 4);
    case solarize:
      return 255 * (1 - part);
    default:
      return 0;
  }
}

class AutoAugment : public AugmentPolicy {
 public:
  explicit AutoAugment(const Pairs& pairs) : pairs_(pairs) {}

  std::vector<ImageStep> draw(Dice& dice, int64_t height, int64_t width) const override {
    std::vector<ImageStep> steps;
    for (const Choice& choice : pairs_[size_t(dice.below(int64_t(pairs_.size())))])
      if (dice.chance(choice.probability))
        steps.push_back({choice.op, argument_of(choice, dice, height, width)});
    return steps;
  }

 private:
  const Pairs& pairs_;
};

}  // namespace

std::unique_ptr<const AugmentPolicy> auto_augment(const std::string& name) {
  const Pairs* const pairs = name == "cifar10"    ? &kCifar10
                             : name == "svhn"     ? &kSvhn
                             : name == "imagenet" ? &kImageNet
                                                  : nullptr;
  return pairs ? std::make_unique<AutoAugment>(*pairs) : nullptr;
}

}  // namespace tessera
