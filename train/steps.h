// The steps of a training run: gradient, optimizer and what goes around it. On a card a step is begun, and
// what it has found is known when the next one has been begun too (train/card_steps.h).
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "data/loader.h"
#include "optim/ema.h"
#include "optim/sam.h"
#include "train/card_steps.h"
#include "train/config.h"

namespace tessera {

class TrainingSteps {
 public:
  struct Done {
    int64_t step = 0, epoch = 0, samples = 0;  // step: counted from 0
    StepResult result = {};
    double expert_deviation = 0;  // on a card, where the log has a line for the step
  };

  // Of a run of `total` steps on the current device. The model must outlive this.
  TrainingSteps(const RunConfig& config, Model& model, int64_t total);

  // Does step `step` with this batch, and gives what ended meanwhile: the step itself or, on a card, the one
  // before. Where its numbers are not finite no weight, moment or average is updated, nor in a step begun
  // since; running statistics are, as in every forward pass.
  std::optional<Done> take(const Batch& batch, int64_t step);
  // Waits for a step that has not ended yet.
  std::optional<Done> settle();
  bool in_flight() const { return in_flight_.has_value(); }
  // Whether the step that was begun last is one graph, and why none will be, as in CardSteps.
  bool is_graph() const { return card_ && card_->is_graph(); }
  std::string why_no_graph() const { return card_ ? card_->why_no_graph() : ""; }
  // The first module whose output is not finite in the step that ended last.
  std::string first_non_finite(const Done& done);

  double share_rate(int64_t step) const { return step < last_averaged_ ? share_rate_.at(step) : 0; }
  double deviation() const;  // of the experts, now
  // After the step that ended last, where the log has a line for it.
  double deviation(const Done& done) const { return card_ ? done.expert_deviation : deviation(); }
  bool has_experts() const { return !experts_.empty(); }
  // The moving average, if there is one, starts from the weights as they are.
  void start_ema();
  void swap_ema() { ema_->swap(values()); }
  bool has_ema() const { return ema_.has_value(); }

  Replicas& replicas() { return replicas_; }
  Optimizer<float>& optimizer() { return *optimizer_; }
  // What a checkpoint holds beside the weights.
  std::vector<Optimizer<float>::State> buffers();

 private:
  static BatchView view(const Batch& batch) {
    return {batch.inputs, batch.labels, batch.size(), batch.soft_targets};
  }
  Pass pass(int64_t step) const {
    return {.training = true, .seed = config_.train.seed, .step = uint32_t(step)};
  }
  float* values() { return model_.parameters().flat().mutable_data<float>(); }
  bf16* copies() { return model_.parameters().copies(); }
  bool logs(int64_t step) const { return (step + 1) % config_.train.log_every == 0; }
  StepNumbers numbers(int64_t step);
  void update(const StepNumbers* numbers);
  void climb(const double* norm);
  std::optional<Done> ended(std::optional<Done> done);
  void on_cpu(const BatchView& batch, Done& done);
  void on_card(const CardBatch& batch, StepNumbers* numbers, StepFindings* found);

  const RunConfig config_;
  Model& model_;
  Replicas replicas_;
  std::unique_ptr<Optimizer<float>> optimizer_;
  std::vector<RateRange> rates_;
  std::optional<Sam> sam_;
  std::optional<Ema> ema_;
  std::vector<StackedParameter> experts_;
  ShareRateSchedule share_rate_;
  int64_t last_averaged_;  // step

  std::unique_ptr<CardSteps> card_;  // null on the CPU
  std::optional<Done> in_flight_;    // on the card, its result to come
  Tensor spread_sums_;               // put_deviation's
  BatchView batch_;                  // of the step that ended last
};

}  // namespace tessera
