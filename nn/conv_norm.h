// Convolutions with batch norm. Names and defaults are torch's.
#pragma once

#include <cmath>
#include <optional>
#include <string>

#include "engine/ops/ops.h"
#include "nn/module.h"

namespace tessera {

// Batch norm (Ioffe and Szegedy, 2015) over the images and pixels of each channel: by the batch's statistics
// in training, by running ones otherwise.
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

struct ConvOptions {
  int64_t in, out, kernel = 3, stride = 1, padding = 0;
  Init init = he_normal(in * kernel * kernel);
  bool norm = true;

  // He et al., 2015.
  static Init he_normal(int64_t inputs) { return Init::normal(std::sqrt(2.0 / double(inputs))); }
};

// A square convolution followed by a batch norm or, without one, with a bias.
struct ConvNorm {
  Tensor weight, bias;  // (O,C,k,k), (O)
  std::optional<BatchNorm> norm;
  int64_t stride, padding;
  std::string name;

  ConvNorm(const Scope& conv, const Scope& norm_scope, const ConvOptions& o)
      : weight((conv / "weight").weight({o.out, o.in, o.kernel, o.kernel}, o.init)),
        stride(o.stride),
        padding(o.padding),
        name(conv.name()) {
    if (o.norm)
      norm.emplace(norm_scope, o.out);
    else
      bias = (conv / "bias").bias({o.out});
  }

  Tensor forward(const Tensor& x, const Pass& pass) const {
    const Tensor y = conv2d(x, weight, bias, stride, padding);
    return norm ? norm->forward(y, pass) : y;
  }
};

}  // namespace tessera
