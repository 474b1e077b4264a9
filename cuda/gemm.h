// Products of the back-end's own files: those of engine/kernels/gemm.h, and many of one shape in one call.
#pragma once

#include "engine/kernels/backends.h"

namespace tessera::cuda {

// `count` products whose operands lie at strides (elements) from one another; a stride of 0 repeats the
// operand. Sizes are above 0, every ld is given, and there is no bias where there are several.
template <class T>
struct Batch {
  int64_t count = 1, stride_a = 0, stride_b = 0, stride_c = 0;
};

template <class T>
void gemm(const Gemm<T>& g, const Batch<T>& batch);

}  // namespace tessera::cuda
