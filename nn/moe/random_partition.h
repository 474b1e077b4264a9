// Random uniform partition (EWA, arXiv 2308.06093; algorithm as in reference code that follows its design):
// every forward pass permutes the token rows at random and cuts them into E parts whose sizes differ by at
// most one; part e goes through expert e. No router, no capacity, no auxiliary loss.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/portable.h"
#include "engine/base/rng.h"
#include "nn/feed_forward.h"
#include "nn/moe/experts.h"

namespace tessera {

// Which rows are cut into equal parts. Which of the first two the paper uses is not known to us.
enum class PartitionScope {
  batch,      // all B*N rows of the whole batch, whatever micro-batch they are computed in: the reference
  per_image,  // one permutation of the N tokens, shared by all images
  replica,    // the rows of each micro-batch: expert sizes never vary, but the draws depend on how a batch is
              // cut
};

// Rows in the order of their experts: rows order[offsets[e]] to order[offsets[e+1]] belong to expert e.
struct Dispatch {
  Tensor order;                  // i32 (M)
  std::vector<int64_t> offsets;  // E + 1
};

// When `size` rows are cut into E parts, the first (size mod E) of them one larger: where part e starts, and
// the part of the row at `place`.
TESSERA_FN inline int64_t part_start(int64_t e, int64_t size, int64_t E) {
  return e * (size / E) + (e < size % E ? e : size % E);
}
TESSERA_FN inline int64_t part_of(int64_t place, int64_t size, int64_t E) {
  const int64_t small = size / E, larger = size % E, in_larger = larger * (small + 1);
  return place < in_larger ? place / (small + 1) : larger + (place - in_larger) / small;
}

// From each row's expert to the rows in the experts' order.
Dispatch group_by_expert(const std::vector<int32_t>& expert, int64_t E);

// What a permutation is drawn from.
struct PartitionDraw {
  Draw draw;
  int64_t replica = -1;  // a micro-batch with draws of its own, by its first sample

  TESSERA_FN Permutation permutation(int64_t size) const {
    Draw own = draw;
    if (replica >= 0) own.site = draw.block(uint64_t(replica))[0];
    return {uint64_t(size), own};
  }
};

// The same of all rows of `copies` sets of `size` that one permutation cuts alike, at once and without a look
// at the rows: inside an expert they stand in the order of the permutation.
Dispatch place_by_expert(const PartitionDraw& draw, int64_t size, int64_t E, int64_t copies);

// The dispatch of the rows of images first_sample .. first_sample + B of a batch of `batch` images, or of the
// first N of each image's Pass::tokens rows, which are cut with the others.
Dispatch random_partition(PartitionScope scope, int64_t E, int64_t B, int64_t N, const Pass& pass,
                          uint32_t site);

class RandomPartitionMoe : public FeedForward {
 public:
  RandomPartitionMoe(const Scope& scope, int64_t E, int64_t C, int64_t hidden, WeightInit init,
                     ExpertInit expert_init, PartitionScope partition, double dropout_rate)
      : experts_(scope, E, C, hidden, init, expert_init, dropout_rate),
        count_(E),
        partition_(partition),
        site_(scope.site()) {}

  Tensor forward(const Tensor& x, const Residual& residual, const Pass& pass) const override;
  bool takes_first_tokens(const Pass& pass) const override;
  // The same for a partition that is given.
  Tensor forward(const Tensor& x, const Dispatch& dispatch, const Residual& residual, const Pass& pass) const;

 private:
  Experts experts_;
  int64_t count_;
  PartitionScope partition_;
  uint32_t site_;
};

}  // namespace tessera
