// The program as its users meet it: what it prints, where, and its exit codes.
#include <doctest/doctest.h>
#include <signal.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "models/vit.h"
#include "models/weights.h"
#include "tests/image_files.h"
#include "tests/messages.h"
#include "tests/process.h"

namespace tessera::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

Words joined_words(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A tiny set of grey images, a tiny model, and the program to run on them.
class Place {
 public:
  Place() {
    for (const auto& [prefix, count] : {std::pair{"train", 96u}, std::pair{"t10k", 40u}}) {
      folder_.write(std::string("data/") + prefix + "-images-idx3-ubyte", idx_file({count, 28, 28}));
      folder_.write(std::string("data/") + prefix + "-labels-idx1-ubyte", idx_file({count}, 10));
    }
  }

  fs::path operator/(const std::string& name) const { return folder_.path() / name; }
  std::string path(const std::string& name) const { return (*this / name).string(); }
  Finished run(const Words& words) const { return run_program(words); }

  Words train(const std::string& out, const Words& more = {}) const {
    return joined_words({"train",
                         "--out",
                         path(out),
                         "--data",
                         path("data"),
                         "--model",
                         "vit_small_image_28",
                         "--moe",
                         "every-2",
                         "--batch",
                         "16",
                         "--epochs",
                         "2",
                         "--threads",
                         "1",
                         "--quiet",
                         "--set",
                         "model.dim=16",
                         "model.depth=2",
                         "model.heads=2"},
                        more);
  }

 private:
  TempFolder folder_;
};

json parsed(const Finished& result) {
  CAPTURE(result.err);
  CAPTURE(result.out);
  REQUIRE(result.code == 0);
  const json value = json::parse(result.out, nullptr, false);
  REQUIRE(!value.is_discarded());
  return value;
}

TEST_CASE("what cannot be meant ends with 2 and names what is near") {
  if (no_program()) return;
  const Place place;
  struct Wrong {
    Words words;
    const char* near;
  };
  for (const Wrong& wrong :
       {Wrong{{}, "--help"},
        Wrong{{"trian"}, "'train'"},
        Wrong{{"eval", "w", "--dta", "x"}, "'--data'"},
        Wrong{{"eval", "w", "--dta=x"}, "'--data'"},
        Wrong{{"eval"}, "WEIGHTS"},
        Wrong{{"list", "model"}, "'models'"},
        Wrong{{"train", "--preset", "cifar10"}, "'cifar100'"},
        Wrong{{"train", "--set", "optm.lr=1", "--print-config"}, "'optim.lr'"},
        Wrong{{"train", "--set", "optim.lr", "--print-config"}, "key=value"},
        Wrong{{"train", "--batch", "many", "--print-config"}, "train.batch"},
        Wrong{{"train", "--model", "vit_tiny_patch16", "--print-config"}, "'vit_tiny_patch16_224'"},
        Wrong{{"train", "--data", place.path("data")}, "--out"},
        Wrong{{"train", "--out", "x"}, "--data"},
        Wrong{{"train", "--out", "x", "--resume", "y"}, "--resume"},
        Wrong{{"train", "--resume", "y", "--lr", "1"}, "--max-steps"},
        Wrong{{"bench", "--batch", "-3"}, "--batch"},
        Wrong{{"bench", "--mode", "fast"}, "infer"},
        Wrong{{"info"}, "--devices"},
        Wrong{{"info", "w", "--devices"}, "FILE"},
        Wrong{{"predict", "w"}, "--index"},
        Wrong{{"eval", "w", "x"}, "x"}}) {
    const Finished result = place.run(wrong.words);
    CAPTURE(wrong.near);
    CAPTURE(result.err);
    CHECK(result.code == 2);
    CHECK(result.out == "");
    CHECK(result.err.starts_with("tessera: error: "));
    CHECK(contains(result.err, wrong.near));
  }
}

TEST_CASE("help and lists") {
  if (no_program()) return;
  const Place place;
  const Finished help = place.run({"--help"});
  CHECK(help.code == 0);
  CHECK(help.err == "");
  for (const char* verb : {"train", "eval", "predict", "fuse", "info", "list", "bench"}) {
    CHECK(contains(help.out, std::string("\n  ") + verb));
    const Finished own = place.run({verb, "--help"});
    CHECK(own.code == 0);
    CHECK(contains(own.out, std::string("tessera ") + verb));
    CHECK(place.run({"help", verb}).out == own.out);
  }
  const Finished studies = place.run({"study"});
  CHECK(studies.code == 0);
  CHECK(contains(studies.out, "\n  study diversity"));
  CHECK_FALSE(contains(studies.out, "train"));
  for (const Words& words : {Words{"study", "--help"}, Words{"help", "study"}})
    CHECK(place.run(words).out == studies.out);
  CHECK(place.run({"study", "nothing"}).code == 2);
  CHECK(place.run({"--version"}).out == "tessera " TESSERA_VERSION "\n");
  for (const auto& [what, key] :
       {std::pair{"models", "name"}, {"presets", "name"}, {"keys", "key"}, {"ops", "op"}}) {
    const json list = parsed(place.run({"list", what, "--json"}));
    const Finished table = place.run({"list", what});
    CHECK(list.size() >= 3);
    for (const json& entry : list) CHECK(contains(table.out, entry[key].get<std::string>()));
  }
  const Finished devices = place.run({"info", "--devices"});
  CHECK(contains(devices.out, "cpu "));
  CHECK(devices.out == place.run({"list", "devices"}).out);
  CHECK(parsed(place.run({"info", "--devices", "--json"}))[0]["device"] == "cpu");
}

TEST_CASE("a printed configuration gives itself") {
  if (no_program()) return;
  const Place place;
  const Finished first = place.run({"train", "--preset", "cifar100-ewa", "--lr", "3e-4", "--seed", "9",
                                    "--set", "model.depth=4", "data.folder=a \"b\"", "--print-config"});
  CHECK(first.code == 0);
  CHECK(contains(first.out, "lr = 0.0003\n"));
  CHECK(contains(first.out, "depth = 4\n"));
  CHECK(contains(first.out, "every-2"));
  std::ofstream(place / "run.toml") << first.out;
  CHECK(place.run({"train", "--config", place.path("run.toml"), "--print-config"}).out == first.out);
  // Flags win over the file, the file over a preset.
  const Finished later = place.run({"train", "--preset", "fashion-mnist", "--config", place.path("run.toml"),
                                    "--lr", "0.5", "--print-config"});
  CHECK(contains(later.out, "lr = 0.5\n"));
  CHECK(contains(later.out, "depth = 4\n"));
}

TEST_CASE("train, evaluate, fuse, predict and look at it") {
  if (no_program()) return;
  const Place place;
  const json trained = parsed(place.run(place.train("run", {"--json"})));
  CHECK(trained["steps"] == 12);
  CHECK(trained["interrupted"] == 0);
  CHECK(trained["test"]["samples"] == 40);

  const std::string weights = place.path("run/model.safetensors");
  const json mixture = parsed(place.run({"eval", weights, "--json", "--per-class"}));
  CHECK(mixture["samples"] == 40);
  CHECK(mixture["classes"].size() == 10);
  CHECK(mixture["loss"].get<double>() ==
        doctest::Approx(trained["test"]["loss"].get<double>()).epsilon(1e-5));
  CHECK(parsed(place.run({"eval", weights, "--json", "--limit", "7"}))["samples"] == 7);
  CHECK(parsed(place.run({"eval", weights, "--json", "--split", "train"}))["samples"] == 96);
  const json checkpoint = parsed(place.run({"eval", place.path("run"), "--json"}));
  CHECK(checkpoint["loss"] == mixture["loss"]);

  const std::string vit = place.path("vit.safetensors");
  const json fused = parsed(place.run({"fuse", weights, "-o", vit, "--json"}));
  CHECK(fused["real_images"] == true);
  CHECK(fused["images"] == 40);
  CHECK(fused["difference"].get<double>() <= 1e-5);
  CHECK(fused["difference_to_mixture"].get<double>() > 1e-4);  // the experts do differ
  CHECK(fused["parameters"]["after"] < fused["parameters"]["before"]);
  const json dense = parsed(place.run({"eval", vit, "--json"}));
  CHECK(dense["samples"] == 40);

  const json info = parsed(place.run({"info", vit, "--json"}));
  CHECK(info["elements"] == fused["parameters"]["after"]);
  CHECK(info["model"]["parameters"] == info["elements"]);
  CHECK(info["model"]["config"]["moe.blocks"] == "none");
  CHECK(info["metadata"].contains("tessera.classes"));
  for (const json& tensor : info["tensors"]) CHECK(!contains(tensor["name"], ".moe."));
  const Finished shown = place.run({"info", weights});
  CHECK(shown.code == 0);
  CHECK(contains(shown.out, "blocks.1.moe.fc1.weight"));

  const json guesses = parsed(place.run(
      {"predict", vit, "--data", place.path("data"), "--index", "3", "11", "--top", "2", "--json"}));
  REQUIRE(guesses.size() == 2);
  CHECK(guesses[1]["index"] == 11);
  CHECK(guesses[1]["label"] == "1");
  REQUIRE(guesses[0]["top"].size() == 2);
  CHECK(guesses[0]["top"][0]["probability"] >= guesses[0]["top"][1]["probability"]);

  // One at a time or in batches, the same images are right.
  Words all{"predict", vit, "--json", "--top", "1", "--index"};
  for (int i = 0; i < 40; ++i) all.push_back(std::to_string(i));
  int correct = 0;
  for (const json& guess : parsed(place.run(all))) correct += guess["top"][0]["class"] == guess["label"];
  CHECK(correct == std::lround(40 * dense["top1"].get<double>()));

  // The same image as a file gives the same answer.
  const ByteVector images = idx_file({40, 28, 28});
  ByteVector pgm = {'P', '5', ' ', '2', '8', ' ', '2', '8', ' ', '2', '5', '5', '\n'};
  const auto third = images.begin() + 16 + 3 * 28 * 28;
  pgm.insert(pgm.end(), third, third + 28 * 28);
  std::ofstream(place / "third.pgm", std::ios::binary)
      .write(reinterpret_cast<const char*>(pgm.data()), std::streamsize(pgm.size()));
  const json file = parsed(place.run({"predict", vit, place.path("third.pgm"), "-k", "2", "--json"}));
  CHECK(file[0]["top"] == guesses[0]["top"]);
  CHECK(place.run({"predict", vit, place.path("third.pgm"), "--top", "99"}).code == 0);

  const Finished again = place.run(place.train("run"));
  CHECK(again.code == 2);
  CHECK(contains(again.err, "--resume"));
}

TEST_CASE("class names reach the terminal without control characters") {
  if (no_program()) return;
  const TempFolder folder;
  const auto path = [&](const char* name) { return (folder.path() / name).string(); };
  for (const char* split : {"train", "val"})
    for (const char* name : {"a\x1b[31m", "b\xc2\x9b"})
      folder.write(std::string("data/") + split + "/" + name + "/1.png",
                   png_of(8, 8, PNG_FORMAT_RGB, ByteVector(3 * 8 * 8, 99).data()));
  const Finished trained =
      run_program({"train", "--data", path("data"), "--out", path("run"), "--quiet", "--batch", "2",
                   "--epochs", "1", "--model", "vit_small_image_32", "--set", "model.image_size=8",
                   "model.classes=2", "model.depth=1", "model.dim=12"});
  INFO(trained.err);
  REQUIRE(trained.code == 0);
  for (const Words& words :
       {Words{"eval", path("run"), "--per-class"}, Words{"predict", path("run"), "--index", "0"},
        Words{"superclass", path("run"), "--split", "test", "--experts", "2", "-o", path("groups.toml")}}) {
    const Finished shown = run_program(words);
    INFO(shown.err);
    CHECK(shown.code == 0);
    CHECK(contains(shown.out, "a?[31m"));
    CHECK(contains(shown.out, "b?"));
    CHECK_FALSE(contains(shown.out, "\x1b"));
    CHECK_FALSE(contains(shown.out, "\xc2\x9b"));
  }
  const Finished unwritten = run_program(
      {"superclass", path("run"), "--split", "test", "--experts", "2", "-o", path("nowhere/groups.toml")});
  CHECK(unwritten.code == 4);
  CHECK(contains(unwritten.err, "cannot write"));
}

TEST_CASE("bad files and folders") {
  if (no_program()) return;
  const Place place;
  std::ofstream(place / "bad.safetensors") << "\xff\xff\xff\xff\xff\xff\xff\x7f{}";
  for (const char* verb : {"eval", "info"}) {
    CHECK(place.run({verb, place.path("bad.safetensors")}).code == 4);
    CHECK(place.run({verb, place.path("none.safetensors")}).code == 4);
  }
  CHECK(place.run({"train", "--resume", place.path("data")}).code == 4);
  CHECK(place.run(place.train("run", {"--data", place.path("nowhere")})).code == 2);  // an option given twice
  Words elsewhere = place.train("run");
  for (std::string& word : elsewhere)
    if (word == place.path("data")) word = place.path("nowhere");
  const Finished result = place.run(elsewhere);
  CHECK(result.code == 3);
  CHECK(contains(result.err, "nowhere"));

  ModelConfig config;
  config.image_size = 28;
  config.channels = 1;
  config.classes = 10;
  config.depth = 2;
  config.dim = 16;
  config.heads = 2;
  config.moe.blocks = "1";
  Vit model(config, 1);
  const std::string weights = place.path("w.safetensors"), vit = place.path("vit.safetensors");
  save_model(weights, model, {});
  CHECK(place.run({"eval", weights}).code == 2);  // no data set is known
  CHECK(place.run({"eval", weights, "--data", place.path("")}).code == 3);
  CHECK(place.run({"predict", weights, place.path("none.png")}).code == 3);
  CHECK(place.run({"predict", weights, "--data", place.path("data"), "--index", "40"}).code == 2);
  CHECK(parsed(place.run({"fuse", weights, "-o", vit, "--json"}))["real_images"] == false);
  CHECK(fs::remove(vit));

  save_model(place.path("names.safetensors"), model, {{kClassesKey, R"(["only one"])"}});
  CHECK(place.run({"eval", place.path("names.safetensors"), "--data", place.path("data")}).code == 4);

  // A check that fails leaves nothing.
  for (const auto& p : model.parameters().parameters()) {
    Tensor value = p.value;
    if (p.experts > 1) value.mutable_data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  }
  save_model(weights, model, {});
  const Finished failed = place.run({"fuse", weights, "-o", vit});
  CHECK(failed.code == 7);
  CHECK(!fs::exists(vit));
}

// The runs have no end of their own in the test's time: the signal comes when the log has begun.
TEST_CASE("an interrupted run says how to go on, and goes on") {
  if (no_program()) return;
  const Place place;
  const auto whole = parsed(place.run(place.train("whole", {"--max-steps", "9", "--json"})));
  CHECK(whole["steps"] == 9);
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string name = signal == SIGINT ? "int" : "term";
    Process program(place.train(name, {"--set", "train.epochs=100000"}));
    // Long enough for any build; a program that never logs fails the test instead of hanging it.
    for (int i = 0; i < 6000 && Process::read(place / (name + "/log.jsonl")).empty(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    program.kill(signal);
    const Finished result = program.wait();
    CHECK(result.code == 128 + signal);
    CHECK(contains(result.err, "tessera train --resume " + place.path(name)));
  }
  // It goes on from where it was, which is behind nothing that it has logged.
  const json checkpoint = parsed(place.run({"info", place.path("int"), "--json"}));
  const int64_t step = json::parse(checkpoint["metadata"]["tessera.state"].get<std::string>())["step"];
  const json more = parsed(place.run(
      {"train", "--resume", place.path("int"), "--max-steps", std::to_string(step + 2), "-q", "--json"}));
  CHECK(more["steps"] == step + 2);

  const json on = parsed(place.run({"train", "--resume", place.path("whole"), "-q", "--json"}));
  CHECK(on["steps"] == 12);
  const json straight = parsed(place.run(place.train("straight", {"--json"})));
  CHECK(on["test"]["loss"] == straight["test"]["loss"]);
  CHECK(Process::read(place / "whole/model.safetensors") ==
        Process::read(place / "straight/model.safetensors"));
}

TEST_CASE("a second signal ends the program at once") {
  if (no_program()) return;
  const Place place;
  Process program(place.train("run", {"--set", "model.dim=384", "--set", "model.depth=9", "--set",
                                      "model.heads=12", "train.batch=48"}));
  for (int i = 0; i < 6000 && Process::read(place / "run/log.jsonl").empty(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  // Signals that come together count as one; a step takes far longer than this.
  for (int i = 0; i < 40; ++i) {
    program.kill(SIGINT);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK(program.wait().code == -SIGINT);
  CHECK(place.run({"info", place.path("run")}).code == 0);
}

TEST_CASE("bench measures what it is told to") {
  if (no_program()) return;
  const Place place;
  const Words tiny{"--set", "model.dim=16", "model.depth=3", "model.heads=2"};
  for (const Words& words : {Words{"--mode", "train", "--moe", "every-2"}, Words{"--mode", "infer"},
                             Words{"--mode", "infer", "--model", "mobile_vmoe_small_image_32"}}) {
    const json result = parsed(place.run(joined_words(
        joined_words({"bench", "--batch", "8", "--steps", "3", "--warmup", "1", "--threads", "1", "--json"},
                     words),
        tiny)));
    CHECK(result["ms"].size() == 3);
    CHECK(result["median_ms"].get<double>() > 0);
    CHECK(result["min_ms"] <= result["median_ms"]);
    CHECK(result["peak_rss_mb"].get<double>() > 1);
    CHECK(result["images_per_s"].get<double>() * result["median_ms"].get<double>() == doctest::Approx(8e3));
    CHECK(result["micro_batch"] <= 8);
    CHECK(result["graph"] == false);
  }
  const json ops = parsed(place.run(
      joined_words({"bench", "--mode", "ops", "--batch", "2", "--threads", "1", "--json"}, tiny)))["ops"];
  CHECK(ops.size() == 25);
  for (const json& op : ops) {
    CAPTURE(op["op"]);
    CHECK(op["bytes"].get<int64_t>() > 0);
    const bool difference = op["op"].get<std::string>().ends_with(", backward");  // null where it is noise
    if (difference && op["us"].is_null()) continue;
    CHECK(op["us"].get<double>() > 0);
    CHECK(op["share_of_copy"].get<double>() > 0);
  }
  const json two = parsed(place.run(joined_words(
      {"bench", "--batch", "4", "--steps", "1", "--warmup", "0", "--json", "--set", "train.accumulate=2"},
      tiny)));
  CHECK(two["images_per_s"].get<double>() * two["median_ms"].get<double>() == doctest::Approx(8e3));
}

}  // namespace
}  // namespace tessera::testing
