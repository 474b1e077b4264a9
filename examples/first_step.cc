// The first step: a tensor, a backward pass, and one step of gradient descent.
//
// The task is the smallest one there is. A line y = w x is to pass through the points (1,2), (2,4), (3,6), so
// the best w is 2; we start from w = 0.
#include <iostream>

#include "engine/ops/ops.h"

using namespace tessera;

// mean over the points of (w x - y)^2
static Tensor loss_of(const Tensor& w, const Tensor& x, const Tensor& y) {
  const Tensor error = add(mul(x, w), scale(y, -1));
  return mean(mul(error, error));
}

int main() {
  const Tensor x = Tensor::of({3}, std::vector<float>{1, 2, 3});
  const Tensor y = Tensor::of({3}, std::vector<float>{2, 4, 6});
  Tensor w = Tensor::zeros({1}).require_grad();  // the one number to learn

  // While a tape's scope lives, every op leaves a note of how to undo it.
  Tape tape;
  const Tape::Scope record(&tape);
  const Tensor before = loss_of(w, x, y);
  tape.backward(before);  // reads the notes from the end; w now knows dloss/dw
  std::cout << "loss " << before.item() << ", dloss/dw " << w.grad().item() << '\n';

  // Downhill is against the gradient.
  const double learning_rate = 0.1;
  w.mutable_data<float>()[0] -= float(learning_rate * w.grad().item());

  const Tensor after = loss_of(w, x, y);
  std::cout << "after one step: w " << w.item() << ", loss " << after.item() << '\n';
  return after.item() < before.item() ? 0 : 1;
}
