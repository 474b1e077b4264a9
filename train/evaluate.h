// A model's results on a labelled set.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "data/dataset.h"
#include "data/loader.h"
#include "train/replicas.h"

namespace tessera {

struct Evaluation {
  int64_t samples = 0;
  double loss = 0;                     // mean cross-entropy without smoothing
  double top1 = 0;                     // share of samples
  double top5 = 0;                     // 0 for fewer than five classes
  std::vector<double> class_accuracy;  // (K); NaN where a class has no sample
  double images_per_second = 0;
  Notes notes = {};

  // How often Mobile V-MoE's router finds the super-class (nn/moe/image_router); nothing without any.
  std::optional<double> router_accuracy() const;
};

// Votes of a sample: the mean of the logits of `count` augmented ones (Point-BERT's test on point clouds
// takes 10), by default as in training on ModelNet40. A single vote is the plain sample.
struct Votes {
  int64_t count = 1;
  uint64_t seed = 0;
  CloudAugment augment = {.scale = 1.5, .shift = 0.2};
};

// Every sample once, in order, in eval mode. `limit`: only the first; 0: all. `workers`: the loader's
// threads.
Evaluation evaluate(Replicas& replicas, const Dataset& data, const Normalization& normalization,
                    int64_t classes, int64_t batch = 256, int64_t limit = 0, int workers = 0,
                    const Votes& votes = {});

}  // namespace tessera
