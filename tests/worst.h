// The larger of two errors, where NaN is the largest of all: std::max would lose it.
#pragma once

#include <cmath>
#include <limits>

namespace tessera {

inline double worst(double most, double error) {
  if (std::isnan(error)) return std::numeric_limits<double>::infinity();
  return error > most ? error : most;
}

}  // namespace tessera
