// Sharpness-aware minimisation (Foret et al., arXiv 2010.01412): the gradient that the optimizer takes is the
// one at w + rho g / |g|, where the loss nearby is about largest (their equation 2, with p = 2).
#pragma once

#include <cstdint>

#include "engine/base/bf16.h"
#include "engine/tensor/tensor.h"

namespace tessera {

class Sam {
 public:
  explicit Sam(double rho) : rho_(rho) {}

  // Moves the weights, and their copies if they have such, to where the second gradient is taken; *norm is
  // |g|, and lies where the weights do.
  void climb(float* values, const float* gradients, int64_t count, const double* norm,
             bf16* copies = nullptr);
  // Brings them back, to the bit.
  void descend(float* values, bf16* copies = nullptr) const;

 private:
  double rho_;
  Tensor kept_;
};

}  // namespace tessera
