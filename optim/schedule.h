// Learning rates over a run, one for each step.
#pragma once

#include <cstdint>
#include <string_view>

namespace tessera {

struct ScheduleConfig {
  enum class Kind { cosine, constant };

  Kind kind = Kind::cosine;
  // The defaults are those of small ViTs on small data sets (Lee et al., arXiv 2112.13492); DeiT has
  // min_lr 1e-5 (Touvron et al., arXiv 2012.12877).
  double lr = 1e-3;
  double warmup_lr = 1e-6;
  double min_lr = 1e-6;
  int64_t warmup_steps = 0;
  int64_t total_steps = 0;  // cosine only
};

// The learning rate of step `step`, counted from 0. Linear from warmup_lr at step 0 to lr at step
// warmup_steps. Then lr for good, or a half cosine (Loshchilov & Hutter, "SGDR", 2017, without restarts) down
// to min_lr at total_steps, where it stays. A cosine that ends before its warm-up does is Error(Exit::usage).
double learning_rate(const ScheduleConfig& config, int64_t step);

}  // namespace tessera
