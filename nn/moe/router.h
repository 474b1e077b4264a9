// What routers share: their options, noisy scores and the losses that keep experts evenly used (V-MoE,
// Riquelme et al., 2021, arXiv 2106.05974, section 2 and appendix A).
#pragma once

#include <cstdint>

#include "nn/moe/routing.h"

namespace tessera {

// What an image router looks at, and which experts an image goes through in training.
enum class ImageVector { cls, mean };
enum class TrainingRoutes { predicted, truth };

struct RouterOptions {
  int64_t k = 1;              // experts that a row (or image) goes through
  double noise = 1;           // in training: on the scores, normal with deviation noise / E
  double importance = 0.005;  // weights of the balance losses
  double load = 0.005;
  int64_t group = 8;  // images that share buffers and balance losses; a batch is cut between groups only

  // Tokens: an expert's buffer over its even share, and whether the tokens of the largest gates come first.
  double capacity = 1.05;
  bool batch_priority = false;

  // Images.
  bool renormalize = false;  // the chosen gates add up to 1
  ImageVector vector = ImageVector::cls;
  TrainingRoutes routes = TrainingRoutes::predicted;
  double superclass_loss = 0.3;  // lambda
};

// Scores of E experts for rows of B samples, N rows each.
struct Scores {
  Tensor logits, noisy;  // (B N, E): W x, and the same with noise
};

// W x for x(B,N,C), without bias; noise in training, drawn by the sample's place in the whole batch.
Scores score(const Tensor& x, const Tensor& weight, double noise, const Pass& pass, uint32_t site);

// With p = softmax(logits) and p' = the chance that an expert's score, its noise drawn again, would still be
// among the k largest, 1 - Phi((tau - logit) / sigma) for the k-th largest noisy score tau and sigma = noise
// / E:
//   importance (std / mean)^2 of sum p  +  load (std / mean)^2 of sum p'
// over the experts, for each group of `rows` rows (the last may be smaller), averaged over the rows. Without
// noise there is no load loss.
Tensor balance_loss(const Scores& scores, const Tensor& chosen, const RouterOptions& options, int64_t rows);

// An error where a micro-batch of B samples does not consist of whole groups of the batch.
void check_groups(const char* router, int64_t B, const RouterOptions& options, const Pass& pass);

}  // namespace tessera
