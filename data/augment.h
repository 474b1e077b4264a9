// From the bytes of one image to the numbers that a model sees: normalised, and for training cropped and
// flipped.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "data/dataset.h"
#include "engine/base/rng.h"

namespace tessera {

struct AugmentOptions {
  int64_t padding = 0;  // random crop of the image padded by this many black pixels on each side
  bool flip = false;    // left to right, every second time
};

// Where one sample is cut out and whether it is flipped.
struct CropFlip {
  int64_t down = 0, right = 0;  // shift of the window against the image, each in [-padding, padding]
  bool flip = false;
};

// The draw for sample `index` of its set: of (seed, epoch, index) and of nothing else.
CropFlip draw_crop_flip(const AugmentOptions& options, uint64_t seed, uint32_t epoch, int64_t index);

class Normalizer {
 public:
  // For images (C, H, W) with one mean and one standard deviation a channel.
  Normalizer(int64_t channels, int64_t height, int64_t width, const Normalization& normalization);

  int64_t image_size() const { return channels() * height_ * width_; }

  // out(C, H, W) = (image(C, H, W) / 255 - mean) / std, seen through the window of `move`; outside of the
  // image it is black (byte 0), normalised too.
  void apply(const uint8_t* image, const CropFlip& move, float* out) const;

 private:
  int64_t channels() const { return int64_t(tables_.size()); }

  int64_t height_, width_;
  std::vector<std::array<float, 256>> tables_;  // per channel: byte -> value
};

}  // namespace tessera
