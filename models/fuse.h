// Fusing: what training needs and inference does not is merged into plain layers. Every mixture of experts
// collapses into one feed-forward layer by the mean of its experts (EWA, arXiv 2308.06093, "inference
// phase"); batch norms and branches become part of a convolution (nn/reparam.h). Each architecture says how
// (Model::fused_parameters).
#pragma once

#include <memory>
#include <string>

#include "models/model.h"

namespace tessera {

// The dense parameter that a mixture's stands for: blocks.3.moe.fc1.weight, blocks.3.mlp.fc1.weight.
std::string dense_name(const std::string& stacked);

// The plain model; one that is plain already is copied as it is.
std::unique_ptr<Model> fuse(const Model& model);

// Sets every expert to the experts' mean, after which a model and its fused one are the same function.
void set_experts_to_mean(Model& model);

// Largest |difference| of two models' logits on `images`, over the largest |logit|, in eval mode.
double output_difference(const Model& a, const Model& b, const Tensor& images);

}  // namespace tessera
