// Fusing: every mixture of experts collapses into one feed-forward layer by the mean of its experts (EWA,
// arXiv 2308.06093, "inference phase"). The result is a plain ViT.
#pragma once

#include <memory>
#include <string>

#include "models/model.h"

namespace tessera {

// The dense parameter that a mixture's stands for: blocks.3.moe.fc1.weight, blocks.3.mlp.fc1.weight.
std::string dense_name(const std::string& stacked);

// The dense model of a mixture; a dense model is copied as it is.
std::unique_ptr<Model> fuse(const Model& model);

// Sets every expert to the experts' mean, after which the mixture and its fused model are the same function.
void set_experts_to_mean(Model& model);

// Largest |difference| of two models' logits on `images`, over the largest |logit|, in eval mode.
double output_difference(const Model& a, const Model& b, const Tensor& images);

}  // namespace tessera
