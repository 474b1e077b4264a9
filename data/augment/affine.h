// Images moved, turned and sheared.
#pragma once

#include <array>
#include <vector>

#include "data/resize.h"

namespace tessera {

// Where an output pixel comes from: (a x + b y + c, d x + e y + f), of the centres of pixels.
struct Affine {
  double a = 1, b = 0, c = 0, d = 0, e = 1, f = 0;
};

Affine rotation(double degrees, const Image& image);  // about the middle, counter-clockwise
inline Affine shear_x(double factor) { return {.b = factor}; }
inline Affine shear_y(double factor) { return {.d = factor}; }
inline Affine translation_x(double pixels) { return {.c = pixels}; }
inline Affine translation_y(double pixels) { return {.f = pixels}; }

// As Pillow's Image.transform: bilinear, or its cubic with a = -1; no antialiasing. `fill`, a byte a channel,
// where an output pixel comes from outside of the image.
Image transform(const Image& image, const Affine& from, Filter filter, const std::vector<uint8_t>& fill);

}  // namespace tessera
