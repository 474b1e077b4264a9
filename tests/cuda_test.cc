// The CUDA back-end against the CPU's, on the first card: every case of every op, training steps of whole
// models, and runs of the program. Without a card each test says so in one line and checks nothing.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "engine/io/safetensors.h"
#include "models/registry.h"
#include "tests/card.h"
#include "tests/model_step.h"
#include "tests/op_run.h"
#include "tests/process.h"
#include "tests/random_inputs.h"
#include "tests/small_models.h"
#include "tests/tiny_run.h"
#include "tests/worst.h"
#include "train/config.h"
#include "train/replicas.h"
#include "train/steps.h"

namespace tessera {
namespace {

// The vocabulary of the tests' twins, and whatever docs/gpu.md lists.
const std::set<std::string> kWithoutKernel{"permute_axes"};

TEST_CASE("cuda: every case of every op, in f32 and f64, and twice the same bits") {
  if (no_card()) return;
  for (const OpCase& c : op_cases())
    for (const char* shapes : c.shapes) {
      CAPTURE(c.op);
      CAPTURE(shapes);
      Inputs inputs = random_inputs(shapes);
      if (c.prepare) c.prepare(inputs);
      const Run exact = run(c, inputs, Device(), DType::f64);
      if (kWithoutKernel.count(c.op)) {
        CHECK_THROWS_WITH_AS(run(c, inputs, kCard, DType::f32), doctest::Contains("no CUDA kernel"), Error);
        continue;
      }
      const double unit = magnitude_of(exact.grads);  // tolerances as between f32 and f64 on the CPU
      for (const DType dtype : {DType::f32, DType::f64}) {
        CAPTURE(dtype);
        const double tolerance = dtype == DType::f32 ? 2e-5 : 1e-12;
        const Run card = run(c, inputs, kCard, dtype);
        CHECK(difference(card.y, exact.y) <= tolerance * magnitude(exact.y));
        REQUIRE(card.grads.size() == exact.grads.size());
        for (size_t k = 0; k < exact.grads.size(); ++k) {
          REQUIRE(bool(card.grads[k]) == bool(exact.grads[k]));
          if (exact.grads[k]) CHECK(difference(card.grads[k], exact.grads[k]) <= 5 * tolerance * unit);
        }
        const Run overwritten = run(c, inputs, kCard, dtype, Before::nan);
        for (size_t k = 0; k < exact.grads.size(); ++k)
          if (exact.grads[k]) CHECK(difference(overwritten.grads[k], card.grads[k]) == 0);
        const Run added = run(c, inputs, kCard, dtype, Before::ones);
        CHECK(worst_added(added, exact) <= 5 * tolerance * std::max(1.0, unit));
        if (dtype != DType::f32) continue;
        const Run again = run(c, inputs, kCard, dtype);
        CHECK(same_bits(card.y, again.y));
        for (size_t k = 0; k < card.grads.size(); ++k) CHECK(same_bits(card.grads[k], again.grads[k]));
      }
    }
}

TEST_CASE("cuda: attention of the head sizes and lengths that models have") {
  if (no_card()) return;
  const auto found =
      std::find_if(op_cases().begin(), op_cases().end(), [](const OpCase& c) { return c.op == "attention"; });
  REQUIRE(found != op_cases().end());
  for (const int64_t D : {16, 32, 64})
    for (const int64_t N : {17, 32, 33, 65, 128, 129, 197, 577}) {
      CAPTURE(D);
      CAPTURE(N);
      const Inputs inputs = random_inputs(text("2x", N, "x3x3x", D));
      const Run exact = run(*found, inputs, Device(), DType::f64);
      const Run card = run(*found, inputs, kCard, DType::f32);
      CHECK(difference(card.y, exact.y) <= 2e-5 * magnitude(exact.y));
      CHECK(difference(card.grads[0], exact.grads[0]) <= 1e-4 * magnitude(exact.grads[0]));
      const Run half = run(*found, inputs, kCard, DType::bf16);
      const Run exact_half = run(*found, rounded(inputs), Device(), DType::f64);
      CHECK(difference(half.y, exact_half.y) <= kRoundedResult * magnitude(exact_half.y));
      CHECK(difference(half.grads[0], exact_half.grads[0]) <=
            kRoundedGradient * magnitude(exact_half.grads[0]));
    }
}

TEST_CASE("cuda: every op that takes bf16, in it, and twice the same bits") {
  if (no_card()) return;
  for (const OpCase& c : op_cases())
    for (const char* shapes : c.shapes) {
      if (!bf16_ops().count(c.op)) continue;
      CAPTURE(c.op);
      CAPTURE(shapes);
      const Inputs inputs = rounded(random_inputs(shapes));
      const Run exact = run(c, inputs, Device(), DType::f64), card = run(c, inputs, kCard, DType::bf16);
      CHECK(difference(card.y, exact.y) <= kRoundedResult * magnitude(exact.y));
      CHECK(worst_added(run(c, inputs, kCard, DType::bf16, Before::ones), exact) <=
            kRoundedGradient * std::max(1.0, magnitude_of(exact.grads)));
      const Run again = run(c, inputs, kCard, DType::bf16);
      CHECK(same_bits(card.y, again.y));
      for (size_t k = 0; k < exact.grads.size(); ++k) {
        REQUIRE(bool(card.grads[k]) == bool(exact.grads[k]));
        if (exact.grads[k])
          CHECK(difference(card.grads[k], exact.grads[k]) <= kRoundedGradient * magnitude_of(exact.grads));
        CHECK(same_bits(card.grads[k], again.grads[k]));
      }
    }
}

// One of each architecture, with convolutions and batch norms, windows, and points.
std::vector<ModelConfig> all_models() {
  std::vector<ModelConfig> models = testing::small_models();
  models.push_back(models[0]);
  models.back().name = "conv_stem";
  models.back().stem = {.strides = "2,1", .channels = 5, .kernel = 3, .batch_norm = true, .relu = true};
  ModelConfig rep_vgg = model_by_name("rep_vgg_small_image_32");
  rep_vgg.image_size = 8;
  rep_vgg.dim = 6;
  rep_vgg.classes = 5;
  models.push_back(rep_vgg);
  ModelConfig points = model_by_name("point_transformer");
  points.depth = 2;
  points.dim = 24;
  points.heads = 3;
  points.classes = 5;
  points.points.count = 64;
  points.points.groups = 8;
  points.points.group_size = 6;
  models.push_back(points);
  for (ModelConfig& c : models) c.drop_path = 0.2;
  return models;
}

testing::ModelStep step_on(const Device& device, const ModelConfig& config, const testing::SomeBatch& batch,
                           const std::string& dtype = "f32") {
  const Device::Scope there(device);
  return {*make_model(config, 5), batch, 3, dtype};  // recorded, and replayed from the arena's plan
}

void same_on_both(const ModelConfig& config) {
  CAPTURE(config.name);
  const testing::SomeBatch batch(config, 23);
  const auto host = step_on(Device(), config, batch), card = step_on(kCard, config, batch);
  CHECK(card.result.loss == doctest::Approx(host.result.loss).epsilon(1e-5));
  CHECK(card.result.gradient_norm == doctest::Approx(host.result.gradient_norm).epsilon(1e-4));
  CHECK(card.result.correct == host.result.correct);
  CHECK(apart(card.logits, host.logits) <= 1e-4);
  CHECK(apart(card.gradients, host.gradients) <= 1e-3);
  const auto again = step_on(kCard, config, batch);
  CHECK(again.gradients == card.gradients);
  CHECK(again.logits == card.logits);
}

TEST_CASE("cuda: a model's loss, gradients and logits, with experts, dropout and drop-path") {
  if (no_card()) return;
  same_on_both(testing::drawing_model());
}

TEST_CASE("cuda: every architecture's loss, gradients and logits") {
  if (no_card()) return;
  for (const ModelConfig& config : all_models()) same_on_both(config);
  for (const ModelConfig& config : testing::routed_models()) same_on_both(config);
}

TEST_CASE("cuda: tf32 and bf16 are near f32") {
  if (no_card()) return;
  const ModelConfig config = testing::drawing_model();
  const testing::SomeBatch batch(config, 23);
  const auto f32 = step_on(kCard, config, batch), tf32 = step_on(kCard, config, batch, "tf32"),
             bf16 = step_on(kCard, config, batch, "bf16"), again = step_on(kCard, config, batch, "bf16");
  CHECK(tf32.result.loss == doctest::Approx(f32.result.loss).epsilon(1e-2));  // 10 bits of mantissa
  CHECK(tf32.result.gradient_norm == doctest::Approx(f32.result.gradient_norm).epsilon(3e-2));
  testing::near_in_bf16(bf16, f32);
  CHECK(again.gradients == bf16.gradients);
  CHECK(again.logits == bf16.logits);
}

// What some steps leave, each with a batch of its own and every third with soft targets.
struct Trained {
  std::vector<float> weights;
  std::vector<double> losses, norms;
  int graphs = 0;  // steps that were one
};

// `graphs`: the steps that are to be one, of 12 all but two of either kind.
Trained train_on_card(RunConfig config, bool graph, int graphs = 8) {
  const Device::Scope there(kCard);
  config.train.batch = 12;
  config.train.graph = graph;
  config.train.ema = 0.9;
  config.schedule.kind = ScheduleConfig::Kind::constant;
  const auto model = make_model(config.model, 5);
  TrainingSteps steps(config, *model, 100);
  Trained trained;
  const auto keep = [&](const std::optional<TrainingSteps::Done>& done) {
    if (!done) return;
    trained.losses.push_back(done->result.loss);
    trained.norms.push_back(done->result.gradient_norm);
  };
  for (int64_t step = 0; step < 12; ++step) {
    const testing::SomeBatch some(config.model, config.train.step_images());
    Batch batch;
    batch.inputs = some.images;
    for (float& value : batch.inputs) value *= float(1 + step % 4);
    batch.labels = some.labels;
    if (step % 3 == 0) {
      const size_t K = size_t(config.model.classes);
      batch.soft_targets.resize(batch.labels.size() * K);
      for (size_t b = 0; b < batch.labels.size(); ++b)
        batch.soft_targets[b * K + size_t(batch.labels[b])] = batch.soft_targets[b * K] = 0.5f;
    }
    keep(steps.take(batch, step));
    trained.graphs += steps.is_graph();
    if (step == 6) keep(steps.settle());
  }
  keep(steps.settle());
  INFO(steps.why_no_graph());
  CHECK(trained.graphs == (graph ? graphs : 0));
  trained.weights = model->parameters().flat().values<float>();
  return trained;
}

TEST_CASE("cuda: a step as a graph has the bits of its kernels one by one") {
  if (no_card()) return;
  std::vector<RunConfig> configs(5);
  for (RunConfig& config : configs) config.model = testing::drawing_model();
  configs[1].sam_rho = 0.05;
  configs[1].layer_decay = 0.7;
  configs[2].optim.name = "sgd";
  configs[2].train.clip = 0.1;
  configs[2].model.moe.partition = PartitionScope::replica;
  configs[3].train.accumulate = 2;
  configs[3].model.moe.partition = PartitionScope::per_image;
  configs[4].train.dtype = "bf16";
  for (const ModelConfig& model : all_models()) configs.emplace_back().model = model;
  for (const RunConfig& config : configs) {
    CAPTURE(config.model.name);
    const Trained graph = train_on_card(config, true), eager = train_on_card(config, false);
    CHECK(graph.losses.size() == 12);
    CHECK(graph.losses == eager.losses);
    CHECK(graph.norms == eager.norms);
    CHECK(graph.weights == eager.weights);
  }
}

TEST_CASE("cuda: a step whose routes the host finds is no graph, and trains") {
  if (no_card()) return;
  for (const ModelConfig& model : testing::routed_models()) {
    RunConfig config;
    config.model = model;
    const Trained wanted = train_on_card(config, true, 0), eager = train_on_card(config, false);
    CHECK(wanted.losses == eager.losses);
    CHECK(wanted.weights == eager.weights);
  }
}

TEST_CASE("cuda: runs repeat and resume to the bit, and go on on the other device") {
  if (no_card() || no_program()) return;
  for (const char* dtype : {"f32", "bf16"}) {
    CAPTURE(dtype);
    const TinySet set;
    const ScratchFolder runs;
    const auto start = [&](const std::string& name, std::vector<std::string> more) {
      more.insert(more.end(), {"--device", "cuda", "--dtype", dtype, "--set", "train.ema=0.9", "--set",
                               "train.clip=0.5", "--set", "train.checkpoint_every=0"});
      const Finished done = run_program(train_command(set, runs / name, more));
      INFO(done.err);
      REQUIRE(done.code == 0);
    };
    start("whole", {});
    start("again", {"--no-graph"});
    start("parts", {"--max-steps", "17"});
    REQUIRE(run_program({"train", "--resume", runs / "parts", "--quiet"}).code == 0);
    for (const char* file : {"last.safetensors", "best.safetensors", "model.safetensors"}) {
      CHECK(Process::read(runs / "again/" + file) == Process::read(runs / "whole/" + file));
      CHECK(Process::read(runs / "parts/" + file) == Process::read(runs / "whole/" + file));
    }
    start("moved", {"--max-steps", "17"});
    CHECK(run_program({"train", "--resume", runs / "moved", "--device", "cpu", "--quiet"}).code == 0);
    CHECK(run_program({"eval", runs / "moved", "--device", "cuda"}).code == 0);
    REQUIRE(run_program(train_command(set, runs / "host", {"--dtype", dtype, "--max-steps", "17"})).code ==
            0);
    CHECK(run_program({"train", "--resume", runs / "host", "--device", "cuda", "--quiet"}).code == 0);
  }
}

TEST_CASE("cuda: a loss that is not finite ends the run a step later and is not saved") {
  if (no_card() || no_program()) return;
  const TinySet set;
  const ScratchFolder runs;
  const Finished run = run_program(train_command(
      set, runs / "run", {"--device", "cuda", "--lr", "1e30", "--set", "schedule.warmup_lr=1e30"}));
  INFO(run.err);
  CHECK(run.code == 5);
  // Only what was written before the first step is there, from which all numbers are finite.
  const std::string last = (runs / "run") + "/last.safetensors";
  REQUIRE(std::filesystem::exists(last));
  const SafetensorsFile checkpoint(last);
  for (const TensorEntry& entry : checkpoint.entries()) {
    std::vector<double> values(size_t(entry.count()));
    checkpoint.read_f64(entry, values);
    CHECK(std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); }));
  }
  CHECK(run.err.find("the first module whose output is not finite is blocks.") != std::string::npos);
}

}  // namespace
}  // namespace tessera
