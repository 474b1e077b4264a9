// Random crop out of the padded image, and the flip from left to right.
#pragma once

#include <algorithm>
#include <array>
#include <span>

#include "data/augment/dice.h"
#include "data/image.h"

namespace tessera {

// Where one sample is cut out and whether it is flipped.
struct CropFlip {
  int64_t down = 0, right = 0;  // shift of the window against the image, each in [-padding, padding]
  bool flip = false;
};

// `padding`: black pixels on each side; `flip`: every second time.
CropFlip draw_crop_flip(int64_t padding, bool flip, const Occasion& at, int64_t index);

Image crop_flip(const ImageView& image, const CropFlip& move);

// The image seen through the window, a byte v of channel c as tables[c][v]; outside of the image v = 0.
template <class T>
void look_through(const ImageView& image, const CropFlip& move, std::span<const std::array<T, 256>> tables,
                  T* out) {
  const int64_t H = image.height, W = image.width;
  // Columns [begin, end) of the window lie on the image; so do its rows y with 0 <= y + down < H.
  const int64_t begin = std::clamp<int64_t>(-move.right, 0, W);
  const int64_t end = std::clamp<int64_t>(W - move.right, begin, W);
  const uint8_t* plane = image.pixels;
  for (const auto& table : tables) {
    for (int64_t y = 0; y < H; ++y, out += W) {
      const int64_t from = y + move.down;
      if (from < 0 || from >= H) {
        std::fill_n(out, W, table[0]);
        continue;
      }
      const uint8_t* in = plane + from * W;
      const auto row = [&](auto&& at) {
        for (int64_t x = 0; x < begin; ++x) at(x) = table[0];
        for (int64_t x = begin; x < end; ++x) at(x) = table[in[x + move.right]];
        for (int64_t x = end; x < W; ++x) at(x) = table[0];
      };
      if (move.flip) {
        row([&](int64_t x) -> T& { return out[W - 1 - x]; });
      } else {
        row([&](int64_t x) -> T& { return out[x]; });
      }
    }
    plane += H * W;
  }
}

}  // namespace tessera
