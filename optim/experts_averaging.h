// Experts weights averaging (Huang et al., arXiv 2308.06093): after every optimizer step the experts of a
// layer share a little of their weights, so that after training their mean can stand for all of them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "engine/base/bf16.h"
#include "optim/step_numbers.h"

namespace tessera {

// A parameter of E experts in a flat buffer: expert e has the `count` elements from offset + e count on.
struct StackedParameter {
  int64_t offset;
  int64_t experts;
  int64_t count;
};

// How much of its weights an expert takes from the others (the paper's beta), over the run.
struct ShareRateSchedule {
  enum class Kind { constant, linear };

  Kind kind = Kind::constant;
  double rate = 0.3;
  int64_t ramp_steps = 10000;  // linear only: from 0 at step 0 to `rate` at step ramp_steps, then constant

  double at(int64_t step) const;
};

// For each parameter, with b the share rate and every right-hand side from the old values:
//   W_i <- (1 - b) W_i + b / (E - 1) sum_{j != i} W_j
// which is W_i <- mean + (1 - b E / (E - 1)) (W_i - mean): the mean stays, the deviations shrink. In place,
// one pass. Parameters of one expert stay as they are. A share rate outside [0, (E - 1) / E], beyond which
// experts would step past their mean, is Error(Exit::usage), and then nothing has changed.
template <class T>
void average_experts(T* values, std::span<const StackedParameter> parameters, double share_rate);
// The same by the share rate in `numbers`, which lie where the values do, and of the values' copies, if they
// have such. A card averages all parameters at once, and nobody sees the rate there: check_share_rate() is
// for whoever brings it.
template <class T>
void average_experts(T* values, std::span<const StackedParameter> parameters, const StepNumbers* numbers,
                     bf16* copies = nullptr);
template <class T>
void average_at_once(T* values, std::span<const StackedParameter> parameters, const StepNumbers* numbers,
                     bf16* copies = nullptr);
void check_share_rate(std::span<const StackedParameter> parameters, double share_rate);

// out(count) <- the mean over the experts of stacked(E, count); equal experts give exactly themselves.
template <class T>
void mean_experts(const T* stacked, int64_t experts, int64_t count, T* out);

// How far the experts are from their means, relative to the size of the means, over all parameters together:
//   sqrt(sum |W_i - mean|^2 / sum E |mean|^2)
// 0 where all experts are equal, infinity where all means are 0 and the experts are not.
template <class T>
double expert_deviation(const T* values, std::span<const StackedParameter> parameters);
// The same on a card, left there in *deviation. `sums` is room for it, made where there is none.
template <class T>
void put_deviation(const T* values, std::span<const StackedParameter> parameters, Tensor& sums,
                   double* deviation);

}  // namespace tessera
