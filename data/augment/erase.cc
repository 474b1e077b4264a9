#include "data/augment/erase.h"

#include <cmath>

namespace tessera {

Rectangle draw_erased(const EraseOptions& options, Dice dice, int64_t height, int64_t width) {
  constexpr double kSmallest = 0.02;
  const double longest = std::log(1 / 0.3);
  if (options.probability <= 0 || !dice.chance(options.probability)) return {};
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double area = dice.uniform(kSmallest, options.largest) * double(height * width);
    const double aspect = std::exp(dice.uniform(-longest, longest));
    const auto h = std::llround(std::sqrt(area * aspect)), w = std::llround(std::sqrt(area / aspect));
    if (h < height && w < width)
      return {dice.below(height - h + 1), dice.below(width - w + 1), int64_t(h), int64_t(w)};
  }
  return {};
}

void erase(std::span<float> image, const Shape& shape, const Rectangle& r, EraseMode mode, Dice noise) {
  const int64_t H = shape[1], W = shape[2];
  for (int64_t c = 0; c < shape[0]; ++c)
    for (int64_t y = r.top; y < r.top + r.height; ++y)
      for (int64_t x = r.left; x < r.left + r.width; ++x)
        image[size_t((c * H + y) * W + x)] = mode == EraseMode::noise ? float(noise.normal()) : 0.0f;
}

}  // namespace tessera
