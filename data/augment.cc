#include "data/augment.h"

#include "engine/base/rng.h"

namespace tessera {

CropFlip draw_crop_flip(const AugmentOptions& options, uint64_t seed, uint32_t epoch, int64_t index) {
  const Philox::Block words = Draw{seed, Stream::augment, epoch, 0}.block(uint64_t(index));
  // A word onto the 2 p + 1 shifts by multiplication.
  const auto shift = [&](uint32_t word) {
    return int64_t((uint64_t{word} * uint64_t(2 * options.padding + 1)) >> 32) - options.padding;
  };
  return {shift(words[0]), shift(words[1]), options.flip && (words[2] >> 31) != 0};
}

}  // namespace tessera
