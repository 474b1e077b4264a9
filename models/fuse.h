// Fusing: every mixture of experts collapses into one feed-forward layer by the mean of its experts (EWA,
// arXiv 2308.06093, "inference phase"). The result is a plain ViT.
#pragma once

#include <memory>

#include "models/vit.h"

namespace tessera {

// The dense model of a mixture; a dense model is copied as it is.
std::unique_ptr<Vit> fuse(const Vit& model);

// Sets every expert to the experts' mean, after which the mixture and its fused model are the same function.
void set_experts_to_mean(Vit& model);

// Largest |difference| of two models' logits on `images`, over the largest |logit|, in eval mode.
double output_difference(const Vit& a, const Vit& b, const Tensor& images);

}  // namespace tessera
