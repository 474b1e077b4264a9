#include "optim/clip.h"

#include <cmath>

#include "engine/base/check.h"
#include "engine/kernels/rows.h"
#include "engine/tensor/tensor.h"
#include "optim/blocks.h"

namespace tessera {
namespace {

// Sums of squares of blocks, and then the sum of those: programs for a card, whose one replica needs no
// adding.
template <class T>
struct BlockSquares {
  int64_t count;
  const T* values;
  double* sums;
  TESSERA_FN void operator()(const Row& row, int64_t block) const {
    const int64_t begin = block * kBlock, size = begin + kBlock < count ? kBlock : count - begin;
    const double sum =
        row.sum(size, [=, this](int64_t i) { return double(values[begin + i]) * double(values[begin + i]); });
    row.once([=, this] { sums[block] = sum; });
  }
};

struct Total {
  int64_t count;
  double* sums;  // whose first becomes the total
  TESSERA_FN void operator()(const Row& row, int64_t) const {
    const double total = row.sum(count, [=, this](int64_t i) { return sums[i]; });
    row.once([=, this] { sums[0] = total; });
  }
};

template <class T>
double norm_on_card(const T* values, int64_t count) {
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  if (blocks == 0) return 0;
  Tensor sums({blocks}, DType::f64);
  rows(blocks, kBlock, BlockSquares<T>{count, values, sums.mutable_data<double>()});
  rows(1, blocks, Total{blocks, sums.mutable_data<double>()});
  return std::sqrt(sums.at(0));
}

}  // namespace

template <class T>
double reduce_gradients(std::span<T* const> replicas, int64_t count) {
  TESSERA_CHECK(!replicas.empty(), "reduce_gradients: no replicas");
  if (on_card()) {
    TESSERA_CHECK(replicas.size() == 1, "reduce_gradients: ", replicas.size(), " replicas on one card");
    return norm_on_card(replicas[0], count);
  }
  const double square = block_sum(count, [&](int64_t begin, int64_t end) {
    const Row row;
    T* sum = replicas[0] + begin;
    for (const T* replica : replicas.subspan(1))
      row.each(end - begin, [=, addend = replica + begin](int64_t i) { sum[i] += addend[i]; });
    return row.sum(end - begin, [=](int64_t i) { return double(sum[i]) * double(sum[i]); });
  });
  return std::sqrt(square);
}

double clip_factor(double norm, double max_norm) {
  TESSERA_CHECK_AS(Exit::usage, max_norm >= 0, "clip: the largest norm ", max_norm,
                   " is below 0; 0 means no bound");
  return max_norm == 0 || norm <= max_norm || !std::isfinite(norm) ? 1 : max_norm / norm;
}

template double reduce_gradients(std::span<float* const>, int64_t);
template double reduce_gradients(std::span<double* const>, int64_t);

}  // namespace tessera
