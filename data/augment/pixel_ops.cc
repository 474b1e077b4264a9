#include "data/augment/pixel_ops.h"

#include <algorithm>
#include <array>
#include <span>

namespace tessera {
namespace {

using Table = std::array<uint8_t, 256>;
using Histogram = std::array<int64_t, 256>;

// f(v) for every byte v.
template <class F>
Table table_of(F f) {
  Table table;
  for (int v = 0; v < 256; ++v) table[size_t(v)] = uint8_t(std::clamp<int64_t>(int64_t(f(v)), 0, 255));
  return table;
}

void look_up(std::span<uint8_t> pixels, const Table& table) {
  for (uint8_t& pixel : pixels) pixel = table[pixel];
}

std::span<uint8_t> channel(Image& image, int64_t c) {
  const auto plane = size_t(image.height * image.width);
  return std::span(image.pixels).subspan(size_t(c) * plane, plane);
}

// A table for each channel, from its histogram.
template <class F>
void by_histogram(Image& image, F make_table) {
  for (int64_t c = 0; c < image.channels; ++c) {
    const auto pixels = channel(image, c);
    Histogram histogram{};
    for (const uint8_t pixel : pixels) ++histogram[pixel];
    look_up(pixels, make_table(histogram));
  }
}

// As Pillow's ImagingBlend: in f32, cut off to an integer. The product is rounded by itself, which a fused
// multiply-add would not do.
uint8_t blend(uint8_t degenerate, uint8_t pixel, float factor) {
  const auto change = float(double(factor) * (int{pixel} - int{degenerate}));
  return uint8_t(std::clamp(float(degenerate) + change, 0.0f, 255.0f));
}

// Pillow's luma of ITU-R BT.601, in 16 bit fixed point.
std::vector<uint8_t> grey(const Image& image) {
  if (image.channels == 1) return image.pixels;
  const size_t plane = image.pixels.size() / 3;
  std::vector<uint8_t> out(plane);
  const uint8_t *red = image.pixels.data(), *green = red + plane, *blue = green + plane;
  for (size_t i = 0; i < plane; ++i)
    out[i] = uint8_t((19595u * red[i] + 38470u * green[i] + 7471u * blue[i] + 0x8000u) >> 16);
  return out;
}

}  // namespace

void invert(Image& image) {
  look_up(image.pixels, table_of([](int v) { return 255 - v; }));
}

void posterize(Image& image, int bits) {
  look_up(image.pixels, table_of([&](int v) { return v & ~((1 << (8 - bits)) - 1); }));
}

void solarize(Image& image, double threshold) {
  look_up(image.pixels, table_of([&](int v) { return v < threshold ? v : 255 - v; }));
}

void solarize_add(Image& image, int add) {
  look_up(image.pixels, table_of([&](int v) { return v < 128 ? v + add : v; }));
}

void auto_contrast(Image& image) {
  by_histogram(image, [](const Histogram& histogram) {
    int low = 0, high = 255;
    while (low < 255 && histogram[size_t(low)] == 0) ++low;
    while (high > 0 && histogram[size_t(high)] == 0) --high;
    if (high <= low) return table_of([](int v) { return v; });
    const double scale = 255.0 / (high - low), offset = -low * scale;
    return table_of([&](int v) { return v * scale + offset; });
  });
}

void equalize(Image& image) {
  by_histogram(image, [](const Histogram& histogram) {
    int64_t total = 0, last = 0;
    for (const int64_t count : histogram) {
      total += count;
      if (count > 0) last = count;
    }
    const int64_t step = (total - last) / 255;
    if (step == 0) return table_of([](int v) { return v; });
    int64_t sum = step / 2;
    return table_of([&](int v) {
      const int64_t level = sum / step;
      sum += histogram[size_t(v)];
      return level;
    });
  });
}

void brightness(Image& image, double factor) {
  look_up(image.pixels, table_of([&](int v) { return blend(0, uint8_t(v), float(factor)); }));
}

void contrast(Image& image, double factor) {
  uint64_t sum = 0;
  const std::vector<uint8_t> luma = grey(image);
  for (const uint8_t value : luma) sum += value;
  const auto mean = uint8_t(double(sum) / double(luma.size()) + 0.5);
  look_up(image.pixels, table_of([&](int v) { return blend(mean, uint8_t(v), float(factor)); }));
}

void color(Image& image, double factor) {
  const std::vector<uint8_t> luma = grey(image);
  for (int64_t c = 0; c < image.channels; ++c) {
    const auto pixels = channel(image, c);
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = blend(luma[i], pixels[i], float(factor));
  }
}

// Smoothed by (1 1 1; 1 5 1; 1 1 1) / 13; the outermost pixels stay.
void sharpness(Image& image, double factor) {
  const Image whole = image;
  const int64_t W = image.width;
  for (int64_t c = 0; c < image.channels; ++c) {
    const uint8_t* const in = whole.pixels.data() + c * image.height * W;
    uint8_t* const out = channel(image, c).data();
    for (int64_t y = 1; y + 1 < image.height; ++y)
      for (int64_t x = 1; x + 1 < W; ++x) {
        const uint8_t* const at = in + y * W + x;
        int sum = 4 * at[0];
        for (int64_t dy = -1; dy <= 1; ++dy)
          for (int64_t dx = -1; dx <= 1; ++dx) sum += at[dy * W + dx];
        out[y * W + x] = blend(uint8_t(float(sum) / 13 + 0.5f), at[0], float(factor));
      }
  }
}

}  // namespace tessera
