// Row programs: what works row by row is written once, as a functor over a Row. On the CPU a Row is a SIMD
// loop and the rows are shared out by parallel_for; on a card it is a team of threads (cuda/programs.cuh).
// The lambdas passed to a Row take the element's index in the row, and each index meets the same thread every
// time: what `each` or `sum` wrote at an index may be read there later. Other places need sync() in between.
//
// For a card, a program is a named struct whose operator() is TESSERA_FN: nvcc takes no lambda from inside
// another generic one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "engine/base/parallel.h"
#include "engine/base/portable.h"
#include "engine/base/vec.h"
#include "engine/kernels/on_card.h"

namespace tessera {

class Row {
 public:
  TESSERA_HOST_LAMBDAS
  template <class F>
  TESSERA_FN auto sum(int64_t n, F f) const {
    using T = decltype(f(n));
    T total = 0;
#ifdef __CUDA_ARCH__
    for (int64_t j = cuda::team_rank(); j < n; j += cuda::team_size()) total += f(j);
    total = cuda::team_reduce(total, [](T a, T b) { return a + b; });
#else
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < n; ++j) total += f(j);
#endif
    return total;
  }
  TESSERA_HOST_LAMBDAS
  template <class F>
  TESSERA_FN auto max(int64_t n, F f) const {
    using T = decltype(f(n));
    T largest = -std::numeric_limits<T>::infinity();
#ifdef __CUDA_ARCH__
    const auto larger = [](T a, T b) { return a < b ? b : a; };
    for (int64_t j = cuda::team_rank(); j < n; j += cuda::team_size()) largest = larger(largest, f(j));
    largest = cuda::team_reduce(largest, larger);
#else
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < n; ++j) largest = std::max(largest, f(j));
#endif
    return largest;
  }
  TESSERA_HOST_LAMBDAS
  template <class F>
  TESSERA_FN void each(int64_t n, F f) const {
#ifdef __CUDA_ARCH__
    for (int64_t j = cuda::team_rank(); j < n; j += cuda::team_size()) f(j);
#else
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) f(j);
#endif
  }
  // f(j) for every n-th j, by which it takes n neighbours; n divides `count`, and the CPU's is 1.
  template <int n, class F>
  TESSERA_FN void each_vec(int64_t count, F f) const {
#ifdef __CUDA_ARCH__
    for (int64_t j = cuda::team_rank() * n; j < count; j += cuda::team_size() * n) f(j);
#else
    TESSERA_INDEPENDENT
    for (int64_t j = 0; j < count; j += n) f(j);
#endif
  }
  // What is done once a row.
  TESSERA_HOST_LAMBDAS
  template <class F>
  TESSERA_FN void once(F f) const {
#ifdef __CUDA_ARCH__
    if (cuda::team_rank() == 0) f();
#else
    f();
#endif
  }
  // Before what other threads of the row wrote is read.
  TESSERA_FN void sync() const {
#ifdef __CUDA_ARCH__
    cuda::team_sync();
#endif
  }
};

// Runs program(row, i) for each of `count` rows of about `width` elements.
template <class Program>
void rows(int64_t count, int64_t width, Program program) {
  constexpr int64_t kElementsPerTask = 16384;
  if (on_card()) return TESSERA_ON_CARD(rows<Row>(count, width, program));
  parallel_for(count, std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, width)),
               [&](int64_t begin, int64_t end) {
                 const Row row;
                 for (int64_t i = begin; i < end; ++i) program(row, i);
               });
}

// Calls f.operator()<n>() with the neighbours n that a card takes at once in rows of C numbers that lie at
// `at`; the CPU's is 1.
template <class T, class F, class... Pointers>
void with_vec([[maybe_unused]] int64_t C, F f, [[maybe_unused]] Pointers... at) {
#ifdef __CUDACC__
  constexpr int kVec = int(16 / sizeof(T));
  if (on_card() && C % kVec == 0 && aligned_to<kVec>(at...)) return f.template operator()<kVec>();
#endif
  f.template operator()<1>();
}

// Runs f(i), or its vec, for each of n elements.
template <class F>
void elements(int64_t n, F f) {
  constexpr int64_t kElementsPerTask = 16384;
  if (on_card()) return TESSERA_ON_CARD(elements(n, f));
  parallel_for(n, kElementsPerTask, [&](int64_t begin, int64_t end) {
    if constexpr (Vectorized<F>) {
      TESSERA_INDEPENDENT
      for (int64_t i = begin; i < end; ++i) f.template vec<1>(i);
    } else {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) f(i);
    }
  });
}

}  // namespace tessera
