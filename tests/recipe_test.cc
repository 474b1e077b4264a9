// Recipes: those of the program, their format, and the runs that they make.
#include <doctest/doctest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "data/dataset.h"
#include "engine/io/atomic_file.h"
#include "tests/data_files.h"
#include "tests/messages.h"
#include "tests/process.h"
#include "train/recipe.h"

namespace tessera {
namespace {

constexpr const char* kHead = R"(
title = "a test"
[run.model]
name = "vit_small_image_28"
dim = 16
depth = 2
heads = 2
[run.train]
batch = 16
epochs = 1
[tiny.train]
epochs = 2
)";

std::string recipe_error(const std::string& toml) {
  return testing::error_of(Exit::usage, [&] { parse_recipe(toml, "r"); }).message;
}

TEST_CASE("every recipe of the program has a baseline and something beside it, at both scales") {
  std::set<std::string> names;
  for (const Recipe& recipe : recipes()) {
    CAPTURE(recipe.name);
    CHECK(names.insert(recipe.name).second);
    CHECK(recipe.arms.size() > 1);
    CHECK(!recipe.title.empty());
    CHECK(!recipe.paper.empty());
    CHECK(!recipe.notes.empty());
    CHECK(!recipe.measured.empty());
    for (const Scale scale : {Scale::tiny, Scale::full})
      for (const RecipeArm& arm : arms_at(recipe, scale)) {
        CAPTURE(arm.name);
        CHECK_NOTHROW(normalization(config_of(recipe, arm, scale).data.name));  // a set that there is
      }
  }
  CHECK(recipe_by_name("ewa-cifar100").arms[0].reported == 73.81);
  CHECK_THROWS_WITH_AS(
      recipe_by_name("ewa-cifar"),
      "recipe 'ewa-cifar' is not known; did you mean 'ewa-cifar100'? `tessera list recipes` shows all",
      Error);
}

TEST_CASE("an arm's settings lie over the scale's, and those over the recipe's") {
  const Recipe recipe = parse_recipe(
      std::string(kHead) + "[[arm]]\nname='a'\n[[arm]]\nname='b'\n[arm.run.train]\nepochs=3\n", "r");
  CHECK(config_of(recipe, recipe.arms[0], Scale::full).train.epochs == 1);
  CHECK(config_of(recipe, recipe.arms[0], Scale::tiny).train.epochs == 2);
  CHECK(config_of(recipe, recipe.arms[1], Scale::tiny).train.epochs == 3);
  CHECK(config_of(recipe, recipe.arms[1], Scale::tiny).model.dim == 16);
}

TEST_CASE("a scale may start from a preset") {
  const Recipe recipe = parse_recipe(
      "title='a test'\n[run.train]\nclip=3.0\nepochs=1\n[full]\npreset='deit-imagenet'\n"
      "[full.train]\nbatch=512\n[[arm]]\nname='a'\n",
      "r");
  const RunConfig full = config_of(recipe, recipe.arms[0], Scale::full);
  CHECK(full.model.name == "deit_tiny_patch16_224");
  CHECK(full.train.epochs == 300);
  CHECK(full.train.batch == 512);
  CHECK(full.train.clip == 3);
  CHECK(config_of(recipe, recipe.arms[0], Scale::tiny).train.epochs == 1);
}

TEST_CASE("axes make an arm of every combination of their values, with the settings of each") {
  const std::string axes = R"(
[[axis]]
name = "rate"
[[axis.value]]
name = "slow"
run.optim.lr = 1e-4
[[axis.value]]
name = "fast"
run.optim.lr = 1e-2
tiny.optim.lr = 2e-2
[[axis]]
name = "width"
[[axis.value]]
name = "as it is"
[[axis.value]]
name = "wide"
run.model.dim = 32
full.train.epochs = 9
)";
  const Recipe recipe = parse_recipe(kHead + axes, "r");
  REQUIRE(recipe.arms.size() == 4);
  CHECK(recipe.arms[0].name == "slow, as it is");
  CHECK(recipe.arms[1].name == "slow, wide");
  CHECK(recipe.arms[2].name == "fast, as it is");
  const RunConfig tiny = config_of(recipe, recipe.arms[3], Scale::tiny);
  CHECK(tiny.schedule.lr == 2e-2);
  CHECK(tiny.model.dim == 32);
  CHECK(tiny.train.epochs == 2);
  const RunConfig full = config_of(recipe, recipe.arms[3], Scale::full);
  CHECK(full.schedule.lr == 1e-2);
  CHECK(full.train.epochs == 9);
  CHECK(config_of(recipe, recipe.arms[0], Scale::full).train.epochs == 1);

  CHECK(recipe_error(kHead + axes + "[[arm]]\nname='a'\n") == "recipe r: axis cannot stand beside arms");
  CHECK(recipe_error(kHead + std::string("[[axis]]\nname='a'\n")) ==
        "recipe r, axis 1: name and at least one [[axis.value]] must be there");
  CHECK(recipe_error(kHead + axes + "[[axis.value]]\nname='wide'\n") ==
        "recipe r, axis 2, value 3: name must be there, and another one than those above");
  CHECK(recipe_error(kHead + axes + "[[axis.value]]\nname='x'\nfuse=true\n").find("fuse is not a key here") !=
        std::string::npos);
}

TEST_CASE("an arm may be of one scale only") {
  const Recipe recipe =
      parse_recipe(kHead + std::string("[[arm]]\nname='a'\n[[arm]]\nname='b'\nonly='tiny'\n"), "r");
  CHECK(arms_at(recipe, Scale::tiny).size() == 2);
  REQUIRE(arms_at(recipe, Scale::full).size() == 1);
  CHECK(arms_at(recipe, Scale::full)[0].name == "a");
}

TEST_CASE("what is wrong with a recipe is named") {
  const std::string head = kHead, arm = "[[arm]]\nname='a'\n";
  CHECK(recipe_error(head) == "recipe r: arm is missing: a recipe has at least one [[arm]]");
  CHECK(recipe_error("titel='x'\n" + head + arm) ==
        "recipe r: titel is not a key here; did you mean 'title'?");
  CHECK(recipe_error(head + arm + arm) ==
        "recipe r, arm 2: name must be there, and another one than those above");
  CHECK(recipe_error(head + "[[arm]]\nfuse=true\n") ==
        "recipe r, arm 1: name must be there, and another one than those above");
  CHECK(recipe_error(head + "[[arm]]\nname='a'\nstart_from='b'\n") ==
        "recipe r, arm 1: start_from names no arm above: 'b'");
  CHECK(recipe_error(head + arm + "[[arm]]\nname='b'\ncompare_to='c'\n") ==
        "recipe r, arm 2: compare_to names no arm above: 'c'");
  CHECK(recipe_error(head + "[[arm]]\nname='a'\nfuse='yes'\n") == "recipe r, arm 1: fuse is of another type");
  CHECK(recipe_error(head + arm + "[arm.run.train]\nepoch=3\n").find("'train.epochs'") != std::string::npos);
  CHECK(recipe_error(head + "[[arm]]\nname='a'\nonly='large'\n") ==
        "recipe r, arm 1: only is 'large', not tiny or full");
  CHECK(recipe_error(head + arm + "[full]\npreset='deit'\n").find("recipe r: full is over no preset: ") == 0);
  CHECK(recipe_error("votes=10\n" + head + arm) ==
        "recipe r: votes is 10: at least 1, and more for point clouds alone");
  CHECK(recipe_error("votes=0\n" + head + arm) ==
        "recipe r: votes is 0: at least 1, and more for point clouds alone");
  CHECK(recipe_error("title = \n").find("recipe r:1:") == 0);
}

// Two arms and two seeds on 64 small images.
TEST_CASE("a recipe's runs: a table, common seeds, and nothing is done twice") {
  if (no_program()) return;
  const testing::TempFolder folder;
  for (const auto& [prefix, count] : {std::pair{"train", 64u}, std::pair{"t10k", 24u}}) {
    folder.write(std::string("data/") + prefix + "-images-idx3-ubyte", testing::idx_file({count, 28, 28}));
    folder.write(std::string("data/") + prefix + "-labels-idx1-ubyte", testing::idx_file({count}, 10));
  }
  const std::string toml = std::string(kHead) + R"(
[[arm]]
name = "dense"
reported = 12.5
[[arm]]
name = "on from it, mixed"
start_from = "dense"
compare_to = "dense"
fuse = true
[arm.run.model.moe]
blocks = "every-2"
[[arm]]
name = "wild"
[arm.run.optim]
lr = 1e30
[arm.run.schedule]
warmup_lr = 1e30
)";
  folder.write("r.toml", testing::ByteVector(toml.begin(), toml.end()));
  const auto path = [&](const std::string& name) { return (folder.path() / name).string(); };
  const std::vector<std::string> command{
      "reproduce", path("r.toml"), "--data", path("data"), "--out", path("out"), "--seeds",
      "2",         "--threads",    "1",      "--json",     "-q"};
  const Finished first = run_program(command);
  INFO(first.err);
  REQUIRE(first.code == 0);
  const auto json = nlohmann::json::parse(first.out);
  REQUIRE(json["arms"].size() == 3);
  CHECK(json["arms"][0]["reported_percent"] == 12.5);
  CHECK(json["arms"][1]["runs"][1].contains("mixture_top1"));
  CHECK(json["arms"][2]["runs"][0]["diverged"] == true);
  const std::string weights = "out/r-tiny/on-from-it--mixed-seed1/model.safetensors";
  const auto written = std::filesystem::last_write_time(folder.path() / weights);
  const std::string table = Process::read(path("out/r-tiny/table.md"));
  CHECK(table.find("| wild | - (2 runs diverged) | - | - | not known to us | - |") != std::string::npos);
  CHECK(table.find(" to dense | not known to us |") != std::string::npos);
  CHECK(table.find("2 threads, tessera") == std::string::npos);
  CHECK(table.find("1 thread, tessera ") != std::string::npos);  // when, where and by what

  const Finished again = run_program(command);
  CHECK(again.out == first.out);
  CHECK(std::filesystem::last_write_time(folder.path() / weights) == written);

  // What was cut off goes on, begun by an older version too, which did not know of all settings; other
  // settings are not mistaken for these.
  std::filesystem::remove(path("out/r-tiny/dense-seed0/result.json"));
  std::string settings = Process::read(path("out/r-tiny/dense-seed0.toml"));
  const size_t widen = settings.find("widen.");
  REQUIRE(widen != std::string::npos);
  write_file_atomically(path("out/r-tiny/dense-seed0.toml"),
                        settings.erase(widen, settings.find('\n', widen) + 1 - widen));
  CHECK(run_program(command).out.find("\"diverged\": true") != std::string::npos);
  std::vector<std::string> other = command;
  other.insert(other.end(), {"--set", "optim.lr=0.1"});
  const Finished refused = run_program(other);
  CHECK(refused.code == 2);
  CHECK(refused.err.find("was begun with other settings") != std::string::npos);
}

}  // namespace
}  // namespace tessera
