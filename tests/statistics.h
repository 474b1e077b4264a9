// Whether draws have the distribution that they should have.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace tessera::testing {

// Within five standard deviations of a binomial count.
inline bool near(int count, double p, int draws) {
  return std::abs(count - draws * p) <= 5 * std::sqrt(draws * p * (1 - p));
}

// Uniform in [low, high], by Kolmogorov's test, at one false alarm in a million.
inline bool even(std::vector<double> draws, double low, double high) {
  std::sort(draws.begin(), draws.end());
  const auto n = double(draws.size());
  double gap = 0;
  for (size_t i = 0; i < draws.size(); ++i) {
    const double p = (draws[i] - low) / (high - low);
    gap = std::max({gap, p - double(i) / n, double(i + 1) / n - p});
  }
  return n > 0 && gap * std::sqrt(n) <= 2.7;
}

}  // namespace tessera::testing
