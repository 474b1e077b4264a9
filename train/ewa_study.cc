#include "train/ewa_study.h"

#include <algorithm>
#include <cmath>

#include "data/loader.h"
#include "models/fuse.h"
#include "optim/experts_averaging.h"
#include "train/evaluate.h"
#include "train/replicas.h"
#include "train/trainer.h"

namespace tessera {
namespace {

// In double, so that what is compared is the run's rounding and not ours.
using Vector = std::vector<double>;

double length(const Vector& v) {
  double squares = 0;
  for (const double x : v) squares += x * x;
  return std::sqrt(squares);
}

double distance(const Vector& a, const Vector& b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(squares);
}

// The experts' part of a flat buffer as mean and deviations, laid out alike: the mean once for every expert.
struct Parts {
  Vector mean, deviation;

  Parts(const float* flat, const std::vector<StackedParameter>& experts) {
    for (const StackedParameter& p : experts)
      for (int64_t e = 0; e < p.experts; ++e)
        for (int64_t i = 0; i < p.count; ++i) {
          double sum = 0;
          for (int64_t other = 0; other < p.experts; ++other)
            sum += double(flat[p.offset + other * p.count + i]);
          mean.push_back(sum / double(p.experts));
          deviation.push_back(double(flat[p.offset + e * p.count + i]) - mean.back());
        }
  }
};

EwaTrace trace(const RunConfig& config, const Dataset& train_set, const Dataset& test_set, double share_rate,
               int64_t steps) {
  const Normalization normal = normalization(train_set.name);
  const std::unique_ptr<Model> built = make_model(config.model, config.train.seed);
  Model& model = *built;
  Loader loader(train_set, {.training = true,
                            .batch_size = config.train.batch,
                            .seed = config.train.seed,
                            .prepare = {.shape = model.input_shape(), .normalization = normal},
                            .limit = config.data.limit,
                            .workers = config.data.workers});
  Replicas replicas(model, {.micro_batch = config.train.micro_batch});
  OptimizerConfig plain_sgd{.name = "sgd", .weight_decay = 0, .momentum = 0};
  const auto optimizer = make_optimizer<float>(plain_sgd, model.parameters().learned());
  const std::vector<StackedParameter> experts = stacked_parameters(model);
  float* const values = model.parameters().flat().mutable_data<float>();
  const double lr = config.schedule.lr, E = double(config.model.moe.experts),
               keep = 1 - share_rate * E / (E - 1);

  EwaTrace out;
  out.share_rate = share_rate;
  const Parts start(values, experts);
  Vector predicted = start.deviation;
  out.deviation.push_back(length(start.deviation) / length(start.mean));
  out.predicted = out.deviation;
  for (int64_t step = 0; step < steps; ++step) {
    const Batch& batch = loader.next();
    replicas.compute_gradients({batch.inputs, batch.labels, batch.size()},
                               {.training = true, .seed = config.train.seed, .step = uint32_t(step)},
                               config.train.label_smoothing);
    const Vector gradient = Parts(replicas.gradients().data<float>(), experts).deviation;
    for (size_t i = 0; i < predicted.size(); ++i) predicted[i] = keep * (predicted[i] - lr * gradient[i]);
    for (double& term : out.memory) term *= keep;
    out.memory.push_back(keep * lr * length(gradient));

    optimizer->step(flat_parameters<float>(model, replicas.gradients()), lr);
    const Parts before(values, experts);
    average_experts<float>(values, experts, share_rate);
    const Parts after(values, experts);
    const double deviation = length(after.deviation), mean = length(after.mean);
    out.deviation.push_back(deviation / mean);
    out.predicted.push_back(length(predicted) / mean);
    out.closed_form_error = std::max(out.closed_form_error, distance(after.deviation, predicted) / mean);
    out.mean_shift = std::max(out.mean_shift, distance(after.mean, before.mean) / mean);
    out.decay += distance(after.deviation, before.deviation) / length(before.deviation) / double(steps);
  }
  std::reverse(out.memory.begin(), out.memory.end());
  const auto top1 = [&](Model& of) {
    Replicas those(of, {.micro_batch = config.train.micro_batch});
    return evaluate(those, test_set, normal, config.model.classes, 256, config.data.test_limit).top1;
  };
  out.mixture_top1 = top1(model);
  out.fused_top1 = top1(*fuse(model));
  return out;
}

}  // namespace

std::vector<EwaTrace> study_ewa(const RunConfig& config, const std::vector<double>& share_rates,
                                int64_t steps) {
  TESSERA_CHECK_AS(Exit::usage, config.model.is_moe(),
                   "study ewa: the model has no experts; set model.moe.blocks, such as every-2");
  TESSERA_CHECK_AS(Exit::usage, steps > 0, "study ewa: ", steps, " steps, expected at least 1");
  const Dataset train_set = load_dataset(config.data.folder, Split::train, config.data.name);
  const Dataset test_set = load_dataset(config.data.folder, Split::test, config.data.name);
  check_fit(config.model, train_set);
  check_fit(config.model, test_set);
  std::vector<EwaTrace> traces;
  for (const double share_rate : share_rates)
    traces.push_back(trace(config, train_set, test_set, share_rate, steps));
  return traces;
}

}  // namespace tessera
