// What Pillow's ImageOps and ImageEnhance do to the values of pixels, to the byte. Each changes the image in
// place.
#pragma once

#include "data/image.h"

namespace tessera {

void invert(Image& image);                      // 255 - v
void posterize(Image& image, int bits);         // keeps the highest bits, 0 to 8
void solarize(Image& image, double threshold);  // inverts from the threshold on
void solarize_add(Image& image, int add);       // adds to what is below 128 (timm)
void auto_contrast(Image& image);               // stretches each channel to 0..255
void equalize(Image& image);                    // evens out each channel's histogram

// Each goes from a degenerate image (factor 0) to the image (1) and beyond.
void brightness(Image& image, double factor);  // from black
void contrast(Image& image, double factor);    // from the mean grey
void color(Image& image, double factor);       // from its grey version; grey images stay
void sharpness(Image& image, double factor);   // from a smoothed version

}  // namespace tessera
