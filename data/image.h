// Single images from files: decoding, resizing, grey and colour.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "data/bytes.h"

namespace tessera {

struct Image {
  int64_t channels = 0, height = 0, width = 0;
  std::vector<uint8_t> pixels;  // (C, H, W)
};

inline constexpr int64_t kMaxPixels = int64_t{64} << 20;

// Decodes PNG, JPEG, and binary PGM (P5) and PPM (P6) with maxval 255, told apart by their first bytes. Grey
// files give 1 channel, others 3; 16-bit samples become 8-bit, transparent pixels are laid on white.
// Error(Exit::data) names `what`, the file: another format, more than `max_pixels`, corrupt or truncated
// data.
Image decode_image(Bytes bytes, std::string_view what, int64_t max_pixels = kMaxPixels);
Image load_image(const std::filesystem::path& file);

// Bilinear with antialiasing: the triangle filter is widened by the scale when it shrinks, as Pillow's
// BILINEAR.
Image resize(const Image& image, int64_t height, int64_t width);

// To 1 channel by the luma of ITU-R BT.601, to 3 by repetition. Error(Exit::usage) for other counts.
Image to_channels(const Image& image, int64_t channels);

}  // namespace tessera
