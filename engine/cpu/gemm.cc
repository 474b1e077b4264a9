// What does not depend on the matrix library: threads, empty sums and the bias.
#include <algorithm>

#include "engine/base/parallel.h"
#include "engine/cpu/gemm_backend.h"
#include "engine/kernels/backends.h"

namespace tessera {
namespace {

// Calls f(row) for the rows of C.
template <class T, class F>
void each_row(const Gemm<T>& g, F f) {
  for (int64_t i = 0; i < g.m; ++i) f(g.c + i * g.ldc);
}

// A whole product or one thread's part of one.
template <class T>
void whole(const Gemm<T>& g) {
  if (g.k > 0)
    cpu::multiply(g);
  else
    each_row(g, [&](T* c) {
      for (int64_t j = 0; j < g.n; ++j) c[j] = g.beta == 0 ? 0 : g.beta * c[j];
    });
  if (g.bias)
    each_row(g, [&](T* c) {
#pragma omp simd
      for (int64_t j = 0; j < g.n; ++j) c[j] += g.bias[j];
    });
}

}  // namespace

// Shares out the longer side of C, in blocks of whole registers: faster at the sizes of a single image than
// the libraries' own threads.
template <class T>
void cpu::gemm(const Gemm<T>& g) {
  constexpr int64_t kBlock = 16;
  constexpr double kWorthAThread = 1e6;  // multiply-adds
  const bool columns = g.n > g.m;
  const int64_t side = columns ? g.n : g.m, blocks = (side + kBlock - 1) / kBlock;
  const double per_block = double(kBlock) * double(columns ? g.m : g.n) * double(std::max<int64_t>(g.k, 1));
  parallel_for(blocks, int64_t(kWorthAThread / per_block) + 1, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kBlock, end = std::min(side, last * kBlock);
    Gemm<T> part = g;
    if (columns) {
      part.n = end - begin;
      part.b += begin * (g.transpose_b ? g.ldb : 1);
      part.c += begin;
      if (g.bias) part.bias += begin;
    } else {
      part.m = end - begin;
      part.a += begin * (g.transpose_a ? 1 : g.lda);
      part.c += begin * g.ldc;
    }
    whole(part);
  });
}

template void cpu::gemm(const Gemm<float>&);
template void cpu::gemm(const Gemm<double>&);

}  // namespace tessera
