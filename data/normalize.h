// Pixels as the numbers that a model sees.
#pragma once

#include <array>
#include <vector>

#include "data/augment/crop_flip.h"

namespace tessera {

// Per channel, of pixels scaled to [0, 1].
struct Normalization {
  std::vector<float> mean, std;
};

class Normalizer {
 public:
  // One mean and one standard deviation a channel.
  Normalizer(int64_t channels, const Normalization& normalization);

  // out(C, H, W) = (image(C, H, W) / 255 - mean) / std, seen through the window of `move`; outside of the
  // image it is black (byte 0), normalised too.
  void apply(const ImageView& image, const CropFlip& move, float* out) const;

 private:
  std::vector<std::array<float, 256>> tables_;  // per channel: byte -> value
};

}  // namespace tessera
