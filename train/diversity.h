// How alike the patch tokens of an image are, layer by layer: the measure by which "Scaled ReLU Matters for
// Training Vision Transformers" (arXiv 2109.03810) speaks of token diversity, in the form of Gong et al.
// (2021, arXiv 2104.12753):
//   similarity = 1 / (n (n-1)) sum_{i != j} <t_i, t_j> / (|t_i| |t_j|),
// the mean over images. 1: all tokens point the same way; the lower, the more diverse they are.
#pragma once

#include <string>
#include <vector>

#include "data/loader.h"
#include "models/model.h"

namespace tessera {

struct LayerSimilarity {
  std::string layer;
  double similarity = 0;
};

// Of x(B,N,C), the mean over B. Tokens before the largest square number of patches (class tokens) do not
// count.
double token_similarity(const Tensor& x);

// In eval mode, after the patch embedding and after each block, on the first `limit` images of the set (0:
// all). A model without patch tokens is Error(Exit::usage).
std::vector<LayerSimilarity> token_similarities(const Model& model, const Dataset& data,
                                                const Normalization& normalization, int64_t limit);

}  // namespace tessera
