// An op's case forward and backward on some device in some type, and how far two results are apart.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "engine/ops/ops.h"
#include "engine/tensor/memory.h"
#include "tests/random_inputs.h"
#include "tests/worst.h"

namespace tessera {

struct Run {
  Tensor y;
  std::vector<Tensor> grads;  // both on the host
};

// Ops that take bf16 and, where they have weights, read their copies.
inline const std::set<std::string>& bf16_ops() {
  static const std::set<std::string> ops{"linear",
                                         "linear(no bias)",
                                         "linear_gelu",
                                         "grouped_linear",
                                         "grouped_linear(equal)",
                                         "grouped_linear_gelu",
                                         "linear_residual",
                                         "linear_residual(scale)",
                                         "attention",
                                         "dropout",
                                         "permute_rows",
                                         "unpermute_rows",
                                         "combine_rows",
                                         "combine_rows(scale)",
                                         "layer_norm_operand",
                                         "slice(0)",
                                         "slice(1)"};
  return ops;
}

// Bounds of what is computed in bf16, as a part of the largest number: a result or gradient is rounded at
// most three times, each by 2^-8 of itself, and so are the terms of its sum, whose errors partly cancel.
constexpr double kRoundedResult = 0.008, kRoundedGradient = 0.016;

// Numbers that bf16 has.
inline Inputs rounded(const Inputs& inputs) {
  Inputs halves;
  for (const Tensor& x : inputs) halves.push_back(x.to(DType::bf16).to(DType::f64));
  return halves;
}

// What is in the gradients' memory before backward: whatever it may be, NaN to be overwritten, or ones to be
// added to.
enum class Before { nothing, nan, ones };

// The gradient of a result: normal numbers, drawn once for all the runs of a case; on the current device.
inline Tensor slopes_for(const Shape& shape, DType dtype) {
  static Tensor last;
  const Device there = Device::current();
  const Device::Scope host{Device()};
  if (!last || !(last.shape() == shape)) {
    last = Tensor(shape, DType::f64);
    double* slopes = last.mutable_data<double>();
    const Draw draw{.seed = 8};
    for (int64_t i = 0; i < last.count(); ++i) slopes[i] = draw.normal(uint64_t(i));
  }
  return last.to(dtype).to(there);
}

// In bf16 the leaves are f32 with bf16 copies, and the first is narrowed.
inline Run run(const OpCase& c, const Inputs& inputs, const Device& device, DType dtype,
               Before before = Before::nothing) {
  const Device::Scope there(device);
  Inputs leaves, copies;
  for (const Tensor& input : inputs) {
    leaves.push_back(input.to(wide(dtype)).to(device).require_grad());
    if (dtype != DType::bf16) continue;
    copies.push_back(narrow(leaves.back().detach()));
    leaves.back().place_copy(copies.back().mutable_data<bf16>(), copies.back());
  }
  Tape tape;
  const Tape::Scope scope(&tape);
  Inputs given = leaves;
  if (dtype == DType::bf16 && c.op != "layer_norm_operand") given[0] = narrow(leaves[0]);
  const Tensor y = widen(c.run(given));
  Run result{y.to(Device()).detach(), {}};
  const Tensor dy = slopes_for(y.shape(), y.dtype());
  Tensor loss = Tensor::zeros({}, y.dtype());
  record("loss", {y}, loss, [dy, gy = y.gradient()](const Gradient&) {
    for_float("loss", dy.dtype(), [&]<class T>() { copy(gy.target<T>().data, dy.data<T>(), dy.count()); });
  });
  if (before != Before::nothing)
    for (Tensor& leaf : leaves)
      leaf.prefill_grad(before == Before::nan ? std::nan("") : 1, before == Before::ones);
  tape.backward(loss);
  for (const Tensor& leaf : leaves)
    result.grads.push_back(leaf.gradient().written() ? leaf.grad().to(Device()) : Tensor());
  return result;
}

// How far the gradients are from `exact` ones that were added to ones.
inline double worst_added(const Run& added, const Run& exact) {
  double most = 0;
  for (size_t k = 0; k < exact.grads.size(); ++k)
    for (int64_t i = 0; exact.grads[k] && i < exact.grads[k].count(); ++i)
      most = worst(most, std::abs(added.grads[k].at(i) - 1 - exact.grads[k].at(i)));
  return most;
}

// Of all gradients of a case, which share a scale, since a small one may be the difference of large ones.
inline double magnitude_of(const std::vector<Tensor>& gradients, double least = 1e-4) {
  double most = least;
  for (const Tensor& gradient : gradients)
    if (gradient) most = std::max(most, largest(gradient));
  return most;
}

}  // namespace tessera
