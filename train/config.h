// Everything that decides a training run. Precedence: these defaults < preset < file < flags.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/augment/mix.h"
#include "data/samples.h"
#include "models/config.h"
#include "optim/experts_averaging.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

namespace tessera {

struct DataConfig {
  std::string folder;      // where the data set's files are
  std::string name;        // which set they are, where the files do not say
  int64_t limit = 0;       // only the first training images; 0: all
  int64_t test_limit = 0;  // only the first test images; 0: all
  AugmentOptions augment;
  MixOptions mix;
  CloudAugment cloud;
  int64_t repeats = 1;  // how often a training image comes in an epoch, augmented anew
  int workers = 1;      // loader threads
};

struct EwaConfig {
  double share_rate = 0.3;  // 0: the experts are never averaged
  ShareRateSchedule::Kind schedule = ShareRateSchedule::Kind::linear;
  double ramp = 0.5;  // linear: the part of the run after which the rate is reached (our choice)
  // The part of the run after which averaging ends ("early EWA"; the cut-off is our choice).
  double until = 1;
};

struct TrainConfig {
  std::string init;  // weights to start from (models/adapt.h), or a run's folder; empty: drawn from the seed
  double epochs = 10;
  int64_t max_steps = 0;  // stop earlier, after this many steps; the schedule stays as it is; 0: never
  int64_t batch = 128;
  int64_t accumulate = 1;  // batches a step; batch statistics stay those of one
  double ema = 0;          // decay of the weights' moving average, evaluated beside them; 0: none
  uint64_t seed = 0;
  double label_smoothing = 0.1;
  double clip = 0;  // largest gradient norm; 0: any
  double warmup_epochs = 0;
  std::string device = "cpu";    // auto, cpu, cuda or cuda:I
  std::string dtype = "f32";     // of a card's products: f32, tf32 or bf16
  int threads = 0;               // 0: all
  int64_t micro_batch = 0;       // images a thread takes at a time; 0: chosen by the model's size
  int64_t eval_every = 1;        // epochs
  int64_t checkpoint_every = 0;  // steps between two saves inside an epoch; 0: at the ends of epochs only
  int64_t log_every = 1;         // steps between two lines of the log
  bool graph = true;             // launch a card's step as one CUDA graph; the bits are the same: not a field

  int64_t step_images() const { return batch * accumulate; }
};

struct RunConfig {
  ModelConfig model;
  DataConfig data;
  OptimizerConfig optim;
  double sam_rho = 0;       // radius of sharpness-aware minimisation; 0: none
  double layer_decay = 1;   // factor of the learning rate from a layer to the one below it
  ScheduleConfig schedule;  // its step counts follow from the epochs
  EwaConfig ewa;
  TrainConfig train;
};

// All fields by their keys.
Fields fields(RunConfig& config);
nlohmann::ordered_json config_to_json(const RunConfig& config);

// Throws (usage) naming the key, its value and the rule it breaks.
void validate(const RunConfig& config);

// Sets every key of a TOML text; tables make dotted keys. `model.name` sets the whole registered model first,
// whatever its place in the file. Errors (usage) give name, line and column.
void apply_toml(RunConfig& config, const std::string& toml, const std::string& file_name);

// Sets the keys of a flat map, in order, `model.name` first.
void apply_settings(RunConfig& config, const std::vector<std::pair<std::string, std::string>>& settings);

// The effective configuration as a TOML file that gives the same run.
std::string to_toml(const RunConfig& config);

struct Preset {
  std::string name, summary, toml;
};
const std::vector<Preset>& presets();
// An error (usage) naming the nearest name where there is none of this name.
const Preset& preset_by_name(const std::string& name);

}  // namespace tessera
