// Everything that decides a training run. Precedence: these defaults < preset < file < flags.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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
  int64_t padding = 0;     // random crop out of the image padded by this many pixels
  bool flip = false;
  int workers = 1;  // loader threads
};

struct EwaConfig {
  double share_rate = 0.3;  // 0: the experts are never averaged
  ShareRateSchedule::Kind schedule = ShareRateSchedule::Kind::linear;
  double ramp = 0.5;  // linear: the part of the run after which the rate is reached (our choice)
};

struct TrainConfig {
  double epochs = 10;
  int64_t max_steps = 0;  // stop earlier, after this many steps; the schedule stays as it is; 0: never
  int64_t batch = 128;
  uint64_t seed = 0;
  double label_smoothing = 0.1;
  double clip = 0;  // largest gradient norm; 0: any
  double warmup_epochs = 0;
  int threads = 0;               // 0: all
  int64_t micro_batch = 0;       // images a thread takes at a time; 0: chosen by the model's size
  int64_t eval_every = 1;        // epochs
  int64_t checkpoint_every = 0;  // steps between two saves inside an epoch; 0: at the ends of epochs only
  int64_t log_every = 1;         // steps between two lines of the log
};

struct RunConfig {
  ModelConfig model;
  DataConfig data;
  OptimizerConfig optim;
  ScheduleConfig schedule;  // its step counts follow from the epochs
  EwaConfig ewa;
  TrainConfig train;
};

inline auto field_names(ShareRateSchedule::Kind*) {
  using Kind = ShareRateSchedule::Kind;
  return FieldNames<Kind>{{Kind::constant, "constant"}, {Kind::linear, "linear"}};
}
inline auto field_names(ScheduleConfig::Kind*) {
  using Kind = ScheduleConfig::Kind;
  return FieldNames<Kind>{{Kind::cosine, "cosine"}, {Kind::constant, "constant"}};
}

template <class Config, class Visit>
requires std::same_as<std::remove_const_t<Config>, RunConfig>
void visit_fields(Config& c, Visit&& visit) {
  visit_fields(c.model, [&](const std::string& key, auto& field) { visit("model." + key, field); });
  visit("data.folder", c.data.folder);
  visit("data.name", c.data.name);
  visit("data.limit", c.data.limit);
  visit("data.test_limit", c.data.test_limit);
  visit("data.padding", c.data.padding);
  visit("data.flip", c.data.flip);
  visit("data.workers", c.data.workers);
  visit("optim.name", c.optim.name);
  visit("optim.lr", c.schedule.lr);
  visit("optim.weight_decay", c.optim.weight_decay);
  visit("optim.beta1", c.optim.beta1);
  visit("optim.beta2", c.optim.beta2);
  visit("optim.eps", c.optim.eps);
  visit("optim.momentum", c.optim.momentum);
  visit("optim.nesterov", c.optim.nesterov);
  visit("schedule.kind", c.schedule.kind);
  visit("schedule.warmup_lr", c.schedule.warmup_lr);
  visit("schedule.min_lr", c.schedule.min_lr);
  visit("schedule.warmup_epochs", c.train.warmup_epochs);
  visit("ewa.share_rate", c.ewa.share_rate);
  visit("ewa.schedule", c.ewa.schedule);
  visit("ewa.ramp", c.ewa.ramp);
  visit("train.epochs", c.train.epochs);
  visit("train.max_steps", c.train.max_steps);
  visit("train.batch", c.train.batch);
  visit("train.seed", c.train.seed);
  visit("train.label_smoothing", c.train.label_smoothing);
  visit("train.clip", c.train.clip);
  visit("train.threads", c.train.threads);
  visit("train.micro_batch", c.train.micro_batch);
  visit("train.eval_every", c.train.eval_every);
  visit("train.checkpoint_every", c.train.checkpoint_every);
  visit("train.log_every", c.train.log_every);
}

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
