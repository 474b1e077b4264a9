#include "data/image.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "data/image_codecs.h"
#include "engine/base/check.h"

namespace tessera {
namespace {

bool starts_with(Bytes bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin(),
                                                    [](char a, uint8_t b) { return uint8_t(a) == b; });
}

// What one output pixel takes: `weights`, which sum to 1, of the inputs from `first` on.
struct Taps {
  int64_t first;
  std::vector<float> weights;
};

std::vector<Taps> triangle_taps(int64_t from, int64_t to) {
  const double scale = double(from) / double(to);
  const double support = std::max(scale, 1.0);
  std::vector<Taps> all(static_cast<size_t>(to));
  for (int64_t i = 0; i < to; ++i) {
    const double center = (double(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, int64_t(std::floor(center - support)));
    const auto last = std::min<int64_t>(from, int64_t(std::ceil(center + support)));
    std::vector<double> weights;
    double sum = 0;
    for (int64_t j = first; j < last; ++j) {
      weights.push_back(std::max(0.0, 1.0 - std::abs(double(j) + 0.5 - center) / support));
      sum += weights.back();
    }
    all[i].first = first;
    for (const double weight : weights) all[i].weights.push_back(float(weight / sum));
  }
  return all;
}

}  // namespace

Image decode_image(Bytes bytes, std::string_view what, int64_t max_pixels) {
  const auto decode = starts_with(bytes, "\x89PNG")                            ? decode_png
                      : starts_with(bytes, "\xff\xd8\xff")                     ? decode_jpeg
                      : (starts_with(bytes, "P5") || starts_with(bytes, "P6")) ? decode_pnm
                                                                               : nullptr;
  TESSERA_CHECK_AS(Exit::data, decode != nullptr, what, ": unknown image format (", bytes.size(),
                   " bytes); give a PNG, a JPEG, or a binary PGM or PPM");
  const Interleaved raw = decode(bytes, what, max_pixels);

  Image image{raw.channels, raw.height, raw.width, std::vector<uint8_t>(raw.samples.size())};
  const int64_t plane = raw.height * raw.width;
  for (int64_t c = 0; c < raw.channels; ++c) {
    uint8_t* out = image.pixels.data() + c * plane;
    for (int64_t i = 0; i < plane; ++i) out[i] = raw.samples[i * raw.channels + c];
  }
  return image;
}

Image load_image(const std::filesystem::path& file) { return decode_image(read_file(file), file.string()); }

Image resize(const Image& image, int64_t height, int64_t width) {
  TESSERA_CHECK_AS(Exit::usage, height > 0 && width > 0, "resize: to ", height, " x ", width,
                   ", expected at least 1 x 1");
  if (height == image.height && width == image.width) return image;
  const std::vector<Taps> columns = triangle_taps(image.width, width),
                          rows = triangle_taps(image.height, height);

  Image out{image.channels, height, width, std::vector<uint8_t>(size_t(image.channels * height * width))};
  std::vector<float> narrow(size_t(image.height * width)), sums(static_cast<size_t>(width));
  for (int64_t c = 0; c < image.channels; ++c) {
    const uint8_t* plane = image.pixels.data() + c * image.height * image.width;
    for (int64_t y = 0; y < image.height; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        const uint8_t* in = plane + y * image.width + columns[x].first;
        float sum = 0;
        for (size_t j = 0; j < columns[x].weights.size(); ++j) sum += columns[x].weights[j] * float(in[j]);
        narrow[y * width + x] = sum;
      }
    }
    for (int64_t y = 0; y < height; ++y) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (size_t j = 0; j < rows[y].weights.size(); ++j) {
        const float* in = narrow.data() + (rows[y].first + int64_t(j)) * width;
        for (int64_t x = 0; x < width; ++x) sums[x] += rows[y].weights[j] * in[x];
      }
      uint8_t* to = out.pixels.data() + (c * height + y) * width;
      for (int64_t x = 0; x < width; ++x) to[x] = uint8_t(std::clamp(sums[x] + 0.5f, 0.0f, 255.0f));
    }
  }
  return out;
}

Image to_channels(const Image& image, int64_t channels) {
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
