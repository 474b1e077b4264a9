// Channel programs: what works on one channel of x(B,C,area) over all images is written once, as a functor
// over a Channel. One thread, or on a card one block, sums a whole channel: the same bits for any number of
// threads. See rows.h for what a program is.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/base/parallel.h"
#include "engine/base/portable.h"
#include "engine/kernels/on_card.h"

namespace tessera {

// The lambdas take the element's index in the whole array.
struct Channel {
  int64_t B, C, area, c;

  TESSERA_FN int64_t count() const { return B * area; }
  TESSERA_HOST_LAMBDAS
  template <class F>
  TESSERA_FN auto sum(F f) const {
    using T = decltype(f(c));
    T total = 0;
#ifdef __CUDA_ARCH__
    for (int64_t i = cuda::team_rank(); i < count(); i += cuda::team_size()) total += f(at(i));
    return cuda::team_reduce(total, [](T a, T b) { return a + b; });
#else
    for (int64_t b = 0; b < B; ++b) {
      T plane = 0;
      const int64_t first = (b * C + c) * area;
#pragma omp simd reduction(+ : plane)
      for (int64_t i = 0; i < area; ++i) plane += f(first + i);
      total += plane;
    }
    return total;
#endif
  }
  TESSERA_HOST_LAMBDAS
  template <class F>
  TESSERA_FN void each(F f) const {
#ifdef __CUDA_ARCH__
    for (int64_t i = cuda::team_rank(); i < count(); i += cuda::team_size()) f(at(i));
#else
    for (int64_t b = 0; b < B; ++b) {
      const int64_t first = (b * C + c) * area;
#pragma omp simd
      for (int64_t i = 0; i < area; ++i) f(first + i);
    }
#endif
  }
  // What is done once a channel.
  TESSERA_HOST_LAMBDAS
  template <class F>
  TESSERA_FN void once(F f) const {
#ifdef __CUDA_ARCH__
    if (cuda::team_rank() == 0) f();
#else
    f();
#endif
  }

 private:
  // Where the channel's i-th element lies.
  TESSERA_FN int64_t at(int64_t i) const {
    const int64_t b = i / area;
    return (b * C + c) * area + (i - b * area);
  }
};

// Runs program(channel) for each of C channels.
template <class Program>
void channels(int64_t B, int64_t C, int64_t area, Program program) {
  constexpr int64_t kElementsPerTask = 16384;
  if (on_card()) return TESSERA_ON_CARD(channels<Channel>(B, C, area, program));
  parallel_for(C, std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, B * area)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t c = begin; c < end; ++c) program(Channel{B, C, area, c});
               });
}

}  // namespace tessera
