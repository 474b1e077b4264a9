// Batch norm (Ioffe and Szegedy, 2015). Names and defaults are torch's.
#pragma once

#include <string>

#include "engine/ops/ops.h"
#include "nn/module.h"

namespace tessera {

// By the batch's statistics in training, by running ones otherwise: of x(B,C,H,W) over images and pixels, of
// x(M,C) over rows.
struct BatchNorm {
  static constexpr double kMomentum = 0.1, kEps = 1e-5;

  Tensor weight, bias, running_mean, running_var;  // (C) each
  std::string name;

  BatchNorm(const Scope& scope, int64_t C)
      : weight((scope / "weight").weight({C}, Init::ones(), false)),
        bias((scope / "bias").bias({C})),
        running_mean((scope / "running_mean").buffer({C}, Init::zeros())),
        running_var((scope / "running_var").buffer({C}, Init::ones())),
        name(scope.name()) {}

  Tensor forward(const Tensor& x, const Pass& pass) const {
    Tensor mean = running_mean, variance = running_var;  // handles, through which both are updated
    const double momentum = pass.update_statistics ? kMomentum : 0;
    return batch_norm(x, weight, bias, mean, variance, pass.training, momentum, kEps);
  }
};

}  // namespace tessera
