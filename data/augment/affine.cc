#include "data/augment/affine.h"

#include <algorithm>
#include <cmath>

namespace tessera {
namespace {

double linear(const double* v, double t) { return v[0] + (v[1] - v[0]) * t; }

double cubic(const double* v, double t) {
  const double p1 = v[1], p2 = v[2] - v[0], p3 = 2 * (v[0] - v[1]) + v[2] - v[3],
               p4 = v[1] - v[0] + v[3] - v[2];
  return p1 + t * (p2 + t * (p3 + t * p4));
}

// The pixels (y, x) and those around them that the filter takes, at fractions (down, right) behind them.
template <int kTaps, class Curve>
uint8_t sample(const uint8_t* plane, int64_t H, int64_t W, double y, double x, Curve curve) {
  constexpr int64_t kBefore = kTaps / 2 - 1;
  const auto top = int64_t(std::floor(y)), left = int64_t(std::floor(x));
  double column[kTaps];
  for (int64_t i = 0; i < kTaps; ++i) {
    const uint8_t* const row = plane + std::clamp<int64_t>(top + i - kBefore, 0, H - 1) * W;
    double values[kTaps];
    for (int64_t j = 0; j < kTaps; ++j)
      values[j] = double(row[std::clamp<int64_t>(left + j - kBefore, 0, W - 1)]);
    column[i] = curve(values, x - double(left));
  }
  return uint8_t(std::clamp(curve(column, y - double(top)), 0.0, 255.0));
}

}  // namespace

Affine rotation(double degrees, const Image& image) {
  const double angle = -degrees * 3.14159265358979323846 / 180, cos = std::cos(angle), sin = std::sin(angle);
  const double x = double(image.width) / 2, y = double(image.height) / 2;
  return {cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y};
}

Image transform(const Image& image, const Affine& from, Filter filter, const std::vector<uint8_t>& fill) {
  const int64_t H = image.height, W = image.width;
  Image out{image.channels, H, W, std::vector<uint8_t>(image.pixels.size())};
  for (int64_t y = 0; y < H; ++y)
    for (int64_t x = 0; x < W; ++x) {
      const double px = double(x) + 0.5, py = double(y) + 0.5;
      const double from_x = from.a * px + from.b * py + from.c, from_y = from.d * px + from.e * py + from.f;
      const bool inside = from_x >= 0 && from_x < double(W) && from_y >= 0 && from_y < double(H);
      for (int64_t c = 0; c < image.channels; ++c) {
        const uint8_t* const plane = image.pixels.data() + c * H * W;
        out.pixels[size_t((c * H + y) * W + x)] =
            !inside                      ? fill[size_t(c)]
            : filter == Filter::bilinear ? sample<2>(plane, H, W, from_y - 0.5, from_x - 0.5, linear)
                                         : sample<4>(plane, H, W, from_y - 0.5, from_x - 0.5, cubic);
      }
    }
  return out;
}

}  // namespace tessera
