// Structural re-parameterisation: convolutions with batch norms, side by side or one after the other, become
// one convolution that is the same function in eval mode. The merges are those of RepVGG (arXiv 2101.03697),
// ACNet (arXiv 1908.03930) and the Diverse Branch Block (arXiv 2103.13425), by whose numbers they go here.
// All are computed in f64, so that what is lost is one rounding of the result.
#pragma once

#include <vector>

#include "nn/conv_norm.h"

namespace tessera {

// A convolution as numbers in f64.
struct MergedConv {
  Tensor weight, bias;  // (O,C,h,w), (O)
};

// I: a batch norm after a convolution scales each output channel. With t = gamma / sqrt(var + eps)
//   K' = t K,  b' = beta + t (b - mean);  an absent bias b is 0.
MergedConv fold(const Tensor& weight, const Tensor& bias, const BatchNorm& norm);
// The same of either kind of ConvNorm: without a norm there is nothing to fold.
MergedConv fold(const ConvNorm& conv);
// A batch norm alone: K[o,o] = 1 is the convolution before it.
MergedConv fold(const BatchNorm& norm);

// VI: the kernel in the middle of a larger one, h x w, of zeros.
MergedConv pad(const MergedConv& conv, int64_t h, int64_t w);

// II: branches whose outputs are added. Smaller kernels stand in the middle of the largest; the branches' own
// padding must be what that asks for, (k - 1) / 2 in each direction.
MergedConv add_branches(const std::vector<MergedConv>& branches);

// III: a 1 x 1 convolution (K1, b1) followed by h x w (K2, b2), both without a stride between them:
//   K[o,c,u,v] = sum_m K2[o,m,u,v] K1[m,c],  b[o] = b2[o] + sum_{m,u,v} K2[o,m,u,v] b1[m].
// Where there is padding, the second must see b1 around its input, and not zeros: that is what the first
// makes of a border of zeros, if it is the one that pads.
MergedConv in_sequence(const MergedConv& first, const MergedConv& second);

// Among a model's parameters, replaces those of a convolution and its batch norm by what both fold into.
void fold_among(NamedTensors& parameters, const ConvNorm& conv);

}  // namespace tessera
