// Attention and its gradients by the definition, in double: softmax(scale Q K^T) V of each head.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/kernels/attention.h"

namespace tessera::testing {

struct AttentionReference {
  std::vector<double> out, lse, dqkv;

  template <class T>
  AttentionReference(const AttentionShape& shape, double scale, const std::vector<T>& qkv,
                     const std::vector<T>& dout)
      : out(dout.size()), lse(size_t(shape.B * shape.H * shape.N)), dqkv(qkv.size()) {
    const int64_t B = shape.B, N = shape.N, H = shape.H, D = shape.D;
    for (int64_t b = 0; b < B; ++b)
      for (int64_t h = 0; h < H; ++h)
        for (int64_t i = 0; i < N; ++i) {
          const auto in = [&](int64_t n, int which, int64_t d) {
            return size_t(((b * N + n) * 3 + which) * H * D + h * D + d);
          };
          const auto at = [&](int64_t d) { return size_t(((b * N + i) * H + h) * D + d); };
          std::vector<double> weight(static_cast<size_t>(N)), grad(static_cast<size_t>(N));
          double highest = -std::numeric_limits<double>::infinity(), sum = 0, mean = 0;
          for (int64_t j = 0; j < N; ++j) {
            double& score = weight[size_t(j)];
            for (int64_t d = 0; d < D; ++d)
              score += scale * double(qkv[in(i, 0, d)]) * double(qkv[in(j, 1, d)]);
            highest = std::max(highest, score);
          }
          for (double& w : weight) sum += w = std::exp(w - highest);
          lse[size_t((b * H + h) * N + i)] = highest + std::log(sum);
          for (int64_t j = 0; j < N; ++j) {
            weight[size_t(j)] /= sum;
            for (int64_t d = 0; d < D; ++d) {
              const double value = double(qkv[in(j, 2, d)]), g = double(dout[at(d)]);
              out[at(d)] += weight[size_t(j)] * value;
              dqkv[in(j, 2, d)] += weight[size_t(j)] * g;
              grad[size_t(j)] += g * value;
            }
            mean += weight[size_t(j)] * grad[size_t(j)];
          }
          for (int64_t j = 0; j < N; ++j) {
            const double g = scale * weight[size_t(j)] * (grad[size_t(j)] - mean);
            for (int64_t d = 0; d < D; ++d) {
              dqkv[in(i, 0, d)] += g * double(qkv[in(j, 1, d)]);
              dqkv[in(j, 1, d)] += g * double(qkv[in(i, 0, d)]);
            }
          }
        }
  }
};

}  // namespace tessera::testing
