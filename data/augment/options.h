// The augmentations of single images; mix.h has those of a batch.
#pragma once

#include <string>

#include "data/augment/erase.h"
#include "data/resize.h"

namespace tessera {

// In the order in which they are applied.
struct AugmentOptions {
  bool resized_crop = false;        // RandomResizedCrop; without it the middle is taken, resized to fit
  double least_area = 0.08;         // of the image, that RandomResizedCrop takes
  Filter filter = Filter::bicubic;  // of RandomResizedCrop, and of what turns or moves the image
  int64_t padding = 0;              // random crop of the image padded by this many black pixels on each side
  bool flip = false;                // left to right, every second time
  std::string policy = "none";      // see policy.h
  double jitter = 0;                // strength of the colour jitter
  EraseOptions erase = {};          // after normalisation
};

}  // namespace tessera
