#include "data/augment/rand_augment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "engine/base/check.h"

namespace tessera {
namespace {

using enum ImageOp;

constexpr std::array kOps = {auto_contrast, equalize,     invert,  rotate,      posterize,
                             solarize,      solarize_add, color,   contrast,    brightness,
                             sharpness,     shear_x,      shear_y, translate_x, translate_y};

struct Parameters {
  double magnitude = 10, deviation = 0, largest = 10, probability = 0.5;
  int64_t ops = 2;
  bool increasing = false;
};

class RandAugment : public AugmentPolicy {
 public:
  explicit RandAugment(const Parameters& parameters) : p_(parameters) {}

  std::vector<ImageStep> draw(Dice& dice, int64_t height, int64_t width) const override {
    std::vector<ImageStep> steps;
    for (int64_t i = 0; i < p_.ops; ++i) {
      const ImageOp op = kOps[size_t(dice.below(int64_t(kOps.size())))];
      if (!dice.chance(p_.probability)) continue;
      const double magnitude = p_.magnitude + (p_.deviation > 0 ? p_.deviation * dice.normal() : 0);
      const double part = std::clamp(magnitude, 0.0, p_.largest) / 10;
      steps.push_back({op, argument_of(op, part, dice, height, width)});
    }
    return steps;
  }

 private:
  // timm's: `part` of the full strength, which is 1. What is rounded down there is here.
  double argument_of(ImageOp op, double part, Dice& dice, int64_t height, int64_t width) const {
    switch (op) {
      case rotate:
        return dice.sign() * part * 30;
      case shear_x:
      case shear_y:
        return dice.sign() * part * 0.3;
      case translate_x:
        return dice.sign() * part * 0.45 * double(width);
      case translate_y:
        return dice.sign() * part * 0.45 * double(height);
      case color:
      case contrast:
      case brightness:
      case sharpness:
        return p_.increasing ? std::max(0.1, 1 + dice.sign() * part * 0.9) : 0.1 + part * 1.8;
      case posterize:
        return p_.increasing ? 4 - std::floor(part * 4) : std::floor(part * 4);
      case solarize: {
        const double threshold = std::min(256.0, std::floor(part * 256));
        return p_.increasing ? 256 - threshold : threshold;
      }
      case solarize_add:
        return std::min(128.0, std::floor(part * 110));
      default:
        return 0;
    }
  }

  const Parameters p_;
};

}  // namespace

std::unique_ptr<const AugmentPolicy> rand_augment(const std::string& name) {
  Parameters p;
  for (size_t begin = name.find('-'); begin != std::string::npos;) {
    const size_t end = name.find('-', ++begin);
    const std::string part = name.substr(begin, end - begin);
    const size_t letters = std::min(part.find_first_of("0123456789."), part.size());
    const std::string key = part.substr(0, letters), digits = part.substr(letters);
    char* rest = nullptr;
    const double value = std::strtod(digits.c_str(), &rest);
    const auto need = [&](bool fits, const char* rule) {
      TESSERA_CHECK_AS(Exit::usage, fits && !digits.empty() && *rest == '\0', "augmentation policy '", name,
                       "': '", part, "' is not ", rule);
    };
    const bool whole = value == std::floor(value);
    if (key == "m") {
      need(value <= 10, "a magnitude from m0 to m10");
      p.magnitude = value;
    } else if (key == "n") {
      need(whole && value >= 1 && value <= 15, "a number of operations from n1 to n15");
      p.ops = int64_t(value);
    } else if (key == "p") {
      need(value <= 1, "a probability from p0 to p1");
      p.probability = value;
    } else if (key == "mstd") {
      need(value <= 100, "a deviation from mstd0 to mstd100");
      p.deviation = value;
    } else if (key == "mmax") {
      need(value <= 10, "a largest magnitude from mmax0 to mmax10");
      p.largest = value;
    } else {
      need(key == "inc" && whole && value <= 1, "one of m, n, p, mstd, mmax, inc0 and inc1 with its number");
      p.increasing = value == 1;
    }
    begin = end;
  }
  return std::make_unique<RandAugment>(p);
}

}  // namespace tessera
