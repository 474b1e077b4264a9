// Starting from the weights of another model, as fine-tuning does: what fits is taken over, what the new task
// changes is adapted.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "models/model.h"
#include "models/weights.h"

namespace tessera {

// Fills `model` from the weights of a dense model of its architecture. Its FFNs become the experts' common
// start, so that their mean starts as that FFN (EWA, arXiv 2308.06093, when fine-tuning; the copies are our
// reading).
//   routers: are drawn anew
//   head of another number of classes: keeps the first values that it was drawn with
//   pos_embed of another grid: resampled, cubic with a = -1/2 and widened where it shrinks, as in timm
//   patch_embed of other channels: repeated over the new ones and scaled by C/C', for one their sum, as in
//   timm
// Gives a line for each of these changes. Anything else that differs is Error(Exit::file), with nothing
// changed.
std::vector<std::string> start_from(Model& model, const SafetensorsFile& file);

// A grid(G,G,D) at another size(S,S,D).
std::vector<float> resample_grid(std::span<const float> grid, int64_t G, int64_t S, int64_t D);

}  // namespace tessera
