// 3. A linear layer learns: y = x W^T + b, fitted to a plane by gradient descent.
//
// From here on parameters live in a ParameterStore: one flat buffer for all of them, gradients in a second
// one, so that the optimizer is one loop whatever the model.
#include <cmath>
#include <iostream>

#include "nn/layers.h"
#include "optim/optimizer.h"

using namespace tessera;

int main() {
  // The truth: y = 3 x0 - 2 x1 + 1, seen through a little noise.
  const int64_t M = 256;
  Tensor x({M, 2}, DType::f32), y({M, 1}, DType::f32);
  const Draw draw{.seed = 1};  // draw.normal(i) is a function of i: no state, the same on every run
  for (int64_t i = 0; i < M; ++i) {
    float* row = x.mutable_data<float>() + 2 * i;
    row[0] = float(draw.normal(uint64_t(3 * i)));
    row[1] = float(draw.normal(uint64_t(3 * i + 1)));
    y.mutable_data<float>()[i] = 3 * row[0] - 2 * row[1] + 1 + 0.1f * float(draw.normal(uint64_t(3 * i + 2)));
  }

  // Layers declare their parameters under a name; allocate() then lays them out and draws first values.
  ParameterStore store(DType::f32);
  const Linear layer(Scope(store) / "plane", 2, 1, WeightInit::xavier);
  store.allocate(1);
  const auto gradients = store.make_gradients();
  const ParameterGradients::Scope collect(*gradients);

  const auto sgd = make_optimizer<float>({.name = "sgd", .weight_decay = 0, .momentum = 0.9}, store.count());
  for (int step = 0; step <= 120; ++step) {
    Tape tape;
    const Tape::Scope record(&tape);
    const Tensor error = add(layer.forward(x), scale(y, -1));
    const Tensor loss = mean(mul(error, error));
    if (step % 40 == 0) std::cout << "step " << step << ": mean squared error " << loss.item() << '\n';
    gradients->clear();
    tape.backward(loss);
    sgd->step(
        {store.flat().mutable_data<float>(), gradients->flat().data<float>(), store.count(), store.decayed()},
        0.05);
  }
  std::cout << "learned weight " << layer.weight << "\nand bias " << layer.bias << '\n';
  const auto close = [](double got, double want) { return std::abs(got - want) < 0.03; };
  return close(layer.weight.at(0), 3) && close(layer.weight.at(1), -2) && close(layer.bias.at(0), 1) ? 0 : 1;
}
