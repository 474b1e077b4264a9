// Stochastic gradient descent with momentum (Sutskever et al., "On the importance of initialization and
// momentum in deep learning", 2013, in the form of torch.optim.SGD).
#pragma once

#include "optim/optimizer.h"

namespace tessera {

// With g the scaled gradient:
//   d <- g + weight_decay w                      the decay is part of the gradient; decayed elements only
//   b <- momentum b + d
//   w <- w - lr b                                nesterov: w <- w - lr (d + momentum b)
// the same as torch.optim.SGD without dampening.
template <class T>
class Sgd : public Optimizer<T> {
 public:
  // Uses weight_decay, momentum and nesterov of the config.
  Sgd(const OptimizerConfig& config, int64_t count);
  std::vector<typename Optimizer<T>::State> state() override { return {{"momentum_buffer", &momentum_}}; }

 private:
  void update(const FlatParameters<T>& parameters, const StepNumbers* numbers) override;

  OptimizerConfig config_;
  Tensor momentum_;
};

}  // namespace tessera
