// What goes into one step of a run, and in which order.
#include "train/steps.h"

#include <doctest/doctest.h>

#include <cmath>

#include "models/registry.h"
#include "tests/model_step.h"
#include "tests/worst.h"

namespace tessera {
namespace {

constexpr int64_t kTotal = 10;

using Settings = std::vector<std::pair<std::string, std::string>>;

// Plain SGD at a constant rate, so that the way of a step is its gradient's.
struct SmallRun {
  RunConfig config;
  std::unique_ptr<Model> model;
  std::unique_ptr<TrainingSteps> steps;

  explicit SmallRun(const Settings& more) {
    apply_settings(config, {{"model.name", "vit_small_image_32"},
                            {"model.image_size", "8"},
                            {"model.dim", "12"},
                            {"model.depth", "2"},
                            {"model.heads", "2"},
                            {"model.drop_path", "0"},
                            {"optim.name", "sgd"},
                            {"optim.momentum", "0"},
                            {"optim.weight_decay", "0"},
                            {"optim.lr", "0.1"},
                            {"schedule.kind", "constant"},
                            {"train.threads", "1"}});
    apply_settings(config, more);
    config.schedule.lr = 0.1;
    model = make_model(config.model, 3);
    steps = std::make_unique<TrainingSteps>(config, *model, kTotal);
  }
  std::vector<float> weights() const { return model->parameters().flat().values<float>(); }
  StepResult take(int64_t step) {
    testing::SomeBatch some(config.model, 8);
    Batch batch;
    batch.inputs = std::move(some.images);
    batch.labels = std::move(some.labels);
    return steps->take(batch, step)->result;
  }
};

double length(const std::vector<float>& from, const std::vector<float>& to, int64_t count) {
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) squares += std::pow(double(to[size_t(i)]) - double(from[size_t(i)]), 2);
  return std::sqrt(squares);
}

TEST_CASE("the moving average begins with the first weights and takes those after every step") {
  SmallRun run(Settings{{"train.ema", "0.9"}});
  std::vector<float> expected = run.weights();
  for (int64_t step = 0; step < 3; ++step) {
    run.take(step);
    const std::vector<float> weights = run.weights();
    const auto keep = float((2 + double(step)) / (11 + double(step)));
    for (size_t i = 0; i < weights.size(); ++i) expected[i] = keep * expected[i] + (1 - keep) * weights[i];
  }
  const auto buffers = run.steps->buffers();
  REQUIRE(buffers.back().name == "ema");
  CHECK(apart(buffers.back().values->values<float>(), expected) < 1e-6);
  CHECK(apart(run.weights(), expected) > 1e-4);
}

TEST_CASE("with SAM the second gradient is the one that is bounded and taken, from where the weights were") {
  const Settings stem{
      {"model.stem.strides", "1,1"}, {"model.stem.channels", "6"}, {"model.stem.batch_norm", "true"}};
  auto sharp = stem;
  sharp.insert(sharp.end(), {{"optim.sam_rho", "0.5"}, {"train.clip", "0.01"}});
  SmallRun run(sharp), plain(stem);
  const int64_t learned = run.model->parameters().learned();
  const std::vector<float> before = run.weights();
  const StepResult first = plain.take(0), second = run.take(0);
  CHECK(second.loss == first.loss);
  CHECK(std::abs(second.gradient_norm / first.gradient_norm - 1) > 0.01);
  CHECK(length(before, run.weights(), learned) / (0.1 * 0.01) == doctest::Approx(1).epsilon(1e-4));
  // Running statistics are those of the first pass alone.
  const std::vector<float> after = run.weights(), once = plain.weights();
  CHECK(learned < int64_t(after.size()));
  CHECK(std::equal(after.begin() + learned, after.end(), once.begin() + learned));
  CHECK(!std::equal(after.begin() + learned, after.end(), before.begin() + learned));
}

TEST_CASE("the share rate rises over its part of the run, and averaging ends where it should") {
  const SmallRun run(
      {{"model.moe.blocks", "1"}, {"ewa.share_rate", "0.4"}, {"ewa.ramp", "0.5"}, {"ewa.until", "0.8"}});
  for (const auto& [step, rate] :
       {std::pair<int64_t, double>{0, 0}, {2, 0.16}, {5, 0.4}, {7, 0.4}, {8, 0}, {9, 0}})
    CHECK(run.steps->share_rate(step) == doctest::Approx(rate));
}

TEST_CASE("experts are averaged after the update, by the rate of its step") {
  const Settings experts{{"model.moe.blocks", "1"}, {"model.moe.experts", "2"}, {"ewa.schedule", "constant"}};
  auto averaged = experts, alone = experts;
  averaged.push_back({"ewa.share_rate", "0.5"});  // which makes two experts equal
  alone.push_back({"ewa.share_rate", "0"});
  SmallRun equal(averaged), free(alone);
  equal.take(0);
  free.take(0);
  CHECK(equal.steps->deviation() == 0);
  CHECK(free.steps->deviation() > 0.1);
  const std::vector<float> together = equal.weights(), single = free.weights();
  for (const auto& p : equal.model->parameters().parameters()) {
    if (p.experts < 2) continue;
    const auto at = size_t(p.offset), n = size_t(p.value.count() / 2);
    for (size_t i = 0; i < n; ++i)
      CHECK(together[at + i] == doctest::Approx((single[at + i] + single[at + n + i]) / 2).epsilon(1e-6));
  }
}

}  // namespace
}  // namespace tessera
