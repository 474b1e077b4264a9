#include "data/augment/jitter.h"

#include <algorithm>

namespace tessera {

std::vector<ImageStep> draw_jitter(double strength, Dice dice) {
  std::vector<ImageStep> steps{{ImageOp::brightness}, {ImageOp::contrast}, {ImageOp::color}};
  for (ImageStep& step : steps) step.argument = dice.uniform(std::max(0.0, 1 - strength), 1 + strength);
  std::swap(steps[2], steps[size_t(dice.below(3))]);
  std::swap(steps[1], steps[size_t(dice.below(2))]);
  return steps;
}

}  // namespace tessera
