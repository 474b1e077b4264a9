#include "data/augment/mix.h"

#include <algorithm>
#include <cmath>

namespace tessera {

Mix draw_mix(const MixOptions& o, Dice dice, int64_t height, int64_t width) {
  if (!o.in_use() || !dice.chance(o.probability)) return {};
  const bool cut = o.cutmix > 0 && (o.mixup <= 0 || dice.chance(o.cutmix_share));
  const double lambda = dice.beta(cut ? o.cutmix : o.mixup);
  if (!cut) return {lambda};
  // A box of that area with its centre anywhere, clipped to the image.
  const double side = std::sqrt(1 - lambda);
  const int64_t up = int64_t(double(height) * side) / 2, left = int64_t(double(width) * side) / 2;
  const int64_t y = dice.below(height), x = dice.below(width);
  const int64_t top = std::max<int64_t>(y - up, 0), bottom = std::min(y + up, height);
  const int64_t begin = std::max<int64_t>(x - left, 0), end = std::min(x + left, width);
  const Rectangle box{top, begin, bottom - top, end - begin};
  return {1 - double(box.area()) / double(height * width), box};
}

void mix_inputs(std::span<float> inputs, const Shape& shape, const Mix& mix) {
  const int64_t size = shape.count(), B = int64_t(inputs.size()) / size;
  const int64_t C = shape[0], H = shape[1], W = shape[2];
  const Rectangle& box = mix.rectangle;
  const auto own = float(mix.lambda), other = 1 - own;
  for (int64_t i = 0; i < B / 2; ++i) {
    float* const a = inputs.data() + i * size;
    float* const b = inputs.data() + (B - 1 - i) * size;
    if (box.area() > 0) {
      for (int64_t row = 0; row < C * box.height; ++row) {
        const int64_t c = row / box.height, y = box.top + row % box.height;
        const int64_t at = (c * H + y) * W + box.left;
        std::swap_ranges(a + at, a + at + box.width, b + at);
      }
      continue;
    }
    for (int64_t k = 0; k < size; ++k) {
      const float first = a[k], second = b[k];
      a[k] = own * first + other * second;
      b[k] = own * second + other * first;
    }
  }
}

std::vector<float> mixed_targets(std::span<const int32_t> labels, int64_t classes, double lambda) {
  const size_t B = labels.size(), K = size_t(classes);
  std::vector<float> targets(B * K);
  for (size_t i = 0; i < B; ++i) {
    targets[i * K + size_t(labels[i])] += float(lambda);
    targets[i * K + size_t(labels[B - 1 - i])] += float(1 - lambda);
  }
  return targets;
}

}  // namespace tessera
