// AdamW: Adam with the weight decay taken out of the gradient (Loshchilov & Hutter, "Decoupled weight decay
// regularization", 2019).
#pragma once

#include "optim/optimizer.h"

namespace tessera {

// With g the scaled gradient and t the step, counted from 1:
//   w <- w (1 - lr weight_decay)                 decayed elements only
//   m <- beta1 m + (1 - beta1) g
//   v <- beta2 v + (1 - beta2) g^2
//   w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
// the same as torch.optim.AdamW.
template <class T>
class AdamW : public Optimizer<T> {
 public:
  // Uses weight_decay, beta1, beta2 and eps of the config.
  AdamW(const OptimizerConfig& config, int64_t count);
  std::vector<typename Optimizer<T>::State> state() override {
    return {{"exp_avg", &mean_}, {"exp_avg_sq", &square_}};
  }

 private:
  void correct(StepNumbers& numbers) const override;
  void update(const FlatParameters<T>& parameters, const StepNumbers* numbers) override;

  OptimizerConfig config_;
  Tensor mean_, square_;
};

}  // namespace tessera
