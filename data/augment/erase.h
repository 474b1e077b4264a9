// RandomErasing (Zhong et al., arXiv 1708.04896), with timm's draws: a rectangle of the prepared image is
// replaced.
#pragma once

#include <span>

#include "data/augment/dice.h"
#include "engine/base/shape.h"

namespace tessera {

enum class EraseMode { mean, noise };  // 0, which is the mean after normalisation; or N(0, 1) each value

struct EraseOptions {
  double probability = 0;
  double largest = 1.0 / 3;  // part of the image's area; the least is 0.02
  EraseMode mode = EraseMode::noise;
};

struct Rectangle {
  int64_t top = 0, left = 0, height = 0, width = 0;

  int64_t area() const { return height * width; }
};

// Of area uniform in [0.02, largest] and aspect log-uniform in [0.3, 1 / 0.3]; empty where nothing is erased,
// by chance or since ten draws did not fit.
Rectangle draw_erased(const EraseOptions& options, Dice dice, int64_t height, int64_t width);

// image (C, H, W).
void erase(std::span<float> image, const Shape& shape, const Rectangle& rectangle, EraseMode mode,
           Dice noise);

}  // namespace tessera
