// Row programs: what works row by row is written once, as a functor over a Row; here a Row is a SIMD loop and
// the rows are shared out by parallel_for. The lambdas passed to a Row take the element's index in the row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "engine/base/parallel.h"

namespace tessera {

class Row {
 public:
  template <class F>
  auto sum(int64_t n, F f) const {
    using T = decltype(f(n));
    T total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < n; ++j) total += f(j);
    return total;
  }
  template <class F>
  auto max(int64_t n, F f) const {
    using T = decltype(f(n));
    T largest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < n; ++j) largest = std::max(largest, f(j));
    return largest;
  }
  template <class F>
  void each(int64_t n, F f) const {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) f(j);
  }
};

// Runs program(row, i) for each of `count` rows of about `width` elements.
template <class Program>
void rows(int64_t count, int64_t width, Program program) {
  constexpr int64_t kElementsPerTask = 16384;
  parallel_for(count, std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, width)),
               [&](int64_t begin, int64_t end) {
                 const Row row;
                 for (int64_t i = begin; i < end; ++i) program(row, i);
               });
}

// Runs f(i) for each of n elements.
template <class F>
void elements(int64_t n, F f) {
  constexpr int64_t kElementsPerTask = 16384;
  parallel_for(n, kElementsPerTask, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

}  // namespace tessera
