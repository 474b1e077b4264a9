// What a matrix library provides to gemm.cc.
#pragma once

#include "engine/kernels/gemm.h"

namespace tessera::cpu {

// C = op(A) op(B) + beta C with m, n, k > 0 and every ld given. The bias is not theirs.
void multiply(const Gemm<float>& g);   // oneDNN if built with it, else Eigen
void multiply(const Gemm<double>& g);  // Eigen: oneDNN has no f64

}  // namespace tessera::cpu
