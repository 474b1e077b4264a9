// tessera train: a run from the start, or on from its last checkpoint.
#include <csignal>
#include <iostream>
#include <utility>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/run_settings.h"
#include "train/trainer.h"

namespace tessera::cli {
namespace {

struct TrainOptions {
  RunSettings settings;
  std::string out, resume;
  bool quiet = false, print_config = false, json = false, no_graph = false;
};

// What a run that goes on may be told anew: where to stop, and the device. All else is its checkpoint's.
TrainConfig told_anew(const TrainOptions& o) {
  RunConfig config;
  config.train.device.clear();
  const RunSettings& given = o.settings;
  bool more = !given.preset.empty() || !given.file.empty() || !given.set.empty();
  for (const auto& [key, value] : given.shortcuts) {
    const bool may = key == "train.max_steps" || key == "train.device";
    more = more || !may;
    if (may) apply_settings(config, {{key, value}});
  }
  TESSERA_CHECK_AS(
      Exit::usage, !more, "--resume goes on with the settings of ", o.resume,
      "; only --max-steps and --device can be given anew. For other settings start a run by --out");
  TESSERA_CHECK_AS(Exit::usage, config.train.max_steps >= 0, "--max-steps ", config.train.max_steps,
                   ": must not be negative");
  return config.train;
}

void print_result(const RunResult& r, const RunFiles& files, int64_t classes, bool json) {
  if (json) {
    print_json({{"folder", files.folder},
                {"steps", r.steps},
                {"seconds", r.seconds},
                {"images_per_s", r.images_per_second},
                {"interrupted", r.interrupted},
                {"test", r.test.samples == 0
                             ? nlohmann::ordered_json()
                             : nlohmann::ordered_json{
                                   {"samples", r.test.samples},
                                   {"loss", r.test.loss},
                                   {"top1", r.test.top1},
                                   {"top5", r.test.top5},
                                   {"best_top1", r.best_top1 < 0 ? nlohmann::ordered_json()
                                                                 : nlohmann::ordered_json(r.best_top1)},
                                   {"ema_top1", r.ema_top1 ? nlohmann::ordered_json(*r.ema_top1)
                                                           : nlohmann::ordered_json()},
                                   {"images_per_s", r.test.images_per_second}}}});
    return;
  }
  Table table("lr");
  table.add({"steps", grouped(r.steps)});
  if (r.seconds > 0) {
    table.add({"time in steps", duration(r.seconds)});
    table.add({"images/s", fixed(r.images_per_second, 1)});
  }
  if (r.test.samples > 0) {
    table.add({"test top-1", percent(r.test.top1)});
    if (classes > 5) table.add({"test top-5", percent(r.test.top5)});
    table.add({"test loss", fixed(r.test.loss, 4)});
    if (r.ema_top1) table.add({"of the moving average", percent(*r.ema_top1)});
    if (r.best_top1 >= 0) table.add({"best top-1", percent(r.best_top1)});
  }
  table.print();
  if (r.interrupted != 0) return;
  std::cout << "weights  " << files.model() << '\n';
  if (r.ema_top1) std::cout << "average  " << files.ema() << '\n';
}

int run(const TrainOptions& o) {
  const bool resumes = !o.resume.empty();
  TESSERA_CHECK_AS(Exit::usage, !resumes || o.out.empty(),
                   "--out starts a run and --resume goes on with one: give one of them");
  const TrainConfig anew = resumes ? told_anew(o) : TrainConfig();
  RunConfig config = resumes ? run_config_of(o.resume) : effective_config(o.settings);
  config.train.graph = !o.no_graph;
  if (o.print_config) {
    std::cout << to_toml(config);
    return 0;
  }
  TESSERA_CHECK_AS(Exit::usage, resumes || !o.out.empty(), "no folder for the run: give --out DIR");
  TESSERA_CHECK_AS(Exit::usage, !config.data.folder.empty(),
                   "no data set: give --data DIR, or data.folder in the configuration");
  const Progress progress = o.quiet ? Progress::quiet : Progress::automatic;
  const RunFiles files{resumes ? o.resume : o.out};
  const RunResult result = resumes ? resume(files.folder, progress, anew.max_steps, anew.device, !o.no_graph)
                                   : train(config, files.folder, progress);
  print_result(result, files, config.model.classes, o.json);
  if (result.interrupted == 0) return 0;
  std::cerr << "tessera: interrupted by " << (result.interrupted == SIGINT ? "SIGINT" : "SIGTERM")
            << " and saved after step " << result.steps << "; go on with: tessera train --resume "
            << files.folder << std::endl;
  return 128 + result.interrupted;
}

}  // namespace

Command train_command() {
  return {"train", "train a model from a preset, a TOML file and flags, or resume a run",
          R"(Settings: defaults < preset < file < flags. `tessera list keys` shows all keys.
A run's folder holds config.toml, log.jsonl and the weights: model.safetensors at
the end, best.safetensors of the best epoch, last.safetensors to resume from.
Ctrl-C finishes the step, saves and exits with 130.

  tessera train --preset fashion-mnist-ewa --out runs/ewa
  tessera train --preset cifar100 --data ~/cifar --set optim.lr=5e-4 --out runs/c100
  tessera train --model deit_tiny_patch16_224 --init deit_tiny.safetensors --moe every-2 \
    --data ~/flowers --set model.classes=102 --out runs/flowers
  tessera train --resume runs/ewa)",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<TrainOptions>();
            declare(args, o->settings);
            args.option("-o,--out", "DIR", o->out, "New folder for the run");
            args.option("--resume", "DIR", o->resume, "Go on with the run in this folder, to the bit");
            args.flag("-q,--quiet", o->quiet, "No progress on standard error");
            args.flag("--print-config", o->print_config, "Print the settings as a TOML file, and do nothing");
            args.flag("--json", o->json, "The result as JSON");
            args.flag("--no-graph", o->no_graph, "On a card launch each kernel of a step by itself");
            return [o] { return run(*o); };
          }};
}

}  // namespace tessera::cli
