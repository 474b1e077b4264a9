// The CUDA back-end against the CPU's, on the first card: every case of every op, training steps of whole
// models, and runs of the program. Without a card each test says so in one line and checks nothing.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "cuda/devices.h"
#include "engine/tensor/memory.h"
#include "tests/process.h"
#include "tests/random_inputs.h"
#include "tests/tiny_run.h"
#include "tests/worst.h"
#include "train/config.h"
#include "train/replicas.h"

namespace tessera {
namespace {

constexpr Device kCard{Device::Kind::cuda, 0};

bool no_card() {
  std::string why = "this build has no CUDA";
  if (!cuda_devices(&why).empty()) return false;
  MESSAGE("skipped: there is no card: ", why);
  return true;
}

struct Run {
  Tensor y;
  std::vector<Tensor> grads;  // both on the host
};

// Forward and backward on a device, the gradient of the result being normal numbers.
Run run(const OpCase& c, const Inputs& inputs, const Device& device, DType dtype) {
  const Device::Scope there(device);
  Inputs leaves;
  for (const Tensor& input : inputs) leaves.push_back(input.to(dtype).to(device).require_grad());
  Tape tape;
  const Tape::Scope scope(&tape);
  Tensor y = c.run(leaves);
  Run result{y.to(Device()).detach(), {}};
  std::vector<double> slopes(size_t(y.count()));
  for (size_t i = 0; i < slopes.size(); ++i) slopes[i] = Draw{.seed = 8}.normal(i);
  const Tensor dy = Tensor::of(y.shape(), slopes).to(dtype);
  Tensor loss = Tensor::zeros({}, dtype);
  record("loss", {y}, loss, [dy, gy = y.gradient()](const Gradient&) {
    for_float("loss", dy.dtype(), [&]<class T>() { copy(gy.target<T>().data, dy.data<T>(), dy.count()); });
  });
  tape.backward(loss);
  for (const Tensor& leaf : leaves)
    result.grads.push_back(leaf.gradient().written() ? leaf.grad().to(Device()) : Tensor());
  return result;
}

double largest(const Tensor& x) {
  double most = 1e-4;  // what rounding alone leaves of a 0
  for (int64_t i = 0; i < x.count(); ++i) most = std::max(most, std::abs(x.at(i)));
  return most;
}

double difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  double most = 0;
  for (int64_t i = 0; i < a.count(); ++i) most = worst(most, std::abs(a.at(i) - b.at(i)));
  return most;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (!a || !b) return !a && !b;
  return std::memcmp(a.data<float>(), b.data<float>(), size_t(a.count()) * sizeof(float)) == 0;
}

// The vocabulary of the tests' twins, and whatever docs/gpu.md lists.
const std::set<std::string> kWithoutKernel{"permute_axes"};

TEST_CASE("cuda: every case of every op, in f32 and f64, and twice the same bits") {
  if (no_card()) return;
  for (const OpCase& c : op_cases())
    for (const std::string& shapes : c.shapes) {
      CAPTURE(c.op);
      CAPTURE(shapes);
      Inputs inputs = random_inputs(shapes);
      if (c.prepare) c.prepare(inputs);
      const Run exact = run(c, inputs, Device(), DType::f64);
      if (kWithoutKernel.count(c.op)) {
        CHECK_THROWS_WITH_AS(run(c, inputs, kCard, DType::f32), doctest::Contains("no CUDA kernel"), Error);
        continue;
      }
      // As between f32 and f64 on the CPU; all gradients of a case share a scale, since a small one may be
      // the difference of large ones.
      double unit = 1e-6;
      for (const Tensor& grad : exact.grads)
        if (grad) unit = std::max(unit, largest(grad));
      for (const DType dtype : {DType::f32, DType::f64}) {
        CAPTURE(dtype);
        const double tolerance = dtype == DType::f32 ? 2e-5 : 1e-12;
        const Run card = run(c, inputs, kCard, dtype);
        CHECK(difference(card.y, exact.y) <= tolerance * largest(exact.y));
        REQUIRE(card.grads.size() == exact.grads.size());
        for (size_t k = 0; k < exact.grads.size(); ++k) {
          REQUIRE(bool(card.grads[k]) == bool(exact.grads[k]));
          if (exact.grads[k]) CHECK(difference(card.grads[k], exact.grads[k]) <= 5 * tolerance * unit);
        }
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
      CHECK(difference(card.y, exact.y) <= 2e-5 * largest(exact.y));
      CHECK(difference(card.grads[0], exact.grads[0]) <= 1e-4 * largest(exact.grads[0]));
    }
}

ModelConfig small_model() {
  RunConfig config;
  apply_settings(config, {{"model.name", "vit_small_image_32"},
                          {"model.dim", "48"},
                          {"model.depth", "3"},
                          {"model.heads", "3"},
                          {"model.drop_path", "0.2"},
                          {"model.dropout", "0.1"},
                          {"model.moe.blocks", "every-2"},
                          {"model.moe.experts", "3"}});
  return config.model;
}

struct Step {
  StepResult result;
  std::vector<float> gradients, logits;
};

Step step_on(const Device& device, const std::vector<float>& images, const std::vector<int32_t>& labels) {
  const Device::Scope there(device);
  const auto model = make_model(small_model(), 5);
  Replicas replicas(*model, {.workers = 1});
  const BatchView batch{images, labels, int64_t(labels.size())};
  Step step;
  for (uint32_t i = 0; i < 3; ++i)  // recorded, and replayed from the arena's plan
    step.result = replicas.compute_gradients(batch, {.seed = 3, .step = 7}, 0.1);
  step.gradients = replicas.gradients().values<float>();
  step.logits.resize(labels.size() * size_t(model->config().classes));
  replicas.forward(batch, step.logits.data());
  return step;
}

TEST_CASE("cuda: a model's loss, gradients and logits, with experts, dropout and drop-path") {
  if (no_card()) return;
  const int64_t B = 23;
  const ModelConfig config = small_model();
  std::vector<float> images(size_t(B * config.channels * config.image_size * config.image_size));
  for (size_t i = 0; i < images.size(); ++i) images[i] = float(Draw{.seed = 2}.normal(i));
  std::vector<int32_t> labels;
  for (int64_t b = 0; b < B; ++b) labels.push_back(int32_t(b * 3 % config.classes));
  const Step host = step_on(Device(), images, labels), card = step_on(kCard, images, labels);
  CHECK(card.result.loss == doctest::Approx(host.result.loss).epsilon(1e-5));
  CHECK(card.result.gradient_norm == doctest::Approx(host.result.gradient_norm).epsilon(1e-4));
  CHECK(card.result.correct == host.result.correct);
  const auto apart = [](const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    double most = 0, unit = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      most = worst(most, std::abs(double(a[i]) - double(b[i])));
      unit = std::max(unit, std::abs(double(b[i])));
    }
    return most / unit;
  };
  CHECK(apart(card.logits, host.logits) <= 1e-4);
  CHECK(apart(card.gradients, host.gradients) <= 1e-3);
  const Step again = step_on(kCard, images, labels);
  CHECK(again.gradients == card.gradients);
  CHECK(again.logits == card.logits);
}

TEST_CASE("cuda: runs repeat and resume to the bit, and go on on the other device") {
  if (no_card() || no_program()) return;
  const TinySet set;
  const ScratchFolder runs;
  const auto start = [&](const std::string& name, std::vector<std::string> more) {
    more.insert(more.end(), {"--device", "cuda", "--set", "train.ema=0.9"});
    const Finished done = run_program(train_command(set, runs / name, more));
    INFO(done.err);
    REQUIRE(done.code == 0);
  };
  start("whole", {});
  start("again", {});
  start("parts", {"--max-steps", "17"});
  REQUIRE(run_program({"train", "--resume", runs / "parts", "--quiet"}).code == 0);
  for (const char* file : {"last.safetensors", "best.safetensors", "model.safetensors"}) {
    CHECK(Process::read(runs / "again/" + file) == Process::read(runs / "whole/" + file));
    CHECK(Process::read(runs / "parts/" + file) == Process::read(runs / "whole/" + file));
  }
  start("moved", {"--max-steps", "17"});
  CHECK(run_program({"train", "--resume", runs / "moved", "--device", "cpu", "--quiet"}).code == 0);
  CHECK(run_program({"eval", runs / "moved", "--device", "cuda"}).code == 0);
}

}  // namespace
}  // namespace tessera
