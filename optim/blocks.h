// Buffers in fixed blocks: what is done to a block finds it in cache, and sums over blocks do not depend on
// the thread count.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/base/parallel.h"

namespace tessera {

// The elements of a block: a few buffers of them stay in the first-level cache together.
constexpr int64_t kBlock = 2048;

// Calls f(begin, end) for the blocks of [0, count).
template <class F>
void each_block(int64_t count, F f) {
  constexpr int64_t kBlocksPerTask = 8;
  parallel_for((count + kBlock - 1) / kBlock, kBlocksPerTask, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) f(b * kBlock, std::min(count, (b + 1) * kBlock));
  });
}

// The sum of f(begin, end) over those blocks, added in order to an empty one by operator+=.
template <class F>
auto block_sum(int64_t count, F f) {
  using Sum = decltype(f(int64_t{0}, int64_t{0}));
  std::vector<Sum> parts(size_t((count + kBlock - 1) / kBlock));
  each_block(count, [&](int64_t begin, int64_t end) { parts[size_t(begin / kBlock)] = f(begin, end); });
  Sum total{};
  for (const Sum& part : parts) total += part;
  return total;
}

}  // namespace tessera
