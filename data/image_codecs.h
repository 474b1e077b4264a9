// The decoders behind decode_image(): each takes a whole file, knows its own format, and says
// Error(Exit::data).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "data/image.h"

namespace tessera {

// As files and libraries have it: the channels of one pixel side by side.
struct Interleaved {
  int64_t channels = 0, height = 0, width = 0;
  std::vector<uint8_t> samples;  // (H, W, C)
};

Interleaved decode_png(Bytes bytes, std::string_view what, int64_t max_pixels);
Interleaved decode_pnm(Bytes bytes, std::string_view what, int64_t max_pixels);
Interleaved decode_jpeg(Bytes bytes, std::string_view what, int64_t max_pixels, const Reduction& reduction);

// An empty picture of this size, after checking it against the limit.
Interleaved blank_picture(int64_t channels, int64_t height, int64_t width, std::string_view what,
                          int64_t max_pixels);

}  // namespace tessera
