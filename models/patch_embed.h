// From images to tokens. The patchify stem is the projection of P x P patches of Dosovitskiy et al. (2021).
// The convolutional stem of "Scaled ReLU Matters for Training Vision Transformers" (arXiv 2109.03810) has
// convolutions before it, each with a batch norm and a ReLU, of which the first shrinks the image:
//   3Conv+3BN+3ReLU+1Proj:  7x7 stride 2, BN, ReLU;  3x3, BN, ReLU;  3x3, BN, ReLU;  P/2 x P/2 projection.
// config.stem gives this and its ablations: any number of convolutions and strides, with or without BN and
// ReLU. A stem without convolutions has its BN and ReLU after the projection (1Proj+1BN+1ReLU).
//
// A convolution has a bias where no batch norm follows it, which is our choice. Names are those of public
// code with this stem (VOLO's): conv.0 is the first convolution, conv.1 its batch norm, conv.3 the second
// convolution and so on. proj and norm are timm's.
#pragma once

#include <vector>

#include "models/config.h"
#include "models/flops.h"
#include "nn/conv_norm.h"

namespace tessera {

class PatchEmbed {
 public:
  PatchEmbed(const Scope& scope, const ModelConfig& config);

  Tensor forward(const Tensor& images, const Pass& pass) const;  // (B,C,H,W) to (B,N,D)
  // Among the model's parameters, those of the convolutions take in their batch norms.
  void fold_norms(NamedTensors& parameters) const;

 private:
  Tensor activate(const Tensor& x) const { return relu_ ? relu(x) : x; }

  std::vector<ConvNorm> convs_;
  ConvNorm proj_;
  bool relu_;
};

// The sum over its convolutions.
ModelCost patch_embed_cost(const ModelConfig& config);

}  // namespace tessera
