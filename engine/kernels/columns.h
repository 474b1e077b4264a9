// Column reductions with a fixed blocking: the same bits for any number of threads. On a card f is a named
// functor, as in rows.h.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "engine/base/parallel.h"
#include "engine/base/vec.h"
#include "engine/kernels/on_card.h"
#include "engine/tensor/tensor.h"

namespace tessera {

// For each column j < columns and each of the K sums: out[k][j] = sum_i f(i, j)[k], added to what was there
// where beta[k] is 1 (otherwise it is 0). f returns std::array<T, K>, or vecs; the K sums share one pass
// over the rows. It is called once for each term, also of null outputs, and may leave what it likes in
// memory. With several groups of `rows` rows each, one after the other, every group has its own sums: those
// of group g from out[k] + g * columns on.
template <class T, size_t K, class F>
void column_sums(int64_t rows, int64_t columns, const std::array<T*, K>& out, const std::array<T, K>& beta,
                 F f, int64_t groups = 1) {
#ifdef __CUDACC__
  if (on_card()) {
    Tensor parts({int64_t(K) * groups * cuda::block_count(rows) * columns}, dtype_of<T>());
    return cuda::column_sums<T, K>(rows, columns, out, beta, parts.mutable_data<T>(), f, groups);
  }
#else
  if (on_card()) refuse_card();
#endif
  constexpr int64_t kBlock = 512, kStrip = 64;  // rows summed in one go; columns kept in registers
  const int64_t blocks = std::max<int64_t>(1, (rows + kBlock - 1) / kBlock);  // of a group
  std::vector<T> partial(size_t(groups * blocks) * K * size_t(columns));
  const auto sum_block = [&](int64_t block) {
    const int64_t first = block / blocks * rows, begin = first + block % blocks * kBlock;
    const int64_t end = std::min(first + rows, begin + kBlock);
    for (int64_t strip = 0; strip < columns; strip += kStrip) {
      const int64_t width = std::min(kStrip, columns - strip);
      std::array<std::array<T, kStrip>, K> sums{};
      // No omp simd here: g++ leaves such a loop scalar where f returns an array.
      const auto add_row = [&](int64_t i, int64_t n) {
        TESSERA_INDEPENDENT
        for (int64_t j = 0; j < n; ++j) {
          const std::array<Vec<T, 1>, K> terms = vecs_at<1, T, K>(f, i, strip + j);
          for (size_t k = 0; k < K; ++k) sums[k][size_t(j)] += terms[k].v[0];
        }
      };
      if (width == kStrip)
        for (int64_t i = begin; i < end; ++i) add_row(i, kStrip);
      else
        for (int64_t i = begin; i < end; ++i) add_row(i, width);
      for (size_t k = 0; k < K; ++k)
        std::copy_n(sums[k].begin(), width,
                    &partial[(size_t(block) * K + k) * size_t(columns) + size_t(strip)]);
    }
  };
  parallel_for(groups * blocks, std::max<int64_t>(1, 16384 / (kBlock * std::max<int64_t>(columns, 1))),
               [&](int64_t first, int64_t last) {
                 for (int64_t block = first; block < last; ++block) sum_block(block);
               });
  for (int64_t group = 0; group < groups; ++group)
    for (size_t k = 0; k < K; ++k) {
      if (!out[k]) continue;
      T* const to = out[k] + group * columns;
      for (int64_t j = 0; j < columns; ++j) {
        T total = 0;
        for (int64_t block = group * blocks; block < (group + 1) * blocks; ++block)
          total += partial[(size_t(block) * K + k) * size_t(columns) + size_t(j)];
        to[j] = beta[k] == T(0) ? total : to[j] + total;
      }
    }
}

}  // namespace tessera
