// Channel programs: what works on one channel of x(B,C,area) over all images is written once, as a functor
// over a Channel. One thread sums a whole channel, plane after plane: the same bits for any number of
// threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/base/parallel.h"

namespace tessera {

// The lambdas take the element's index in the whole array.
struct Channel {
  int64_t B, C, area, c;

  int64_t count() const { return B * area; }
  template <class F>
  auto sum(F f) const {
    using T = decltype(f(c));
    T total = 0;
    for (int64_t b = 0; b < B; ++b) {
      T plane = 0;
      const int64_t first = (b * C + c) * area;
#pragma omp simd reduction(+ : plane)
      for (int64_t i = 0; i < area; ++i) plane += f(first + i);
      total += plane;
    }
    return total;
  }
  template <class F>
  void each(F f) const {
    for (int64_t b = 0; b < B; ++b) {
      const int64_t first = (b * C + c) * area;
#pragma omp simd
      for (int64_t i = 0; i < area; ++i) f(first + i);
    }
  }
};

// Runs program(channel) for each of C channels.
template <class Program>
void channels(int64_t B, int64_t C, int64_t area, Program program) {
  constexpr int64_t kElementsPerTask = 16384;
  parallel_for(C, std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, B * area)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t c = begin; c < end; ++c) program(Channel{B, C, area, c});
               });
}

}  // namespace tessera
