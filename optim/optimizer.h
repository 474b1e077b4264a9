// Optimizers work on flat buffers: all parameters of a model in one, their gradients in another, one per
// moment.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/base/bf16.h"
#include "engine/kernels/rows.h"
#include "engine/tensor/tensor.h"
#include "optim/step_numbers.h"

namespace tessera {

// The learning rate of the elements from the former one's `end` to this one's, as a factor.
struct RateRange {
  int64_t end;
  double factor;
};

template <class T>
struct FlatParameters {
  T* values;
  const T* gradients;
  int64_t count;
  int64_t decayed;                        // weight decay applies to the first `decayed` elements
  std::span<const RateRange> rates = {};  // of all elements, ascending; none: 1 everywhere
  bf16* copies = nullptr;                 // of the values, written with them; or none

  // Calls f(begin, border, end, factor) for the ranges of one rate; the elements before the border decay.
  template <class F>
  void each_range(F f) const {
    const RateRange all{count, 1};
    int64_t begin = 0;
    for (const RateRange& range : rates.empty() ? std::span(&all, 1) : rates) {
      f(begin, std::clamp(decayed, begin, range.end), range.end, range.factor);
      begin = range.end;
    }
  }
};

// What update_parameters() runs: on the CPU a program from one of its elements on, where all decay or none;
// on a card, whose kernels read the numbers when they run, all of a rate at once, with their copies.
template <class Program>
struct From {
  int64_t begin;
  Program program;
  TESSERA_FN void operator()(int64_t i) const { program(begin + i); }
};
template <class T, class Rule>
struct LateRange {
  Rule rule;
  const StepNumbers* numbers;
  int64_t border;
  double factor;
  const T* values;
  bf16* copies;
  TESSERA_FN void operator()(int64_t i) const {
    if (numbers->stopped) return;
    const auto update = rule.at(*numbers, i < border, factor);
    update(i);
    if (copies) copies[i] = float(values[i]);
  }
};

// Updates all parameters by rule.at(numbers, whether they decay, factor of the rate), a program over the
// elements of the flat buffer.
template <class T, class Rule>
void update_parameters(const FlatParameters<T>& flat, const Rule& rule, const StepNumbers* numbers) {
  flat.each_range([&](int64_t begin, int64_t border, int64_t end, double factor) {
    if (on_card() || flat.copies) {
      const LateRange<T, Rule> late{rule, numbers, border, factor, flat.values, flat.copies};
      return elements(end - begin, From<LateRange<T, Rule>>{begin, late});
    }
    const auto decaying = rule.at(*numbers, true, factor), others = rule.at(*numbers, false, factor);
    elements(border - begin, From<decltype(decaying)>{begin, decaying});
    elements(end - border, From<decltype(others)>{border, others});
  });
}

struct OptimizerConfig {
  std::string name = "adamw";  // or "sgd"
  double weight_decay = 0.05;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;  // adamw
  double momentum = 0.9;                          // sgd
  bool nesterov = false;                          // sgd
};

template <class T>
class Optimizer {
 public:
  // A buffer of `count` elements that a checkpoint saves and restores, together with steps().
  struct State {
    std::string name;
    Tensor* values;
  };

  virtual ~Optimizer() = default;

  // One update of `parameters` with learning rate `lr`; each gradient is first multiplied by `gradient_scale`
  // (the clip factor). The same bits for any thread count.
  void step(const FlatParameters<T>& parameters, double lr, double gradient_scale = 1);
  // The same in two: counts a step and fills in what follows from the count, and then updates by `numbers`,
  // which lie where the parameters do.
  void prepare(StepNumbers& numbers);
  void step(const FlatParameters<T>& parameters, const StepNumbers* numbers);
  virtual std::vector<State> state() = 0;

  // Steps taken so far.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 protected:
  explicit Optimizer(int64_t count) : count_(count) {}

 private:
  virtual void correct(StepNumbers&) const {}  // by steps()
  virtual void update(const FlatParameters<T>& parameters, const StepNumbers* numbers) = 0;

  int64_t count_;
  int64_t steps_ = 0;
};

// The optimizer that config.name names, for `count` parameters. An unknown name or a setting out of range is
// Error(Exit::usage).
template <class T>
std::unique_ptr<Optimizer<T>> make_optimizer(const OptimizerConfig& config, int64_t count);

}  // namespace tessera
