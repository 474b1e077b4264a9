// Sharpness-aware minimisation (Foret et al., arXiv 2010.01412): the gradient that the optimizer takes is the
// one at w + rho g / |g|, where the loss nearby is about largest (their equation 2, with p = 2).
#pragma once

#include <cstdint>

#include "engine/tensor/tensor.h"

namespace tessera {

class Sam {
 public:
  explicit Sam(double rho) : rho_(rho) {}

  // Moves the weights to where the second gradient is taken; *norm is |g|, and lies where the weights do.
  void climb(float* values, const float* gradients, int64_t count, const double* norm);
  // Brings them back, to the bit.
  void descend(float* values) const;

 private:
  double rho_;
  Tensor kept_;
};

}  // namespace tessera
