// tessera bench: the time of a step on synthetic images.
#include <sys/resource.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <limits>

#include "cli/bench_ops.h"
#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/output.h"
#include "cuda/devices.h"
#include "engine/base/parallel.h"
#include "models/flops.h"
#include "train/config.h"
#include "train/steps.h"

namespace tessera::cli {
namespace {

struct BenchOptions {
  std::string model = "vit_small_image_32", mode = "train", device = "cpu";
  std::vector<std::string> set;
  int64_t batch = 128, threads = 0, steps = 10, warmup = 3, burst = 0;
  bool json = false, serve = false, no_graph = false;
};

// The model as named, without the random parts that inference does not have, at rates that stay the same.
RunConfig bench_config(const BenchOptions& o) {
  RunConfig config;
  apply_settings(config, {{"model.name", o.model}, {"model.drop_path", "0"}});
  config.schedule.kind = ScheduleConfig::Kind::constant;
  config.ewa.schedule = ShareRateSchedule::Kind::constant;
  config.train.log_every = std::numeric_limits<int64_t>::max();
  apply_settings(config, key_values(o.set));
  config.train.batch = o.batch;
  config.train.graph = !o.no_graph;
  validate(config);
  return config;
}

// A model, one batch, and what a step of training or inference needs.
class Bench {
 public:
  Bench(const RunConfig& config, bool training) : model_(make_model(config.model, config.train.seed)) {
    if (training)
      steps_ = std::make_unique<TrainingSteps>(config, *model_, std::numeric_limits<int32_t>::max());
    else
      inference_ = std::make_unique<Replicas>(
          *model_, ReplicaOptions{.micro_batch = config.train.micro_batch, .dtype = config.train.dtype});
    const int64_t images = training ? config.train.step_images() : config.train.batch;
    logits_.resize(size_t(images * config.model.classes));
    const Draw draw{.stream = Stream::test};
    batch_.inputs.resize(size_t(images * config.model.input_shape().count()));
    for (size_t i = 0; i < batch_.inputs.size(); ++i) batch_.inputs[i] = float(draw.normal(i));
    for (int64_t b = 0; b < images; ++b) batch_.labels.push_back(int32_t(b % config.model.classes));
  }

  void step() {
    if (steps_)
      steps_->take(batch_, step_++);
    else
      inference_->forward({batch_.inputs, {}, batch_.size()}, logits_.data());
  }

  // Milliseconds of a step, the mean of `burst` in a row.
  double timed(int64_t burst) {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < burst; ++i) step();
    if (Device::current().is_cuda()) cuda::synchronize();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() /
           double(burst);
  }

  int64_t images() const { return batch_.size(); }  // of a step
  int64_t micro_batch() const {
    return std::min(images(), (steps_ ? steps_->replicas() : *inference_).micro_batch());
  }
  bool is_graph() const { return steps_ && steps_->is_graph(); }
  std::string why_no_graph() const { return steps_ ? steps_->why_no_graph() : ""; }

 private:
  std::unique_ptr<Model> model_;
  std::unique_ptr<TrainingSteps> steps_;
  std::unique_ptr<Replicas> inference_;  // one of the two
  Batch batch_;
  std::vector<float> logits_;
  int64_t step_ = 0;
};

double peak_rss_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) / 1024;  // the kernel counts in KiB
}

// Answers each line of standard input with one line, so that a program that compares can interleave steps.
int serve(Bench& bench, int64_t burst, const nlohmann::ordered_json& info) {
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "step")
      std::cout << fixed(bench.timed(burst), 4) << std::endl;
    else if (line == "rss")
      std::cout << fixed(peak_rss_mb(), 1) << std::endl;
    else if (line == "info")
      std::cout << info.dump() << std::endl;
    else
      fail(Exit::usage, "bench --serve: the command '", line, "' is not known; use step, rss or info");
  }
  return 0;
}

void report(Bench& bench, const BenchOptions& o, int64_t burst, nlohmann::ordered_json info,
            const ModelCost& own) {
  std::vector<double> ms;
  for (int64_t i = 0; i < o.steps; ++i) ms.push_back(bench.timed(burst));
  std::vector<double> sorted = ms;
  std::sort(sorted.begin(), sorted.end());
  const size_t half = sorted.size() / 2;
  const double median = sorted.size() % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  double mean = 0, squares = 0;
  for (const double t : ms) mean += t / double(ms.size());
  for (const double t : ms) squares += (t - mean) * (t - mean);
  const double sd = ms.size() > 1 ? std::sqrt(squares / double(ms.size() - 1)) : 0;
  const double per_second = double(bench.images()) * 1e3 / median;
  const int64_t flops = o.mode == "train" ? training_flops(own) : own.forward_flops;
  const double gflops = double(flops) * per_second / 1e9;
  if (o.json) {
    info.update({{"ms", ms},
                 {"median_ms", median},
                 {"min_ms", sorted.front()},
                 {"mean_ms", mean},
                 {"sd_ms", sd},
                 {"images_per_s", per_second},
                 {"gflops_per_s", gflops},
                 {"peak_rss_mb", peak_rss_mb()}});
    print_json(info);
    return;
  }
  Table table("lr");
  table.add({"median", fixed(median, 2) + " ms"});
  table.add({"min", fixed(sorted.front(), 2) + " ms"});
  table.add({"mean", fixed(mean, 2) + " ms"});
  table.add({"sd", fixed(sd, 2) + " ms"});
  table.add({"images/s", fixed(per_second, 1)});
  table.add({"GFLOP/s", fixed(gflops, 1)});
  table.add({"peak memory", fixed(peak_rss_mb(), 1) + " MB"});
  table.print();
}

int run(const BenchOptions& o) {
  TESSERA_CHECK_AS(Exit::usage, o.mode == "train" || o.mode == "infer" || o.mode == "ops", "--mode ", o.mode,
                   ": not train, infer or ops");
  use_threads(o.threads);
  const Device device = device_by_name(o.device);
  const Device::Scope there(device);
  TESSERA_CHECK_AS(Exit::usage, o.batch <= 1 << 20, "--batch ", o.batch, ": at most 1048576");
  const RunConfig config = bench_config(o);
  TESSERA_CHECK_AS(Exit::usage, o.mode != "ops" || !o.serve,
                   "bench --serve: answers about steps; take --mode train or infer");
  if (o.mode == "ops") return bench_ops(config, o.batch, o.json);
  const bool training = o.mode == "train";
  // What is short, and steps that overlap.
  const bool together = training ? device.is_cuda() : o.batch == 1;
  const int64_t burst = o.burst > 0 ? o.burst : together ? 10 : 1;
  Bench bench(config, training);
  for (int64_t i = 0; i < o.warmup; ++i) bench.timed(burst);
  if (const std::string why = bench.why_no_graph(); !why.empty())
    std::cerr << "note: steps are launched kernel by kernel, since none can be one graph: " << why << '\n';
  const nlohmann::ordered_json info{{"tessera", TESSERA_VERSION},
                                    {"onednn", bool(TESSERA_ONEDNN)},
                                    {"model", config.model.name},
                                    {"mode", o.mode},
                                    {"batch", o.batch},
                                    {"device", text(device)},
                                    {"dtype", config.train.dtype},
                                    {"threads", thread_count()},
                                    {"micro_batch", bench.micro_batch()},
                                    {"moe", config.model.moe.blocks},
                                    {"experts", config.model.is_moe() ? config.model.moe.experts : 0},
                                    {"burst", burst},
                                    {"graph", bench.is_graph()}};
  if (o.serve) return serve(bench, burst, info);
  report(bench, o, burst, info, cost(config.model));
  return 0;
}

}  // namespace

Command bench_command() {
  return {"bench", "the time and memory of a training or inference step on this machine",
          R"(A training step is forward, loss, backward, optimizer and, with --moe, averaging of the
experts, on one batch of random numbers. With --serve it answers each line of standard
input: `step` with a step's milliseconds, `rss` with the peak memory in MB, `info` with
its settings as JSON. With --mode ops the ops of a ViT's blocks are measured one by one, by
the least that each must read and write beside the speed of a copy, and by its operations
beside that of a large product.

  tessera bench --model vit_tiny_patch16_224 --batch 32
  tessera bench --mode infer --batch 1
  tessera bench --moe every-2)",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<BenchOptions>();
            args.option("--model", "NAME", o->model, "Model; `tessera list models` shows all");
            args.option("--set", "KEY=VALUE", o->set, "Any setting, such as model.depth=4");
            args.option("--mode", "MODE", o->mode, "train, infer or ops");
            args.option("--batch", o->batch, 1, "Images a step");
            args.option("--device", "NAME", o->device, "auto, cpu, cuda or cuda:I");
            args.option("--threads", o->threads, 0, "Threads; 0: all");
            args.option("--steps", o->steps, 1, "Timed steps");
            args.option("--warmup", o->warmup, 0, "Steps before them");
            args.option("--burst", o->burst, 0,
                        "Runs per timed step; 0: 10 to infer one image or train on a card, else 1");
            const auto set = [&](const char* option, const char* kind, const std::string& key,
                                 const char* help) {
              args.option(
                  option, kind, [o, key](const std::string& value) { o->set.push_back(key + "=" + value); },
                  help);
            };
            set("--moe", "BLOCKS", "model.moe.blocks", "Blocks with experts: none, every-2, last-2 or 1,3,5");
            set("--experts", "N", "model.moe.experts", "Experts in each of these blocks");
            args.flag("--json", o->json, "The result as JSON");
            args.flag("--no-graph", o->no_graph, "On a card launch each kernel of a step by itself");
            args.flag("--serve", o->serve, "Answer commands on standard input");
            return [o] { return run(*o); };
          }};
}

}  // namespace tessera::cli
