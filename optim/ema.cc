#include "optim/ema.h"

#include <algorithm>

#include "engine/kernels/rows.h"

namespace tessera {

Ema::Ema(const float* values, int64_t count, double decay) : values_(values, values + count), decay_(decay) {}

void Ema::update(const float* values, int64_t step) {
  const double t = double(step);
  const float keep = float(std::min(decay_, (1 + t) / (10 + t)));
  elements(int64_t(values_.size()),
           [=, ema = values_.data()](int64_t i) { ema[i] = keep * ema[i] + (1 - keep) * values[i]; });
}

void Ema::swap(float* values) { std::swap_ranges(values_.begin(), values_.end(), values); }

}  // namespace tessera
