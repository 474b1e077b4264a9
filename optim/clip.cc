#include "optim/clip.h"

#include <cmath>

#include "engine/base/check.h"
#include "engine/kernels/rows.h"
#include "engine/tensor/tensor.h"
#include "optim/blocks.h"

namespace tessera {
namespace {

// Sums of squares of blocks, and then the root of their sum: programs for a card.
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

struct RootOfSum {
  int64_t count;
  const double* sums;
  double* root;
  TESSERA_FN void operator()(const Row& row, int64_t) const {
    const double total = row.sum(count, [=, this](int64_t i) { return sums[i]; });
    row.once([=, this] { *root = std::sqrt(total); });
  }
};

}  // namespace

template <class T>
void put_norm(const T* gradient, int64_t count, Tensor& sums, double* norm) {
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  if (!sums) sums = Tensor({blocks}, DType::f64);
  rows(blocks, kBlock, BlockSquares<T>{count, gradient, sums.mutable_data<double>()});
  rows(1, blocks, RootOfSum{blocks, sums.data<double>(), norm});
}

template <class T>
double reduce_gradients(std::span<T* const> replicas, int64_t count) {
  TESSERA_CHECK(!replicas.empty(), "reduce_gradients: no replicas");
  if (on_card()) {
    TESSERA_CHECK(replicas.size() == 1, "reduce_gradients: ", replicas.size(), " replicas on one card");
    Tensor sums, norm({1}, DType::f64);
    put_norm(replicas[0], count, sums, norm.mutable_data<double>());
    return norm.at(0);
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
  return bounding_factor(norm, max_norm);
}

template double reduce_gradients(std::span<float* const>, int64_t);
template double reduce_gradients(std::span<double* const>, int64_t);
template void put_norm(const float*, int64_t, Tensor&, double*);
template void put_norm(const double*, int64_t, Tensor&, double*);

}  // namespace tessera
