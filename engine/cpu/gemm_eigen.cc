// Matrix products through Eigen, which takes one thread inside a parallel region.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own AVX-512 header, bug 105593
#endif
#include <Eigen/Core>

#include "engine/cpu/gemm_backend.h"

namespace tessera::cpu {
namespace {

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class Matrix>
using Map = Eigen::Map<Matrix, Eigen::Unaligned, Eigen::OuterStride<>>;

template <class T>
void eigen_multiply(const Gemm<T>& g) {
  using Input = Map<const RowMajor<T>>;
  const Input a(g.a, g.transpose_a ? g.k : g.m, g.transpose_a ? g.m : g.k, Eigen::OuterStride<>(g.lda));
  const Input b(g.b, g.transpose_b ? g.n : g.k, g.transpose_b ? g.k : g.n, Eigen::OuterStride<>(g.ldb));
  Map<RowMajor<T>> c(g.c, g.m, g.n, Eigen::OuterStride<>(g.ldc));

  if (g.beta == 0)
    c.setZero();
  else if (g.beta != 1)
    c *= g.beta;

  if (g.transpose_a && g.transpose_b)
    c.noalias() += a.transpose() * b.transpose();
  else if (g.transpose_a)
    c.noalias() += a.transpose() * b;
  else if (g.transpose_b)
    c.noalias() += a * b.transpose();
  else
    c.noalias() += a * b;
}

}  // namespace

#if !TESSERA_ONEDNN
void multiply(const Gemm<float>& g) { eigen_multiply(g); }
#endif
void multiply(const Gemm<double>& g) { eigen_multiply(g); }

}  // namespace tessera::cpu
