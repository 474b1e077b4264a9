// The gradients of the replicas made one, and their norm bounded.
#pragma once

#include <cstdint>
#include <span>

#include "engine/base/portable.h"
#include "engine/tensor/tensor.h"

namespace tessera {

// Adds the replicas' gradient buffers of `count` elements, in their order, into the first, and returns the L2
// norm of the sum: one pass, the same bits for any thread count. There is at least one replica.
template <class T>
double reduce_gradients(std::span<T* const> replicas, int64_t count);

// The norm on a card, whose one replica needs no adding, left there in *norm. `sums` is room for it, made
// where there is none.
template <class T>
void put_norm(const T* gradient, int64_t count, Tensor& sums, double* norm);

// What to multiply a gradient of this norm by so that its norm is at most max_norm: max_norm / norm, and 1
// where it is short enough or max_norm is 0 (no bound). A norm that is not finite also gives 1: no factor
// makes such a gradient finite, and one of 0 would freeze the finite elements in silence. The caller sees the
// norm and stops the run.
TESSERA_FN inline double bounding_factor(double norm, double max_norm) {
  return max_norm == 0 || !(norm > max_norm) || norm - norm != 0 ? 1 : max_norm / norm;
}
// The same for a bound that may be wrong.
double clip_factor(double norm, double max_norm);

}  // namespace tessera
