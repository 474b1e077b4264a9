// Matrix products. Inside a replica (a parallel region) a product runs on the caller's thread; elsewhere on
// all threads. The same call on the same number of threads gives the same bits.
#pragma once

#include <cstdint>

#include "engine/base/bf16.h"

namespace tessera {

// C = op(A) op(B) + beta C + bias, where op(A) is (m,k), op(B) is (k,n), C is (m,n), all row-major. C has
// another type where A and B are bf16 and a gradient of f32 weights or an f32 result is wanted.
template <class T, class Out = T>
struct Gemm {
  bool transpose_a = false, transpose_b = false;  // A is stored as (k,m); B is stored as (n,k)
  int64_t m = 0, n = 0, k = 0;                    // any may be 0
  const T* a = nullptr;
  const T* b = nullptr;
  Out* c = nullptr;                   // overlaps neither a nor b
  int64_t lda = 0, ldb = 0, ldc = 0;  // elements from one stored row to the next; 0: rows lie densely
  Wide<Out> beta = 0;                 // 0 overwrites C, whatever it held, NaN too
  const Out* bias = nullptr;          // (n), added to each row of C; none if null
  const Out* addend = nullptr;        // on a card alone: in rows as C's, in place of beta C
};

// For float, double, and bf16 with either result, whose sums are of floats. Throws if a size is negative or a
// stored row is longer than its ld.
template <class T, class Out>
void gemm(const Gemm<T, Out>& g);

// `count` products of one shape whose operands lie at strides (elements) from one another; a stride of 0
// repeats the operand.
struct GemmBatch {
  int64_t count = 1, stride_a = 0, stride_b = 0, stride_c = 0;
  int64_t stride_bias = 0;
};

// One after another, or on a card in one launch; several have no addend.
template <class T, class Out>
void gemm(const Gemm<T, Out>& g, const GemmBatch& batch);

}  // namespace tessera
