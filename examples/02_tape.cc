// 2. The tape: where gradients come from.
//
// Ops run at once and append a node to the tape; backward walks the list from its end. Each node multiplies
// the gradient of its output by its own derivative: the chain rule, one link at a time.
#include <algorithm>
#include <cmath>
#include <iostream>

#include "engine/ops/ops.h"

using namespace tessera;

// mean(gelu(x)^2)
static Tensor f(const Tensor& x) {
  const Tensor y = gelu(x);
  return mean(mul(y, y));
}

int main() {
  // In f64, so that the check below can be sharp.
  Tensor x = Tensor::of({4}, std::vector<double>{-2, -0.5, 0.5, 2}).require_grad();

  Tape tape;
  {
    const Tape::Scope record(&tape);
    const Tensor loss = f(x);
    std::cout << "the tape holds " << tape.size() << " nodes: gelu, mul, mean\n";
    tape.backward(loss);
    std::cout << "and afterwards " << tape.size() << ": each is dropped as soon as it has run\n";
  }
  const Tensor slope = x.grad();
  std::cout << "df/dx = " << slope << '\n';

  // A gradient claims what happens when x moves a little. So move it and look: the central difference
  // (f(x+h) - f(x-h)) / 2h. Outside the scope nothing is recorded.
  double worst = 0;
  for (int64_t i = 0; i < x.count(); ++i) {
    const double h = 1e-5;
    const auto moved = [&](double by) {
      Tensor copy = x.clone();
      copy.mutable_data<double>()[i] += by;
      return f(copy).item();
    };
    worst = std::max(worst, std::abs((moved(h) - moved(-h)) / (2 * h) - slope.at(i)));
  }
  std::cout << "largest distance from finite differences: " << worst << '\n';

  // detach(): the same numbers, but a constant. Half of the product rule is gone.
  x.clear_grad();
  const Tape::Scope record(&tape);
  tape.backward(mean(mul(x, x.detach())));
  std::cout << "d mean(x c)/dx with c = x held constant: " << x.grad() << '\n';
  const bool half = std::abs(x.grad().at(3) - 2.0 / 4) < 1e-12;  // and not 2 * 2 / 4

  return worst < 1e-9 && half ? 0 : 1;
}
