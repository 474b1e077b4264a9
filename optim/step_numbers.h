// The numbers of a training step that change from one to the next. They lie where the step runs: a card's
// kernels read them when they run, not when they are launched, so that a step recorded once serves all steps.
#pragma once

#include <cstdint>
#include <span>

#include "engine/kernels/rows.h"
#include "engine/tensor/tensor.h"

namespace tessera {

struct StepNumbers {
  uint32_t step = 0;     // that of the draws (Draw::step)
  uint32_t stopped = 0;  // 1: nothing is updated any more (a card's, see judge())
  double lr = 0;
  double gradient_scale = 1;                          // the clip factor
  double mean_correction = 1, square_correction = 1;  // adamw
  double share_rate = 0;                              // of the experts
  double ema_keep = 1;
};

// Updates n elements: rule.at(numbers) is the program. `numbers` are read now on the CPU, and on a card when
// the kernel runs.
template <class Rule>
struct Late {
  Rule rule;
  const StepNumbers* numbers;
  TESSERA_FN void operator()(int64_t i) const {
    if (numbers->stopped) return;
    const auto update = rule.at(*numbers);
    update(i);
  }
};
template <class Rule>
void update_elements(int64_t n, const Rule& rule, const StepNumbers* numbers) {
  if (on_card())
    elements(n, Late<Rule>{rule, numbers});
  else
    elements(n, rule.at(*numbers));
}

// What a step on a card has found, left there until it is fetched.
struct StepFindings {
  double loss = 0, auxiliary = 0;  // as in StepResult
  double correct = 0;
  double gradient_norm = 0;
  double expert_deviation = 0;
  uint32_t stopped = 0;  // from the first step on whose numbers were not finite

  TESSERA_FN bool finite() const {
    const double all = loss + auxiliary + gradient_norm;
    return all - all == 0;
  }
};

// Programs for a card, which leave what they find in its memory.

// *sum = share loss, or more by that where `adds`; the loss is of one element.
void put_loss(const Tensor& loss, double share, bool adds, double* sum);
// *count = the rows of logits(B,K) whose first largest element is that of labels(B), or more by that.
void put_correct(const Tensor& logits, const Tensor& labels, bool adds, double* count);
// After the passes of a step, each of which has left what it found in its own of `found`, the last one's
// gradient to be taken: the clip factor of that for `max_norm`, and whether anything is to be updated. From
// the first step on where a loss or norm is not finite nothing is, so that the weights are still those of
// before when the host comes to know. found[0] gets the norm of the gradient that is taken, or the numbers of
// the first pass that is not finite.
void judge(int64_t passes, double max_norm, StepFindings* found, StepNumbers* numbers);

}  // namespace tessera
