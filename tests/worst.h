// Errors, where NaN is the largest of all: std::max would lose it.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "engine/tensor/tensor.h"

namespace tessera {

inline double worst(double most, double error) {
  if (std::isnan(error)) return std::numeric_limits<double>::infinity();
  return error > most ? error : most;
}

// The largest |difference| of the elements that count, those for which counts(i) is true.
template <class F>
double difference(const Tensor& got, const Tensor& want, F&& counts) {
  REQUIRE(got.count() == want.count());
  double most = 0;
  for (int64_t i = 0; i < want.count(); ++i)
    if (counts(i)) most = worst(most, std::abs(got.at(i) - want.at(i)));
  return most;
}
inline double difference(const Tensor& got, const Tensor& want) {
  return difference(got, want, [](int64_t) { return true; });
}

}  // namespace tessera
