// Augmentations of training images.
#pragma once

#include <cstdint>

#include "data/normalize.h"

namespace tessera {

struct AugmentOptions {
  int64_t padding = 0;  // random crop of the image padded by this many black pixels on each side
  bool flip = false;    // left to right, every second time
};

// The draw for sample `index` of its set: of (seed, epoch, index) and of nothing else.
CropFlip draw_crop_flip(const AugmentOptions& options, uint64_t seed, uint32_t epoch, int64_t index);

}  // namespace tessera
