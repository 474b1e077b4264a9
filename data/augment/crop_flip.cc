#include "data/augment/crop_flip.h"

#include <numeric>

namespace tessera {

CropFlip draw_crop_flip(int64_t padding, bool flip, const Occasion& at, int64_t index) {
  const Philox::Block words = draw_of(at, Site::crop_flip).block(uint64_t(index));
  // A word onto the 2 p + 1 shifts by multiplication.
  const auto shift = [&](uint32_t word) {
    return int64_t((uint64_t{word} * uint64_t(2 * padding + 1)) >> 32) - padding;
  };
  return {shift(words[0]), shift(words[1]), flip && (words[2] >> 31) != 0};
}

Image crop_flip(const ImageView& image, const CropFlip& move) {
  std::array<uint8_t, 256> same;
  std::iota(same.begin(), same.end(), uint8_t{0});
  const std::vector tables(size_t(image.channels), same);
  Image out{image.channels, image.height, image.width, {}};
  out.pixels.resize(size_t(image.channels * image.height * image.width));
  look_through<uint8_t>(image, move, tables, out.pixels.data());
  return out;
}

}  // namespace tessera
