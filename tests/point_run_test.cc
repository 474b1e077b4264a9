// Point clouds through the program: trained, stopped and gone on with, fused, and voted on.
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/base/rng.h"
#include "engine/io/atomic_file.h"
#include "tests/npy_files.h"
#include "tests/process.h"

namespace tessera {
namespace {

// Clouds of 24 points whose class tells along which axis they are long.
struct CloudSet {
  testing::TempFolder folder;

  CloudSet() {
    for (const auto& [split, count] : {std::pair{"train", 96}, std::pair{"test", 24}}) {
      std::vector<float> points;
      std::vector<uint8_t> labels;
      const Draw draw{.seed = 3};
      for (int i = 0; i < count; ++i) {
        labels.push_back(uint8_t(i % 3));
        for (int j = 0; j < 72; ++j)
          points.push_back(float(draw.normal(uint64_t(i * 72 + j)) * (j % 3 == i % 3 ? 1 : 0.1)));
      }
      const std::string name = split, n = std::to_string(count);
      folder.write(name + "_points.npy", testing::npy_file(testing::npy_dict("<f4", "(" + n + ", 24, 3)"),
                                                           testing::bytes_of(points)));
      folder.write(name + "_labels.npy", testing::npy_file(testing::npy_dict("|u1", "(" + n + ",)"), labels));
    }
    folder.write("classes.txt", {'x', '\n', 'y', '\n', 'z', '\n'});
  }
};

std::vector<std::string> train_command(const CloudSet& set, const std::string& out) {
  std::vector<std::string> words{
      "train", "--model", "point_transformer_small", "--data", set.folder.path(), "--out", out, "--quiet"};
  for (const char* setting :
       {"model.classes=3", "model.points.count=16", "model.points.groups=5", "model.points.group_size=4",
        "model.points.width=16", "model.dim=16", "model.depth=2", "model.heads=2", "model.moe.blocks=every-2",
        "model.moe.experts=3", "data.cloud.scale=1.5", "data.cloud.shift=0.2", "train.batch=16",
        "train.epochs=12", "train.threads=2", "train.checkpoint_every=1", "optim.lr=3e-3"}) {
    words.push_back("--set");
    words.push_back(setting);
  }
  return words;
}

TEST_CASE("a run on point clouds learns, goes on to the bit, fuses and takes votes") {
  if (no_program()) return;
  const CloudSet set;
  const ScratchFolder runs;
  const Finished whole = run_program(train_command(set, runs / "whole"));
  INFO(whole.err);
  REQUIRE(whole.code == 0);
  std::vector<std::string> part = train_command(set, runs / "parts");
  part.insert(part.end(), {"--max-steps", "9"});
  REQUIRE(run_program(part).code == 0);
  REQUIRE(run_program({"train", "--resume", runs / "parts", "--quiet"}).code == 0);
  const std::string model = runs / "whole/model.safetensors";
  CHECK(Process::read(runs / "parts/model.safetensors") == Process::read(model));
  CHECK(Process::read(model).find("encoder.first_conv.1.running_var") != std::string::npos);

  const std::string fused = runs / "fused.safetensors";
  const Finished fuse = run_program({"fuse", model, "-o", fused});
  INFO(fuse.err);
  CHECK(fuse.code == 0);
  const auto eval = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words{"eval", fused, "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = run_program(words);
    INFO(done.err);
    REQUIRE(done.code == 0);
    const auto json = nlohmann::json::parse(done.out);
    return std::pair{json["top1"].get<double>(), json["loss"].get<double>()};
  };
  const auto plain = eval({}), votes = eval({"--votes", "5"}), again = eval({"--votes", "5", "--batch", "7"});
  CHECK(plain.first > 0.6);  // of three classes
  CHECK(votes.first > 0.6);
  CHECK(votes.second != plain.second);
  CHECK(votes.second == doctest::Approx(again.second).epsilon(1e-5));
  CHECK(eval({"--votes", "5", "--seed", "1"}).second != votes.second);
  CHECK(std::abs(eval({"--votes", "6"}).second - votes.second) > 1e-5);
  CHECK(run_program({"predict", fused, "--index", "0", "1"}).code == 0);
  CHECK(run_program({"predict", fused, "picture.png"}).code == 2);
}

TEST_CASE("a recipe of point clouds has votes in its table, of the fused model") {
  if (no_program()) return;
  const CloudSet set;
  const ScratchFolder runs;
  const std::string recipe = R"(
title = "clouds"
votes = 5
[run.model]
name = "point_transformer_small"
classes = 3
dim = 16
depth = 2
heads = 2
points = { count = 16, groups = 5, group_size = 4, width = 16 }
moe = { blocks = "every-2", experts = 3 }
[run.data]
name = "point-clouds"
cloud = { scale = 1.5, shift = 0.2 }
[run.train]
batch = 16
epochs = 10
seed = 3
[run.optim]
lr = 3e-3
[[arm]]
name = "mixture"
fuse = true
)";
  write_file_atomically(runs / "r.toml", recipe);
  const Finished table = run_program({"reproduce", runs / "r.toml", "--data", set.folder.path(), "--seeds",
                                      "1", "--out", runs / "out", "--json", "--quiet"});
  INFO(table.err);
  REQUIRE(table.code == 0);
  const auto run = nlohmann::json::parse(table.out)["arms"][0]["runs"][0];
  CHECK(Process::read(runs / "out/r-tiny/table.md").find("| by 5 votes |") != std::string::npos);

  const std::string fused = runs / "fused.safetensors";
  REQUIRE(run_program({"fuse", runs / "out/r-tiny/mixture-seed0/model.safetensors", "-o", fused}).code == 0);
  const auto eval = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words{"eval", fused, "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return nlohmann::json::parse(run_program(words).out)["top1"];
  };
  CHECK(run["top1"] == eval({}));
  CHECK(run["voted_top1"] == eval({"--votes", "5", "--seed", "3"}));
}

}  // namespace
}  // namespace tessera
