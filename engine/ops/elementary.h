// The slow vocabulary of which the ops' twins are composed, and which a new idea can be tried with before it
// has an op of its own. Each has a gradient; none is tuned.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/ops/ops.h"

namespace tessera {

Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor erf(const Tensor& x);
Tensor pow(const Tensor& x, double exponent);
// y.flat[i] = x.flat[index[i]], or 0 where index[i] is -1: any permutation, slice, window or padding.
Tensor take(const Tensor& x, const std::vector<int64_t>& index, const Shape& shape);
// Axes in another order.
Tensor permute_axes(const Tensor& x, const std::vector<int>& axes);
inline Tensor subtract(const Tensor& a, const Tensor& b) { return add(a, scale(b, -1)); }

}  // namespace tessera
