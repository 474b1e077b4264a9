// 7. Experts weights averaging: after each step every expert takes a share b of its weights from the others.
//
//   W_i <- (1 - b) W_i + b / (E - 1) sum of the other W_j
//
// The same in other words: the mean stays where it is, and each expert's deviation from it shrinks by the
// factor 1 - g, g = b E / (E - 1). Over a run an expert's own past fades exponentially, and in the end the
// mean can stand for all experts.
#include <cmath>
#include <iostream>
#include <vector>

#include "optim/experts_averaging.h"

using namespace tessera;

int main() {
  const double share_rate = 0.3;
  const StackedParameter parameter{.offset = 0, .experts = 4, .count = 2};  // four experts of two weights
  std::vector<double> w{1, 10, 2, 20, 3, 30, 6, 60};
  const auto mean = [&] {
    std::vector<double> m(2);
    mean_experts(w.data(), 4, 2, m.data());
    return m;
  };
  const std::vector<double> first_mean = mean();
  const double first_deviation = w[0] - first_mean[0];
  const double g = share_rate * 4 / 3;

  bool right = true;
  for (int step = 0; step <= 5; ++step) {
    if (step > 0) average_experts<double>(w.data(), {&parameter, 1}, share_rate);
    std::cout << "step " << step << ": first weights";
    for (size_t e = 0; e < 4; ++e) std::cout << ' ' << w[2 * e];
    std::cout << ", mean " << mean()[0] << ", deviation from the means "
              << expert_deviation<double>(w.data(), {&parameter, 1}) << '\n';
    right &= std::abs(mean()[0] - first_mean[0]) < 1e-12;
    right &= std::abs((w[0] - mean()[0]) - first_deviation * std::pow(1 - g, step)) < 1e-12;
  }

  // The largest share, (E - 1) / E, makes all experts equal at once; more would carry them past their mean.
  average_experts<double>(w.data(), {&parameter, 1}, 0.75);
  std::cout << "with the share 3/4: " << w[0] << ' ' << w[2] << ' ' << w[4] << ' ' << w[6] << '\n';
  return right && w[0] == w[6] ? 0 : 1;
}
