// Single images from files: decoding, grey and colour.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>
#include <vector>

#include "data/bytes.h"

namespace tessera {

// Pixels that lie in somebody else's memory.
struct ImageView {
  int64_t channels = 0, height = 0, width = 0;
  const uint8_t* pixels = nullptr;  // (C, H, W)
};

struct Image {
  int64_t channels = 0, height = 0, width = 0;
  std::vector<uint8_t> pixels;  // (C, H, W)

  ImageView view() const { return {channels, height, width, pixels.data()}; }
};

// Is told an image's size before its pixels are decoded, and answers by how much, 1, 2, 4 or 8, it may
// shrink: a JPEG is decoded that much smaller, at less cost; its sides are rounded up.
using Reduction = std::function<int64_t(int64_t height, int64_t width)>;

inline constexpr int64_t kMaxPixels = int64_t{64} << 20;

// Decodes PNG, JPEG, and binary PGM (P5) and PPM (P6) with maxval 255, told apart by their first bytes. Grey
// files give 1 channel, others 3, the four inks of CMYK too; 16-bit samples become 8-bit, transparent pixels
// are laid on white. Error(Exit::data) names `what`, the file: another format, more than `max_pixels`,
// corrupt or truncated data.
Image decode_image(Bytes bytes, std::string_view what, int64_t max_pixels = kMaxPixels,
                   const Reduction& reduction = {});
Image load_image(const std::filesystem::path& file);

// A PNG file of it, of 1 or 3 channels.
std::vector<uint8_t> encode_png(const Image& image);

// To 1 channel by the luma of ITU-R BT.601, to 3 by repetition. Error(Exit::usage) for other counts.
Image to_channels(Image image, int64_t channels);

}  // namespace tessera
