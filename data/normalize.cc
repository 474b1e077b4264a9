#include "data/normalize.h"

#include <algorithm>

#include "engine/base/check.h"

namespace tessera {
Normalizer::Normalizer(int64_t channels, int64_t height, int64_t width, const Normalization& normalization)
    : height_(height), width_(width), tables_(size_t(channels)) {
  const auto& [mean, std] = normalization;
  TESSERA_CHECK_AS(Exit::usage, mean.size() == tables_.size() && std.size() == tables_.size(),
                   "normalisation: ", mean.size(), " means and ", std.size(),
                   " standard deviations for images of ", channels, " channels");
  for (size_t c = 0; c < tables_.size(); ++c) {
    TESSERA_CHECK_AS(Exit::usage, std[c] > 0, "normalisation: the standard deviation of channel ", c, " is ",
                     std[c], ", expected above 0");
    for (int byte = 0; byte < 256; ++byte) {
      tables_[c][byte] = float((byte / 255.0 - double(mean[c])) / double(std[c]));
    }
  }
}

void Normalizer::apply(const uint8_t* image, const CropFlip& move, float* out) const {
  // Columns [begin, end) of the window lie on the image; so do its rows y with 0 <= y + down < H.
  const int64_t begin = std::clamp<int64_t>(-move.right, 0, width_);
  const int64_t end = std::clamp<int64_t>(width_ - move.right, begin, width_);
  for (const auto& table : tables_) {
    for (int64_t y = 0; y < height_; ++y, out += width_) {
      const int64_t from = y + move.down;
      if (from < 0 || from >= height_) {
        std::fill_n(out, width_, table[0]);
        continue;
      }
      const uint8_t* in = image + from * width_;
      const auto row = [&](auto&& at) {
        for (int64_t x = 0; x < begin; ++x) at(x) = table[0];
        for (int64_t x = begin; x < end; ++x) at(x) = table[in[x + move.right]];
        for (int64_t x = end; x < width_; ++x) at(x) = table[0];
      };
      if (move.flip) {
        row([&](int64_t x) -> float& { return out[width_ - 1 - x]; });
      } else {
        row([&](int64_t x) -> float& { return out[x]; });
      }
    }
    image += height_ * width_;
  }
}

}  // namespace tessera
