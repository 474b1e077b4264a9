#include "optim/clip.h"

#include <cmath>

#include "engine/base/check.h"
#include "engine/kernels/rows.h"
#include "optim/blocks.h"

namespace tessera {

template <class T>
double reduce_gradients(std::span<T* const> replicas, int64_t count) {
  TESSERA_CHECK(!replicas.empty(), "reduce_gradients: no replicas");
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
