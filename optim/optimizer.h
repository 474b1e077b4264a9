// Optimizers work on flat buffers: all parameters of a model in one, their gradients in another, one per
// moment.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

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

  // Calls f(begin, end, decays, factor) for the ranges of elements that are treated alike.
  template <class F>
  void each_range(F f) const {
    const RateRange all{count, 1};
    int64_t begin = 0;
    for (const RateRange& range : rates.empty() ? std::span(&all, 1) : rates) {
      const int64_t border = std::clamp(decayed, begin, range.end);
      if (begin < border) f(begin, border, true, range.factor);
      if (border < range.end) f(border, range.end, false, range.factor);
      begin = range.end;
    }
  }
};

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
