// Training: the step, however the batch is cut; signals, divergence, settings.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "engine/base/parallel.h"
#include "models/registry.h"
#include "models/vit.h"
#include "tests/tiny_run.h"
#include "tests/worst.h"
#include "train/config.h"
#include "train/replicas.h"
#include "train/signals.h"

namespace tessera {
namespace {

// A handler on a computing thread would overwrite what oneDNN keeps below its stack pointer.
TEST_CASE("no computing thread receives the signals that a run notes") {
  const auto blocked = [] {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    return sigismember(&mask, SIGINT) && sigismember(&mask, SIGTERM);
  };
  const auto blocking_threads = [&] {
    std::atomic<int> count = 0;
    parallel_for(thread_count(), 1, [&](int64_t, int64_t) { count += blocked(); });
    return count.load();
  };
  CHECK(blocking_threads() == 0);
  {
    const InterruptGuard guard;
    CHECK(blocking_threads() == thread_count());
    bool inherited = false;
    std::thread([&] { inherited = blocked(); }).join();
    CHECK(inherited);
    CHECK(guard.signal() == 0);
    kill(getpid(), SIGTERM);
    for (int i = 0; i < 2000 && guard.signal() == 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    CHECK(guard.signal() == SIGTERM);
    CHECK(blocking_threads() == thread_count());
  }
  CHECK(blocking_threads() == 0);
}

TEST_CASE("a loss that is not finite ends the run and names the module") {
  if (no_program()) return;
  const TinySet set;
  const ScratchFolder runs;
  const Finished run =
      run_program(train_command(set, runs / "run", {"--lr", "1e30", "--set", "schedule.warmup_lr=1e30"}));
  INFO(run.err);
  CHECK(run.code == 5);
  CHECK(run.err.find("the first module whose output is not finite is blocks.") != std::string::npos);
  CHECK(run.err.find("last checkpoint") != std::string::npos);
}

TEST_CASE("the best weights are those of the best evaluation, though the run goes on") {
  if (no_program()) return;
  const TinySet set;
  const ScratchFolder runs;
  // The rate rises until, times the decay, it is 1: then a step leaves nothing of the weights before it.
  const Finished run = run_program(
      train_command(set, runs / "run",
                    {"--lr", "0.05", "--set", "schedule.warmup_epochs=8", "--set", "schedule.warmup_lr=0.001",
                     "--set", "optim.weight_decay=20", "--set", "train.epochs=8", "--json"}));
  INFO(run.err);
  REQUIRE(run.code == 0);
  std::istringstream log(Process::read(runs / "run/log.jsonl"));
  double best = 0, last = 0;
  for (std::string line; std::getline(log, line);)
    if (const auto json = nlohmann::json::parse(line); json.contains("test_top1"))
      best = std::max(best, last = json["test_top1"]);
  CHECK(best > last);
  const auto top1 = [&](const char* file) {
    return nlohmann::json::parse(
        run_program({"eval", runs / (std::string("run/") + file), "--json"}).out)["top1"];
  };
  CHECK(top1("best.safetensors") == best);
  CHECK(top1("model.safetensors") == last);
}

TEST_CASE("ViT's recipe over DeiT's is ViT's alone") {
  RunConfig over, alone;
  for (const char* name : {"deit-imagenet", "vit-imagenet"})
    apply_toml(over, preset_by_name(name).toml, name);
  apply_toml(alone, preset_by_name("vit-imagenet").toml, "vit-imagenet");
  CHECK(to_toml(over) == to_toml(alone));
}

TEST_CASE("cutting a batch over workers and micro-batches changes a step only by rounding") {
  ModelConfig config = model_by_name("vit_small_image_28");
  config.image_size = 8;
  config.dim = 16;
  config.depth = 2;
  config.heads = 2;
  config.dropout = 0.2;
  config.drop_path = 0.2;
  config.moe.blocks = "every-2";
  std::vector<float> images(13 * 64);
  std::vector<int32_t> labels(13);
  for (size_t i = 0; i < images.size(); ++i) images[i] = float(Draw{.seed = 2}.normal(i));
  for (size_t i = 0; i < labels.size(); ++i) labels[i] = int32_t(i % 10);
  const BatchView batch{images, labels, 13};
  const Pass pass{.training = true, .seed = 5, .step = 3};
  Vit model(config, 1);
  Replicas reference(model, {.workers = 1, .micro_batch = 13});
  const StepResult whole = reference.compute_gradients(batch, pass, 0.1);
  const Tensor gradient = reference.gradients().clone();
  CHECK(whole.gradient_norm > 0.1);
  for (const int workers : {1, 2, 3})
    for (const int64_t micro : {1, 3, 5}) {
      Replicas cut(model, {.workers = workers, .micro_batch = micro});
      for (int repeat = 0; repeat < 3; ++repeat) {  // recorded, then replayed by the arena
        const StepResult result = cut.compute_gradients(batch, pass, 0.1);
        CHECK(std::abs(result.loss - whole.loss) < 1e-5);
        CHECK(result.correct == whole.correct);
        CHECK(difference(cut.gradients(), gradient) < 1e-5 * whole.gradient_norm);
      }
    }
}

TEST_CASE("how many images a replica takes follows the tokens of all blocks") {
  const auto images = [](const char* name) {
    const auto model = make_model(model_by_name(name), std::nullopt);
    return Replicas(*model, {}).micro_batch();
  };
  CHECK(images("vit_small_image_32") == 8);    // 65 tokens
  CHECK(images("swin_small_image_32") == 6);   // 2 blocks of 256, 6 of 64, 4 of 16: 80
  CHECK(images("pit_small_image_32") == 6);    // with a class token
  CHECK(images("vit_tiny_patch16_224") == 2);  // 197
}

// A tiny ViT and a batch for it.
struct TinyStep {
  std::vector<float> images = std::vector<float>(12 * 64);
  std::vector<int32_t> labels = std::vector<int32_t>(12);
  ModelConfig config = model_by_name("vit_small_image_28");

  TinyStep() {
    config.image_size = 8;
    config.dim = 16;
    config.depth = 2;
    config.heads = 2;
    for (size_t i = 0; i < images.size(); ++i) images[i] = float(Draw{.seed = 2}.normal(i));
    for (size_t i = 0; i < labels.size(); ++i) labels[i] = int32_t(i % 10);
  }
  BatchView batch() const { return {images, labels, 12}; }
};

TEST_CASE("soft targets of one class each are that class's labels, and others are not") {
  const TinyStep tiny;
  Vit model(tiny.config, 1);
  Replicas replicas(model, {.workers = 2, .micro_batch = 5});
  const Pass pass{.training = true};
  const StepResult hard = replicas.compute_gradients(tiny.batch(), pass, 0.1);
  const Tensor gradient = replicas.gradients().clone();
  std::vector<float> soft(12 * 10);
  for (size_t b = 0; b < 12; ++b) soft[b * 10 + size_t(tiny.labels[b])] = 1;
  BatchView batch = tiny.batch();
  batch.soft_targets = soft;
  CHECK(replicas.compute_gradients(batch, pass, 0.1).loss == doctest::Approx(hard.loss).epsilon(1e-6));
  CHECK(difference(replicas.gradients(), gradient) < 1e-6);
  soft[0] = 0.5f;
  soft[7] = 0.5f;
  CHECK(std::abs(replicas.compute_gradients(batch, pass, 0.1).loss - hard.loss) > 1e-3);
}

// Knows only how large its pieces are: one weight, and buffers that count what it saw.
class WholeBatchModel : public Model {
 public:
  explicit WholeBatchModel(const ModelConfig& config) : Model(config, DType::f32) {
    const Scope scope(parameters());
    seen_ = (scope / "seen").buffer({1}, Init::zeros());
    weight_ = (scope / "weight").weight({10, 64}, Init::normal(0.1));
    parameters().allocate(1);
  }
  Tensor forward(const Tensor& images, const Pass& pass) const override {
    const int64_t B = images.size(0);
    if (pass.training && pass.update_statistics) {
      Tensor seen = seen_;
      seen.mutable_data<float>()[0] += 1;
    }
    pass.add_loss(scale(mean(mul(weight_, weight_)), 0.5));
    pass.note("first", {double(pass.first_sample), 1});
    return linear(images.reshape({B, 64}), weight_);
  }
  bool whole_batch() const override { return true; }
  double seen() const { return seen_.at(0); }

 private:
  Tensor seen_, weight_;
};

TEST_CASE("a model that wants whole batches gets them in parts; auxiliary losses and notes are means") {
  const TinyStep tiny;
  WholeBatchModel model(tiny.config);
  CHECK(model.parameters().parameter_count() == 640);
  CHECK(model.parameters().learned() == 640);
  CHECK(model.parameters().count() > 640);
  const auto* seen = model.parameters().find("seen");
  CHECK((seen && seen->offset == 640));
  double loss = 0;
  for (const int64_t parts : {1, 3}) {
    Replicas replicas(model, {.workers = 2, .micro_batch = 1, .parts = parts});
    const double before = model.seen();
    const StepResult result = replicas.compute_gradients(tiny.batch(), {.training = true}, 0);
    CHECK(model.seen() - before == double(parts));
    CHECK(replicas.gradients().count() == 640);
    const Tensor weight = model.parameters().find("weight")->value;
    CHECK(result.auxiliary == doctest::Approx(0.5 * mean(mul(weight, weight)).item()));
    CHECK(result.notes.at("first")[0] == doctest::Approx(parts == 1 ? 0 : 4));
    CHECK(result.notes.at("first")[1] == doctest::Approx(1));
    if (parts == 1) loss = result.loss;
    CHECK(result.loss == doctest::Approx(loss));
    replicas.compute_gradients(tiny.batch(), {.training = true, .update_statistics = false}, 0);
    CHECK(model.seen() - before == double(parts));
  }
}

TEST_CASE("the auxiliary loss adds its gradient") {
  const TinyStep tiny;
  WholeBatchModel model(tiny.config);
  Replicas replicas(model, {});
  replicas.compute_gradients(tiny.batch(), {.training = true}, 0);
  const Tensor gradient = replicas.gradients().clone();
  // The cross-entropy's own, by hand: dW = (softmax(x W^T) - onehot)^T x / B.
  const Tensor x = Tensor::of({12, 64}, tiny.images), weight = model.parameters().find("weight")->value;
  const Tensor p = softmax(linear(x, weight));
  double most = 0;
  for (int64_t k = 0; k < 10; ++k)
    for (int64_t j = 0; j < 64; ++j) {
      double sum = weight.at(k * 64 + j) * 12 / 640;
      for (int64_t b = 0; b < 12; ++b)
        sum += (p.at(b * 10 + k) - (tiny.labels[size_t(b)] == k)) * x.at(b * 64 + j);
      most = worst(most, std::abs(gradient.at(k * 64 + j) - sum / 12));
    }
  CHECK(most < 1e-6);
}

TEST_CASE("layers' learning rates fall from the head down") {
  const TinyStep tiny;
  const Vit model(tiny.config, 1);
  const auto& parameters = model.parameters().parameters();
  const std::vector<int64_t> depths = parameter_depths(model);
  const auto rates = layer_rates(model, 0.5);
  CHECK(rates.back().end == model.parameters().learned());
  const auto factor_at = [&](int64_t offset) {
    for (const RateRange& range : rates)
      if (offset < range.end) return range.factor;
    return -1.0;
  };
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].name;
    const int64_t depth = name.starts_with("blocks.0.")                           ? 1
                          : name.starts_with("blocks.1.")                         ? 2
                          : name.starts_with("head") || name.starts_with("norm.") ? 3
                                                                                  : 0;
    INFO(name);
    CHECK(depths[i] == depth);
    CHECK(factor_at(parameters[i].offset) == std::pow(0.5, 3 - depth));
    CHECK(factor_at(parameters[i].offset + parameters[i].value.count() - 1) == std::pow(0.5, 3 - depth));
  }
}

TEST_CASE("blocks are told apart by their names, whatever stands around them") {
  for (const char* name : {"mobile_vmoe_small_image_32", "point_transformer_small", "swin_small_image_32"}) {
    INFO(name);
    const ModelConfig config = model_by_name(name);
    const auto model = make_model(config, std::nullopt);
    const std::vector<int64_t> depths = parameter_depths(*model);
    CHECK(depths.front() == 0);
    CHECK(depths.back() == total_depth(config) + 1);
    CHECK(std::is_sorted(depths.begin(), depths.end()));
  }
  ModelConfig vgg = model_by_name("rep_vgg_small_image_32");
  CHECK_THROWS_AS(layer_rates(*make_model(vgg, std::nullopt), 0.5), Error);
}

TEST_CASE("another source of super-classes, or another number of experts, has their list found anew") {
  const char* former = "[model.moe]\nexperts = 4\nsuperclasses = \"random\"\ngroups = \"0,1,2,3\"\n";
  const auto groups_with = [&](const std::vector<std::pair<std::string, std::string>>& flags) {
    RunConfig config;
    apply_toml(config, former, "run.toml");
    apply_settings(config, flags);
    return config.model.moe.groups;
  };
  CHECK(groups_with({}) == "0,1,2,3");
  CHECK(groups_with({{"optim.lr", "1"}, {"model.moe.superclasses", "random"}}) == "0,1,2,3");
  CHECK(groups_with({{"model.moe.superclasses", "coarse"}}) == "");
  CHECK(groups_with({{"model.moe.superclasses", "none"}}) == "");
  CHECK(groups_with({{"model.moe.experts", "3"}}) == "");
  CHECK(groups_with({{"model.moe.groups", "1,0"}, {"model.moe.superclasses", "coarse"}}) == "1,0");
}

TEST_CASE("settings: precedence, places of errors, the nearest key") {
  RunConfig config;
  apply_toml(config, "[model]\ndim = 64\nname = \"vit_tiny_patch16_224\"\n[optim]\nlr = 1\n", "run.toml");
  CHECK(config.model.dim == 64);
  CHECK(config.model.patch == 16);
  CHECK(config.schedule.lr == 1);
  apply_settings(config, {{"optim.lr", "0.5"}, {"model.moe.partition", "per-image"}});
  CHECK(config.schedule.lr == 0.5);
  CHECK(config.model.moe.partition == PartitionScope::per_image);

  RunConfig copy;
  apply_toml(copy, to_toml(config), "copy.toml");
  CHECK(to_toml(copy) == to_toml(config));

  const auto message = [](const std::string& toml) -> std::string {
    RunConfig c;
    try {
      apply_toml(c, toml, "run.toml");
      validate(c);
    } catch (const Error& error) {
      CHECK(error.code() == Exit::usage);
      return error.what();
    }
    return "";
  };
  CHECK(message("[optim]\nlearning_rate = 1\n").find("run.toml:2:") != std::string::npos);
  CHECK(message("[train]\nepoch = 1\n").find("did you mean 'train.epochs'") != std::string::npos);
  CHECK(message("[train]\nepochs = \"many\"\n").find("not a number") != std::string::npos);
  CHECK(message("[train\n").find("run.toml:1:") != std::string::npos);
  CHECK(message("[train]\nepochs = 1\nepochs = 2\n").find("run.toml:3:") != std::string::npos);
  CHECK(message("[model]\nheads = 5\n").find("does not divide dim") != std::string::npos);
  CHECK(message("[model]\nname = \"vit_tiny\"\n").find("vit_tiny_patch16_224") != std::string::npos);
  CHECK(message("[ewa]\nshare_rate = 0.9\n[model.moe]\nblocks = \"last-2\"\n").find("(E-1)/E") !=
        std::string::npos);
  CHECK(message("[model.moe]\nblocks = \"1,9\"\n").find("block 9 does not exist") != std::string::npos);
  CHECK(message("[model]\nname = \"point_transformer_small\"\n[data]\nflip = true\n")
            .find("data.flip: not for point clouds") != std::string::npos);
  CHECK(message("[data]\ncloud.shift = 0.2\n").find("data.cloud.shift: not for images") != std::string::npos);
  CHECK(message("[data]\nlimit = [1]\n").find("lists") != std::string::npos);
  CHECK(message("[=]\n").find("run.toml:1:2: ") == 0);
  CHECK(message("x = 1 \u041e\n").find("run.toml:1:7: ") == 0);
  CHECK(message("[train]\nclip = inf\n").find("not a finite number") != std::string::npos);
  std::string parts;
  for (int i = 0; i < 1 << 20; ++i) parts += "a.";
  CHECK(message(parts + "a = 1\n").find("run.toml:1: more than 256 dots in a line") != std::string::npos);
  CHECK(message("\n[" + parts.substr(0, 400) + "a]\nx = 1\n").find("a key of 257 characters") !=
        std::string::npos);
}

}  // namespace
}  // namespace tessera
