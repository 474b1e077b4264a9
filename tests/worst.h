// How far results are apart, where NaN is the largest of all errors: std::max would lose it.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

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

// The largest difference, as a part of the largest number.
template <class T, class U>
double apart(const std::vector<T>& a, const std::vector<U>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0, unit = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    most = worst(most, std::abs(double(a[i]) - double(b[i])));
    unit = std::max(unit, std::abs(double(b[i])));
  }
  return most / unit;
}

inline double largest(const Tensor& x) {
  double most = 0;
  for (int64_t i = 0; i < x.count(); ++i) most = worst(most, std::abs(x.at(i)));
  return most;
}

// What errors are measured by: the largest number, down to what rounding alone leaves of a 0.
inline double magnitude(const Tensor& x) { return std::max(largest(x), 1e-4); }

inline double relative_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  return difference(a, b) / magnitude(b);
}

// Whether both are empty or equal to the last bit.
inline bool same_bits(const Tensor& a, const Tensor& b) {
  if (!a || !b) return !a && !b;
  if (!(a.shape() == b.shape()) || a.dtype() != b.dtype()) return false;
  bool same = false;
  for_float("same_bits", a.dtype(), [&]<class T>() {
    same = std::memcmp(a.data<T>(), b.data<T>(), size_t(a.count()) * sizeof(T)) == 0;
  });
  return same;
}
inline bool same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Tensor& x, const Tensor& y) { return same_bits(x, y); });
}

}  // namespace tessera
