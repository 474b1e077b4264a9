#include "data/augment/dice.h"

#include <algorithm>

namespace tessera {

// Marsaglia and Tsang, "A simple method for generating gamma variables" (2000); below 1 by their boost.
double Dice::gamma(double a) {
  if (a < 1) {
    const double boosted = gamma(a + 1);
    return boosted * std::pow(1 - uniform(), 1 / a);
  }
  const double d = a - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = normal(), v = std::pow(1 + c * x, 3);
    if (v > 0 && std::log(1 - uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

double Dice::beta(double a) {
  const double x = gamma(a), y = gamma(a);
  return x + y > 0 ? x / (x + y) : 0.5;  // both vanish where a is tiny
}

}  // namespace tessera
