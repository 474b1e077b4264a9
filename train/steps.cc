#include "train/steps.h"

#include <cmath>
#include <utility>

#include "models/adapt.h"
#include "optim/clip.h"

namespace tessera {

TrainingSteps::TrainingSteps(const RunConfig& config, Model& model, int64_t total)
    : config_(config),
      model_(model),
      replicas_(model, {.workers = config.train.threads,
                        .micro_batch = config.train.micro_batch,
                        .parts = config.train.accumulate,
                        .dtype = config.train.dtype}),
      optimizer_(make_optimizer<float>(config.optim, model.parameters().learned())),
      experts_(stacked_parameters(model)),
      share_rate_{config.ewa.schedule, config.ewa.share_rate,
                  std::max<int64_t>(1, std::llround(config.ewa.ramp * double(total)))},
      last_averaged_(std::llround(config.ewa.until * double(total))) {
  if (config.layer_decay < 1) rates_ = layer_rates(model, config.layer_decay);
  if (config.sam_rho > 0) sam_.emplace(config.sam_rho);
  start_ema();
  if (Device::current().is_cuda())
    card_ = std::make_unique<CardSteps>(
        replicas_, CardSteps::Options{.samples = config.train.step_images(), .graph = config.train.graph},
        [this](const CardBatch& batch, StepNumbers* numbers, StepFindings* found) {
          on_card(batch, numbers, found);
        });
}

void TrainingSteps::start_ema() {
  if (config_.train.ema > 0) ema_.emplace(values(), model_.parameters().count(), config_.train.ema);
}

std::vector<Optimizer<float>::State> TrainingSteps::buffers() {
  auto buffers = optimizer_->state();
  if (ema_) buffers.push_back({"ema", &ema_->values()});
  return buffers;
}

double TrainingSteps::deviation() const {
  return expert_deviation<float>(model_.parameters().flat().data<float>(), experts_);
}

// Those that are known before the step.
StepNumbers TrainingSteps::numbers(int64_t step) {
  StepNumbers numbers{.step = uint32_t(step), .lr = learning_rate(config_.schedule, step)};
  if (has_experts()) numbers.share_rate = share_rate(step);
  if (ema_) numbers.ema_keep = ema_->keep(step + 1);
  optimizer_->prepare(numbers);
  return numbers;
}

void TrainingSteps::update(const StepNumbers* numbers) {
  FlatParameters<float> flat = flat_parameters<float>(model_, replicas_.gradients());
  flat.rates = rates_;
  flat.copies = copies();
  optimizer_->step(flat, numbers);
  if (has_experts()) average_experts<float>(values(), experts_, numbers, copies());
  if (ema_) ema_->update(values(), numbers);
}

void TrainingSteps::climb(const double* norm) {
  sam_->climb(values(), replicas_.gradients().data<float>(), model_.parameters().learned(), norm, copies());
}

void TrainingSteps::on_cpu(const BatchView& batch, Done& done) {
  Pass how = pass(done.step);
  const auto gradients = [&] {
    return replicas_.compute_gradients(batch, how, config_.train.label_smoothing);
  };
  done.result = gradients();
  if (!done.result.finite()) return;
  if (sam_) {
    climb(&done.result.gradient_norm);
    how.update_statistics = false;
    const StepResult second = gradients();
    if (!second.finite()) {  // the weights stay where it was
      done.result = second;
      return;
    }
    sam_->descend(values());
    done.result.gradient_norm = second.gradient_norm;
  }
  StepNumbers known = numbers(done.step);
  known.gradient_scale = clip_factor(done.result.gradient_norm, config_.train.clip);
  update(&known);
}

// The same where nobody looks at a number; what is not finite is for judge(). All that writes weights here
// writes their copies too: a step that is one graph is not asked whether they are to be made anew.
void TrainingSteps::on_card(const CardBatch& batch, StepNumbers* numbers, StepFindings* found) {
  Pass how = pass(in_flight_->step);
  how.step_on_card = &numbers->step;
  const auto gradients = [&](StepFindings* to) {
    replicas_.queue_gradients(batch, how, config_.train.label_smoothing, to);
  };
  gradients(found);
  if (sam_) {
    climb(&found->gradient_norm);
    how.update_statistics = false;
    gradients(found + 1);
    sam_->descend(values(), copies());
  }
  judge(sam_ ? 2 : 1, config_.train.clip, found, numbers);
  update(numbers);
  model_.parameters().copies_written();
}

std::optional<TrainingSteps::Done> TrainingSteps::take(const Batch& batch, int64_t step) {
  Done done{step, batch.epoch, batch.size()};
  if (!card_) {
    batch_ = view(batch);
    on_cpu(batch_, done);
    return done;
  }
  const StepNumbers known = numbers(step);
  check_share_rate(experts_, known.share_rate);
  std::optional<Done> before = std::exchange(in_flight_, done);
  model_.parameters().refresh_copies();
  card_->start(view(batch), known, [&](StepFindings* found) {
    if (has_experts() && logs(step))
      put_deviation<float>(model_.parameters().flat().data<float>(), experts_, spread_sums_,
                           &found->expert_deviation);
  });
  return ended(std::move(before));
}

std::optional<TrainingSteps::Done> TrainingSteps::settle() {
  return ended(std::exchange(in_flight_, std::nullopt));
}

// A step of a card with its result.
std::optional<TrainingSteps::Done> TrainingSteps::ended(std::optional<Done> done) {
  if (!done) return done;
  const StepFindings found = card_->finish();
  batch_ = card_->finished_batch();
  done->result.loss = found.loss;
  done->result.auxiliary = found.auxiliary;
  done->result.correct = int64_t(found.correct);
  done->result.gradient_norm = found.gradient_norm;
  done->expert_deviation = found.expert_deviation;
  return done;
}

std::string TrainingSteps::first_non_finite(const Done& done) {
  return replicas_.first_non_finite(batch_, pass(done.step));
}

}  // namespace tessera
