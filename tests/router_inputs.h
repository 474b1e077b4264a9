// What the tests of routers and partitions share: their sizes, and the gates by hand.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "engine/tensor/tensor.h"
#include "tests/random_inputs.h"
#include "tests/worst.h"

namespace tessera {

constexpr int64_t kB = 5, kN = 7, kC = 6, kHidden = 9, kE = 4;

inline int32_t at(const Tensor& x, int64_t i, int64_t j) { return x.data<int32_t>()[i * x.size(1) + j]; }

// softmax(W row).
inline std::vector<double> probabilities(const Tensor& router, const double* row) {
  std::vector<double> p;
  for (int64_t e = 0; e < kE; ++e) {
    double s = 0;
    for (int64_t c = 0; c < kC; ++c) s += router.at(e * kC + c) * row[c];
    p.push_back(std::exp(s));
  }
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= total;
  return p;
}

}  // namespace tessera
