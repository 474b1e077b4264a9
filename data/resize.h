// Images in other sizes.
#pragma once

#include <cstdint>

#include "data/image.h"

namespace tessera {

enum class Filter { bilinear, bicubic };

// A part of an image, in its pixels; it may begin and end between them.
struct Window {
  double top = 0, left = 0, height = 0, width = 0;
};

// The window at another size, as Pillow's resize with `box`: the filter (triangle, or Keys' cubic with
// a = -1/2) is widened by the scale when it shrinks, and may look beyond the window, never beyond the image.
Image resize(const ImageView& image, const Window& window, int64_t height, int64_t width, Filter filter);
Image resize(const Image& image, int64_t height, int64_t width, Filter filter = Filter::bilinear);

// What of an image is seen in evaluation, as torchvision's Resize and CenterCrop: its shorter side becomes
// that of height / crop x width / crop, rounded down, and of the middle of that height x width are taken.
Window centre_window(int64_t image_height, int64_t image_width, int64_t height, int64_t width, double crop);

}  // namespace tessera
