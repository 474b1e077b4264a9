#include "data/image.h"

#include <algorithm>
#include <string>

#include "data/image_codecs.h"
#include "engine/base/check.h"

namespace tessera {
namespace {

bool starts_with(Bytes bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin(),
                                                    [](char a, uint8_t b) { return uint8_t(a) == b; });
}

}  // namespace

Image decode_image(Bytes bytes, std::string_view what, int64_t max_pixels, const Reduction& reduction) {
  const bool jpeg = starts_with(bytes, "\xff\xd8\xff");
  const auto decode = starts_with(bytes, "\x89PNG")                            ? decode_png
                      : (starts_with(bytes, "P5") || starts_with(bytes, "P6")) ? decode_pnm
                                                                               : nullptr;
  TESSERA_CHECK_AS(Exit::data, jpeg || decode != nullptr, what, ": unknown image format (", bytes.size(),
                   " bytes); give a PNG, a JPEG, or a binary PGM or PPM");
  const Interleaved raw =
      jpeg ? decode_jpeg(bytes, what, max_pixels, reduction) : decode(bytes, what, max_pixels);
  if (!jpeg && reduction) reduction(raw.height, raw.width);

  Image image{raw.channels, raw.height, raw.width, std::vector<uint8_t>(raw.samples.size())};
  const int64_t plane = raw.height * raw.width;
  for (int64_t c = 0; c < raw.channels; ++c) {
    uint8_t* out = image.pixels.data() + c * plane;
    for (int64_t i = 0; i < plane; ++i) out[i] = raw.samples[i * raw.channels + c];
  }
  return image;
}

Image load_image(const std::filesystem::path& file) { return decode_image(read_file(file), file.string()); }

Image to_channels(Image image, int64_t channels) {
  TESSERA_CHECK_AS(Exit::usage, channels == 1 || channels == 3, "to_channels: ", channels,
                   " channels, expected 1 or 3");
  if (channels == image.channels) return image;
  const size_t plane = size_t(image.height * image.width);
  Image out{channels, image.height, image.width, {}};
  if (channels == 3) {
    for (int c = 0; c < 3; ++c) out.pixels.insert(out.pixels.end(), image.pixels.begin(), image.pixels.end());
    return out;
  }
  out.pixels.resize(plane);
  const uint8_t *red = image.pixels.data(), *green = red + plane, *blue = green + plane;
  for (size_t i = 0; i < plane; ++i) {
    out.pixels[i] =
        uint8_t(0.299f * float(red[i]) + 0.587f * float(green[i]) + 0.114f * float(blue[i]) + 0.5f);
  }
  return out;
}

}  // namespace tessera
