#include "optim/schedule.h"

#include <cmath>
#include <numbers>

#include "engine/base/check.h"

namespace tessera {

double learning_rate(const ScheduleConfig& config, int64_t step) {
  const bool cosine = config.kind == ScheduleConfig::Kind::cosine;
  TESSERA_CHECK_AS(Exit::usage, !cosine || config.warmup_steps <= config.total_steps,
                   "schedule: the warm-up of ", config.warmup_steps, " steps is longer than the run of ",
                   config.total_steps, " steps; shorten it");
  if (step < config.warmup_steps)
    return std::lerp(config.warmup_lr, config.lr, double(step) / double(config.warmup_steps));
  if (!cosine) return config.lr;
  if (step >= config.total_steps) return config.min_lr;
  const double done = double(step - config.warmup_steps) / double(config.total_steps - config.warmup_steps);
  return config.min_lr + (config.lr - config.min_lr) * (1 + std::cos(std::numbers::pi * done)) / 2;
}

}  // namespace tessera
