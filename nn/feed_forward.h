// The second half of a transformer block: a plain MLP, or anything that takes its place.
#pragma once

#include <memory>

#include "nn/layers.h"

namespace tessera {

class FeedForward {
 public:
  virtual ~FeedForward() = default;
  // residual + f(x), x(B,N,C)
  virtual Tensor forward(const Tensor& x, const Residual& residual, const Pass& pass) const = 0;
  // Whether it may be given the first tokens of each sample alone (Pass::tokens): what becomes of one does
  // not depend on the others, nor do the draws, which are counted by a token's place.
  virtual bool takes_first_tokens(const Pass& pass) const = 0;
};

struct Mlp : FeedForward {
  Linear fc1, fc2;
  Dropout dropout;

  Mlp(const Scope& scope, int64_t C, int64_t hidden, WeightInit init, double dropout_rate)
      : fc1(scope / "fc1", C, hidden, init),
        fc2(scope / "fc2", hidden, C, init),
        dropout(scope, dropout_rate) {}

  bool takes_first_tokens(const Pass& pass) const override { return !dropout.draws(pass); }
  Tensor forward(const Tensor& x, const Residual& residual, const Pass& pass) const override {
    const Tensor hidden = dropout.forward(linear_gelu(x, fc1.weight, fc1.bias), pass);
    return linear_residual(hidden, fc2.weight, fc2.bias, residual.x, residual.scale);
  }
};

}  // namespace tessera
