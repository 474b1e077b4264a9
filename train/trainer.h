// A training run: data, steps, evaluation, checkpoints and log, in one folder.
#pragma once

#include <optional>
#include <string>

#include "train/config.h"
#include "train/evaluate.h"

namespace tessera {

// What a run's folder holds.
//   config.toml         the effective configuration
//   log.jsonl           a line a step and a line an epoch
//   last.safetensors    the newest checkpoint: weights, optimizer state and place in the run
//   best.safetensors    the weights with the best test accuracy so far
//   model.safetensors   the weights at the end of the run
//   ema.safetensors     their moving average at the end of the run, where there is one (train.ema)
struct RunFiles {
  std::string folder;
  std::string config() const { return folder + "/config.toml"; }
  std::string log() const { return folder + "/log.jsonl"; }
  std::string last() const { return folder + "/last.safetensors"; }
  std::string best() const { return folder + "/best.safetensors"; }
  std::string model() const { return folder + "/model.safetensors"; }
  std::string ema() const { return folder + "/ema.safetensors"; }
};

// The checkpoint of a run's folder, or the path itself.
std::string weights_path(const std::string& file_or_folder);

struct RunResult {
  int64_t steps = 0;
  double seconds = 0;            // of this process's steps, without evaluation
  double images_per_second = 0;  // in training
  Evaluation test;  // of the weights at the end; after an interruption of an earlier epoch, if any
  std::optional<double> ema_top1;  // of the moving average, beside `test`
  double best_top1 = -1;           // below 0: none was measured
  int interrupted = 0;             // the signal that ended the run early; 0: it is complete
};

enum class Progress { automatic, quiet };

// Runs from the start into `folder`, which must not hold a run yet, or goes on from its last checkpoint, to
// the bit. After SIGINT or SIGTERM the step is finished, saved, and the result says so. A loss that is not
// finite ends in Error(diverged) that names the first module whose output is not finite; the last checkpoint
// stays.
RunResult train(const RunConfig& config, const std::string& folder, Progress progress = Progress::automatic);
// `max_steps` stops it early again; 0: where it was to stop, if it has not been there yet.
// `device` in place of the run's own; empty: that one. `graph`: see TrainConfig.
RunResult resume(const std::string& folder, Progress progress = Progress::automatic, int64_t max_steps = 0,
                 const std::string& device = {}, bool graph = true);

// How batches of the training set are made for a model that takes samples of this shape.
LoaderOptions training_options(const RunConfig& config, const Shape& shape,
                               const Normalization& normalization);

// A model's classes, channels and size must be those of its data: else Error(Exit::usage).
void check_fit(const ModelConfig& model, const Dataset& data);

// The configuration of the run in `folder`, from its last checkpoint.
RunConfig run_config_of(const std::string& folder);

}  // namespace tessera
