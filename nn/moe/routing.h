// Routing: the experts that a router chose for each row, and the rows' places among those of their experts.
// The host finds them, from scores on a card too.
#pragma once

#include <cstdint>
#include <vector>

#include "nn/feed_forward.h"
#include "nn/moe/experts.h"

namespace tessera {

// What the rows go through: gates of k experts a row, and the slots of dispatch_rows.
struct Routing {
  Tensor gates;                  // (M,k)
  Tensor slots;                  // i32 (M,k); -1: that expert was full
  std::vector<int64_t> offsets;  // E + 1: the slots offsets[e] to offsets[e+1] are expert e's

  int64_t experts() const { return int64_t(offsets.size()) - 1; }
  // The share of all slots that each expert has, for the log.
  std::vector<double> load() const;
};

// i32 (M,k): the experts of the k largest of each row of scores(M,E), the largest first; of equal ones the
// first.
Tensor top_k(const Tensor& scores, int64_t k);

// How much an expert takes. Rows come in groups of `rows`, the last group may be smaller.
struct Capacity {
  int64_t rows = 0;      // 0: one group of all
  double factor = 0;     // 0: no limit
  Tensor priority = {};  // (M): the larger are served first; without it the rows come as they stand

  // Of a group of T rows that make k choices among E experts: ceil(k T factor / E), up to a multiple of 4.
  int64_t of(int64_t T, int64_t k, int64_t E) const;
};

// Slots for chosen(M,k). In each group all first choices are served before any second one; a choice that
// finds its expert full is dropped. The gates are left to the caller.
Routing place(const Tensor& chosen, int64_t E, const Capacity& capacity = {});

// residual + scale * sum_j gate_j expert_j(x), x(B,N,C) (V-MoE, eq. 1).
Tensor through_experts(const Experts& experts, const Tensor& x, const Routing& routing,
                       const Residual& residual, const Pass& pass);

}  // namespace tessera
