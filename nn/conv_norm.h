// Convolutions with batch norm. Names and defaults are torch's.
#pragma once

#include <cmath>
#include <optional>
#include <string>

#include "nn/batch_norm.h"

namespace tessera {

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
