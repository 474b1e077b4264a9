// Every architecture trains on real images, Fashion-MNIST's.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "models/registry.h"
#include "tests/process.h"
#include "tests/scratch_folder.h"
#include "tests/small_models.h"
#include "train/trainer.h"

namespace tessera {
namespace {

constexpr const char* kFashionMnist = "/usr/share/datasets/fashion-mnist";

// With random partitions where the architecture has feed-forward layers, or its own mixture.
std::vector<ModelConfig> models_for_grey_28() {
  std::vector<ModelConfig> models = testing::small_models("every-2");
  for (ModelConfig& c : models) {
    c.image_size = 28;
    c.channels = 1;
    c.classes = 10;
    if (c.architecture != "t2t") c.patch = 7;
    c.dim = 24;
    if (c.architecture == "t2t") c.dim = 64, c.heads = 4;  // a quarter of it in its first layers
  }
  ModelConfig mobile = models[0];
  mobile.name = mobile.architecture = "mobile_vmoe";
  mobile.moe.router = MoeRouter::image;
  mobile.moe.blocks = "final-2";
  mobile.moe.superclasses = "random";
  ModelConfig token = models[0];
  token.name = "routed by token";
  token.moe.router = MoeRouter::token;
  ModelConfig vgg = model_by_name("rep_vgg_small_image_28");
  vgg.dim = 8;
  vgg.depths = "1,1";
  models.insert(models.end(), {mobile, token, vgg});
  return models;
}

TEST_CASE("a short run on Fashion-MNIST learns, whatever the architecture") {
  if (!std::filesystem::exists(kFashionMnist)) {
    MESSAGE("skipped: " << kFashionMnist << " is not installed (Debian's dataset-fashion-mnist)");
    return;
  }
  for (const ModelConfig& model : models_for_grey_28()) {
    CAPTURE(model.name);
    const ScratchFolder runs;
    RunConfig config;
    config.model = model;
    config.data.folder = kFashionMnist;
    config.data.limit = 320;
    config.data.test_limit = 200;
    const bool slow = model.architecture == "t2t";  // at guessing for its first fifty steps
    config.schedule.lr = slow ? 3e-3 : 5e-3;
    config.train.warmup_epochs = 0.2;
    config.train.batch = 32;
    config.train.epochs = slow ? 10 : 4;
    const RunResult result = train(config, runs / "run", Progress::quiet);
    std::vector<double> losses;  // of the epochs
    std::istringstream log(Process::read(runs / "run/log.jsonl"));
    for (std::string line; std::getline(log, line);)
      if (const auto json = nlohmann::json::parse(line); json["kind"] == "epoch")
        losses.push_back(json["train_loss"]);
    REQUIRE(double(losses.size()) == config.train.epochs);
    CAPTURE(losses[0]);
    CAPTURE(result.test.top1);
    CHECK(losses.back() < std::log(10.0) - 0.1);  // of guessing
  }
}

}  // namespace
}  // namespace tessera
