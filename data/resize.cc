#include "data/resize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/base/check.h"

namespace tessera {
namespace {

double triangle(double x) { return std::max(0.0, 1 - std::abs(x)); }

double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// What each output pixel takes: `width` weights, which sum to 1, of the inputs from first[i] on.
struct Taps {
  int64_t width;
  std::vector<int64_t> first;
  std::vector<float> weights;  // (outputs, width)

  int64_t begin() const { return first.front(); }
  int64_t end() const { return first.back() + width; }
};

// `size` pixels from `begin` on, of `from`, become `to`.
Taps make_taps(int64_t from, double begin, double size, int64_t to, Filter filter) {
  const double scale = size / double(to), stretch = std::max(scale, 1.0);
  const double support = (filter == Filter::bilinear ? 1 : 2) * stretch;
  Taps taps{std::min(from, int64_t(std::ceil(2 * support)) + 1), {}, {}};
  std::vector<double> weights(size_t(taps.width));
  for (int64_t i = 0; i < to; ++i) {
    const double centre = begin + (double(i) + 0.5) * scale;
    const auto first = std::clamp<int64_t>(int64_t(std::floor(centre - support)), 0, from - taps.width);
    double sum = 0;
    for (int64_t j = 0; j < taps.width; ++j) {
      const double x = (double(first + j) + 0.5 - centre) / stretch;
      sum += weights[size_t(j)] = filter == Filter::bilinear ? triangle(x) : cubic(x);
    }
    taps.first.push_back(first);
    for (const double weight : weights) taps.weights.push_back(float(weight / sum));
  }
  return taps;
}

}  // namespace

Image resize(const ImageView& image, const Window& window, int64_t height, int64_t width, Filter filter) {
  TESSERA_CHECK_AS(Exit::usage, height > 0 && width > 0, "resize: to ", height, " x ", width,
                   ", expected at least 1 x 1");
  const Taps columns = make_taps(image.width, window.left, window.width, width, filter),
             rows = make_taps(image.height, window.top, window.height, height, filter);
  const int64_t top = rows.begin(), used = rows.end() - top;

  Image out{image.channels, height, width, std::vector<uint8_t>(size_t(image.channels * height * width))};
  std::vector<float> narrow(size_t(used * width)), sums(static_cast<size_t>(width));
  for (int64_t c = 0; c < image.channels; ++c) {
    const uint8_t* const plane = image.pixels + c * image.height * image.width;
    for (int64_t y = 0; y < used; ++y) {
      const uint8_t* const row = plane + (top + y) * image.width;
      for (int64_t x = 0; x < width; ++x) {
        const uint8_t* const in = row + columns.first[size_t(x)];
        const float* const weights = &columns.weights[size_t(x * columns.width)];
        float sum = 0;
        for (int64_t j = 0; j < columns.width; ++j) sum += weights[j] * float(in[j]);
        narrow[size_t(y * width + x)] = sum;
      }
    }
    for (int64_t y = 0; y < height; ++y) {
      std::fill(sums.begin(), sums.end(), 0.5f);  // rounds
      for (int64_t j = 0; j < rows.width; ++j) {
        const float weight = rows.weights[size_t(y * rows.width + j)];
        const float* const in = &narrow[size_t((rows.first[size_t(y)] - top + j) * width)];
        for (int64_t x = 0; x < width; ++x) sums[size_t(x)] += weight * in[x];
      }
      uint8_t* const to = out.pixels.data() + (c * height + y) * width;
      for (int64_t x = 0; x < width; ++x) to[x] = uint8_t(std::clamp(sums[size_t(x)], 0.0f, 255.0f));
    }
  }
  return out;
}

Image resize(const Image& image, int64_t height, int64_t width, Filter filter) {
  if (height == image.height && width == image.width) return image;
  return resize(image.view(), {0, 0, double(image.height), double(image.width)}, height, width, filter);
}

Window centre_window(int64_t image_height, int64_t image_width, int64_t height, int64_t width, double crop) {
  int64_t rows = int64_t(double(height) / crop), columns = int64_t(double(width) / crop);
  // All of the image at the size at which the shorter side just fits.
  if (image_height * columns <= image_width * rows)
    columns = image_width * rows / image_height;
  else
    rows = image_height * columns / image_width;
  const double down = double(image_height) / double(rows), right = double(image_width) / double(columns);
  return {std::nearbyint(double(rows - height) / 2) * down,
          std::nearbyint(double(columns - width) / 2) * right, double(height) * down, double(width) * right};
}

}  // namespace tessera
