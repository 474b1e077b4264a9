// Exponential moving average of weights: ema <- d ema + (1 - d) w after every step.
#pragma once

#include <cstdint>

#include "engine/tensor/tensor.h"
#include "optim/step_numbers.h"

namespace tessera {

class Ema {
 public:
  // Starts from `values`. The decay d rises as (1 + t) / (10 + t) with the steps t until it reaches `decay`,
  // so that the first weights are soon forgotten (our choice).
  Ema(const float* values, int64_t count, double decay);

  // The decay of step `step`, counted from 1.
  double keep(int64_t step) const;
  // After that step, by the decay in `numbers`, which lie where the values do. The same bits for any thread
  // count.
  void update(const float* values, const StepNumbers* numbers);
  // Exchanges the average with `values`; a second call brings both back.
  void swap(float* values);

  Tensor& values() { return values_; }

 private:
  Tensor values_;
  double decay_;
};

}  // namespace tessera
