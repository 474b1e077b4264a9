// RandomResizedCrop (the "Inception crop" of Szegedy et al., arXiv 1409.4842), with torchvision's draws.
#pragma once

#include "data/augment/dice.h"
#include "data/resize.h"

namespace tessera {

// A part of the image of area uniform in [least, 1] of its own and aspect log-uniform in [3/4, 4/3]; where
// ten draws do not fit, the largest middle part of such an aspect.
Window draw_resized_crop(double least, Dice dice, int64_t height, int64_t width);

}  // namespace tessera
