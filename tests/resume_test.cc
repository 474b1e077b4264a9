// Runs that are stopped, asked to stop or killed, and go on to the bit.
#include <doctest/doctest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "engine/base/check.h"
#include "engine/io/atomic_file.h"
#include "engine/io/safetensors.h"
#include "tests/tiny_run.h"

namespace tessera {
namespace {

TEST_CASE("a run stopped in the middle of an epoch goes on in another process to the bit") {
  if (no_program()) return;
  const TinySet set;
  const ScratchFolder runs;
  const Finished whole = run_program(train_command(set, runs / "whole"));
  INFO(whole.err);
  REQUIRE(whole.code == 0);
  REQUIRE(run_program(train_command(set, runs / "parts", {"--max-steps", "17"})).code == 0);
  CHECK(Process::read(runs / "parts/last.safetensors") != Process::read(runs / "whole/last.safetensors"));
  const Finished resumed = run_program({"train", "--resume", runs / "parts", "--quiet"});
  INFO(resumed.err);
  REQUIRE(resumed.code == 0);
  for (const char* file : {"last.safetensors", "best.safetensors", "model.safetensors"})
    CHECK(Process::read(runs / "parts/" + file) == Process::read(runs / "whole/" + file));

  SUBCASE("as does one that was killed at any moment") {
    auto started = std::make_unique<Process>(train_command(set, runs / "killed"));
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    for (int kill = 0; kill < 12; ++kill) {
      started->kill(SIGKILL);
      started->wait();
      if (!std::filesystem::exists(runs / "killed/last.safetensors")) {  // killed before its first checkpoint
        started = std::make_unique<Process>(train_command(set, runs / "killed"));
      } else {
        started = std::make_unique<Process>(
            std::vector<std::string>{"train", "--resume", runs / "killed", "--quiet"});
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(40 + 13 * kill));
    }
    const Finished last = started->wait();
    INFO(last.err);
    REQUIRE(last.code == 0);
    CHECK(Process::read(runs / "killed/model.safetensors") ==
          Process::read(runs / "whole/model.safetensors"));
  }
  SUBCASE("as does one that was asked to stop") {
    for (const int signal : {SIGTERM, SIGINT}) {
      Process started(
          train_command(set, runs / "asked", {"--set", "train.epochs=300", "--max-steps", "100000"}));
      for (int wait = 0; wait < 12000 && Process::read(runs / "asked/log.jsonl").empty(); ++wait)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      started.kill(signal);
      CHECK(started.wait().code == 128 + signal);
      CHECK(run_program({"info", runs / "asked/last.safetensors"}).code == 0);
      std::filesystem::remove_all(runs / "asked");
    }
  }
}

TEST_CASE("a run with SAM, a moving average, layer rates and accumulation goes on to the bit") {
  if (no_program()) return;
  const TinySet set;
  const ScratchFolder runs;
  const std::vector<std::string> more{"--set", "optim.sam_rho=0.05",    "--set", "train.ema=0.9",
                                      "--set", "optim.layer_decay=0.7", "--set", "train.accumulate=2",
                                      "--set", "ewa.until=0.5"};
  const Finished whole = run_program(train_command(set, runs / "whole", more));
  INFO(whole.err);
  REQUIRE(whole.code == 0);
  std::vector<std::string> part = more;
  part.insert(part.end(), {"--max-steps", "7"});
  REQUIRE(run_program(train_command(set, runs / "parts", part)).code == 0);
  REQUIRE(run_program({"train", "--resume", runs / "parts", "--quiet"}).code == 0);
  for (const char* file : {"last.safetensors", "model.safetensors", "ema.safetensors"})
    CHECK(Process::read(runs / "parts/" + file) == Process::read(runs / "whole/" + file));
  CHECK(Process::read(runs / "whole/ema.safetensors") != Process::read(runs / "whole/model.safetensors"));
  const std::string log = Process::read(runs / "whole/log.jsonl");
  CHECK(log.find("\"test_top1_ema\"") != std::string::npos);
  CHECK(log.find("\"step\":18,\"epoch\":2") != std::string::npos);  // 200 / 32 steps an epoch
  CHECK(log.find("\"share_rate\":0.0,") != std::string::npos);
  CHECK(run_program({"eval", runs / "whole/ema.safetensors"}).code == 0);
}

// The log without what a clock says.
std::vector<nlohmann::json> log_of(const std::string& folder) {
  std::vector<nlohmann::json> lines;
  std::istringstream log(Process::read(folder + "/log.jsonl"));
  for (std::string line; std::getline(log, line);) {
    lines.push_back(nlohmann::json::parse(line));
    for (const char* timed : {"images_per_s", "data_wait", "test_images_per_s"}) lines.back().erase(timed);
  }
  return lines;
}

TEST_CASE("SGD over a part of an epoch, evaluated now and then: the same bits and the same log") {
  if (no_program()) return;
  const TinySet set;
  const ScratchFolder runs;
  const auto command = [&](const std::string& name, const std::vector<std::string>& more = {}) {
    std::vector<std::string> words{"--set", "optim.name=sgd",          "--set", "optim.nesterov=true",
                                   "--set", "train.epochs=2.6",        "--set", "train.eval_every=2",
                                   "--set", "train.checkpoint_every=7"};
    words.insert(words.end(), more.begin(), more.end());
    return train_command(set, runs / name, words);
  };
  const Finished whole = run_program(command("whole"));
  INFO(whole.err);
  REQUIRE(whole.code == 0);
  const auto log = log_of(runs / "whole");
  CHECK(log.size() == 31 + 3);  // 2.6 epochs of 12 steps; the ends of three epochs
  // What an epoch's line says is the mean of its steps.
  double loss = 0, norm = 0, accuracy = 0, steps = 0;
  for (const auto& line : log) {
    if (line["kind"] == "step") {
      loss += line["loss"].get<double>();
      norm += line["grad_norm"].get<double>();
      accuracy += line["accuracy"].get<double>();
      ++steps;
      continue;
    }
    CHECK(line["train_loss"].get<double>() == doctest::Approx(loss / steps));
    CHECK(line["grad_norm"].get<double>() == doctest::Approx(norm / steps));
    CHECK(line["train_accuracy"].get<double>() == doctest::Approx(accuracy / steps));
    CHECK(line.contains("test_top1") == (line["epoch"] != 0));  // after the second epoch and at the end
    loss = norm = accuracy = steps = 0;
  }

  // Killed at step 17 or later, with step 14 as its last checkpoint: what was logged since is written anew.
  Process started(command("killed", {"--set", "train.checkpoint_every=14", "--max-steps", "100000"}));
  const auto lines = [&] {
    const std::string log = Process::read(runs / "killed/log.jsonl");
    return std::count(log.begin(), log.end(), '\n');
  };
  for (int wait = 0; wait < 60000 && lines() < 18; ++wait)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  started.kill(SIGKILL);
  started.wait();
  const Finished resumed = run_program({"train", "--resume", runs / "killed", "--quiet"});
  INFO(resumed.err);
  REQUIRE(resumed.code == 0);
  CHECK(log_of(runs / "killed") == log);
}

TEST_CASE("a run does not go on with other images") {
  if (no_program()) return;
  const TinySet set;
  const ScratchFolder runs;
  REQUIRE(run_program(train_command(set, runs / "run", {"--max-steps", "3"})).code == 0);
  const std::string images = set.folder.path() / "train-images-idx3-ubyte";
  std::string bytes = Process::read(images);
  bytes[500] = char(bytes[500] + 1);
  write_file_atomically(images, bytes);
  const Finished resumed = run_program({"train", "--resume", runs / "run", "--quiet"});
  CHECK(resumed.code == int(Exit::data));
  CHECK(resumed.err.find("are not those that the run was started with") != std::string::npos);
}

TEST_CASE("the moving average of a run that starts from weights starts from them") {
  if (no_program()) return;
  const TinySet set;
  const ScratchFolder runs;
  const auto train = [&](const char* out, const std::vector<std::string>& more) {
    std::vector<std::string> words{"--set", "model.moe.blocks=none"};
    words.insert(words.end(), more.begin(), more.end());
    REQUIRE(run_program(train_command(set, runs / out, words)).code == 0);
  };
  train("first", {"--max-steps", "5"});
  train("second",
        {"--init", runs / "first", "--set", "train.ema=0.9", "--set", "train.seed=9", "--max-steps", "1"});
  const SafetensorsFile first(runs / "first/model.safetensors"), second(runs / "second/model.safetensors"),
      average(runs / "second/ema.safetensors");
  for (const TensorEntry& entry : average.entries()) {
    CAPTURE(entry.name);
    std::vector<float> from(size_t(entry.count())), to(from.size()), own(from.size());
    first.read_f32(*first.find(entry.name), from);
    second.read_f32(*second.find(entry.name), to);
    average.read_f32(entry, own);
    bool as_said = true;
    for (size_t i = 0; i < own.size(); ++i)
      as_said = as_said && std::abs(own[i] - (2 * from[i] + 9 * to[i]) / 11) < 1e-5f;
    CHECK(as_said);
  }
}

TEST_CASE("killed between an epoch's line and its checkpoint, a run has that line once") {
  if (no_program()) return;
  const TinySet set;
  const ScratchFolder runs;
  const auto command = [&](const char* out) {
    return train_command(set, runs / out, {"--set", "train.epochs=1", "--set", "model.moe.blocks=none"});
  };
  for (const char* out : {"whole", "killed"}) REQUIRE(run_program(command(out)).code == 0);
  const auto log = log_of(runs / "whole");
  CHECK(log.size() == 12 + 1);
  // The last checkpoint before that line: the epoch's sums are still there.
  const std::string last = runs / "killed/last.safetensors";
  SafetensorsWriter writer;
  const SafetensorsFile whole(last);
  for (const TensorEntry& entry : whole.entries())
    writer.add(entry.name, entry.dtype, entry.shape, whole.bytes(entry).data());
  writer.metadata() = whole.metadata();
  auto state = nlohmann::json::parse(whole.metadata().at("tessera.state"));
  REQUIRE(state["epoch_loss"] == 0);
  const auto& line = log.back();
  state["epoch_loss"] = 12 * line["train_loss"].get<double>();
  state["epoch_gradient_norm"] = 12 * line["grad_norm"].get<double>();
  state["epoch_correct"] = std::lround(12 * 16 * line["train_accuracy"].get<double>());
  writer.metadata()["tessera.state"] = state.dump();
  writer.write(last);
  const Finished resumed = run_program({"train", "--resume", runs / "killed", "--quiet"});
  INFO(resumed.err);
  REQUIRE(resumed.code == 0);
  CHECK(log_of(runs / "killed").size() == log.size());
  CHECK(log_of(runs / "killed").back()["step"] == line["step"]);
  CHECK(log_of(runs / "killed").back()["train_loss"].get<double>() ==
        doctest::Approx(line["train_loss"].get<double>()));
}

}  // namespace
}  // namespace tessera
