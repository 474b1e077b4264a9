// Pixels as the numbers that a model sees.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace tessera {

// Per channel, of pixels scaled to [0, 1].
struct Normalization {
  std::vector<float> mean, std;
};

// Where one sample is cut out and whether it is flipped.
struct CropFlip {
  int64_t down = 0, right = 0;  // shift of the window against the image, each in [-padding, padding]
  bool flip = false;
};

class Normalizer {
 public:
  // For images (C, H, W) with one mean and one standard deviation a channel.
  Normalizer(int64_t channels, int64_t height, int64_t width, const Normalization& normalization);

  // out(C, H, W) = (image(C, H, W) / 255 - mean) / std, seen through the window of `move`; outside of the
  // image it is black (byte 0), normalised too.
  void apply(const uint8_t* image, const CropFlip& move, float* out) const;

 private:
  int64_t height_, width_;
  std::vector<std::array<float, 256>> tables_;  // per channel: byte -> value
};

}  // namespace tessera
