#include "data/augment/resized_crop.h"

#include <algorithm>
#include <cmath>

namespace tessera {

Window draw_resized_crop(double least, Dice dice, int64_t height, int64_t width) {
  constexpr double kWidest = 4.0 / 3;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double area = dice.uniform(least, 1) * double(height * width);
    const double aspect = std::exp(dice.uniform(-std::log(kWidest), std::log(kWidest)));
    const auto w = std::llround(std::sqrt(area * aspect)), h = std::llround(std::sqrt(area / aspect));
    if (w > 0 && w <= width && h > 0 && h <= height)
      return {double(dice.below(height - h + 1)), double(dice.below(width - w + 1)), double(h), double(w)};
  }
  const double h = std::min(double(height), std::nearbyint(double(width) * kWidest));
  const double w = std::min(double(width), std::nearbyint(double(height) * kWidest));
  return {std::floor((double(height) - h) / 2), std::floor((double(width) - w) / 2), h, w};
}

}  // namespace tessera
