// What does not depend on the matrix library: checks, defaults, empty sums and the bias.
#include "engine/kernels/gemm.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/base/parallel.h"
#include "engine/cpu/gemm_backend.h"

namespace tessera {
namespace {

int64_t checked_ld(const char* matrix, int64_t ld, int64_t row) {
  TESSERA_CHECK(ld == 0 || ld >= row, "gemm: ld", matrix, "=", ld, " is shorter than a row of ", matrix, ", ",
                row, " elements; 0 stands for dense rows");
  return ld == 0 ? row : ld;
}

// Calls f(row) for the rows of C.
template <class T, class F>
void for_rows(const Gemm<T>& g, F f) {
  constexpr int64_t kGrain = 16384;  // elements
  parallel_for(g.m, std::max<int64_t>(1, kGrain / g.n), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(g.c + i * g.ldc);
  });
}

}  // namespace

template <class T>
void gemm(const Gemm<T>& given) {
  Gemm<T> g = given;
  TESSERA_CHECK(g.m >= 0 && g.n >= 0 && g.k >= 0, "gemm: sizes (m,n,k) = (", g.m, ",", g.n, ",", g.k,
                ") must not be negative");
  g.lda = checked_ld("a", g.lda, g.transpose_a ? g.m : g.k);
  g.ldb = checked_ld("b", g.ldb, g.transpose_b ? g.k : g.n);
  g.ldc = checked_ld("c", g.ldc, g.n);
  if (g.m == 0 || g.n == 0) return;

  if (g.k > 0)
    cpu::multiply(g);
  else
    for_rows(g, [&](T* c) {
      for (int64_t j = 0; j < g.n; ++j) c[j] = g.beta == 0 ? 0 : g.beta * c[j];
    });

  if (g.bias)
    for_rows(g, [&](T* c) {
#pragma omp simd
      for (int64_t j = 0; j < g.n; ++j) c[j] += g.bias[j];
    });
}

template void gemm(const Gemm<float>&);
template void gemm(const Gemm<double>&);

}  // namespace tessera
