#include "optim/ema.h"

#include <algorithm>

#include "engine/kernels/rows.h"
#include "engine/tensor/memory.h"

namespace tessera {
namespace {

struct Approach {
  float keep;
  const float* values;
  float* ema;
  TESSERA_FN void operator()(int64_t i) const { ema[i] = keep * ema[i] + (1 - keep) * values[i]; }
};

struct Exchange {
  float *a, *b;
  TESSERA_FN void operator()(int64_t i) const {
    const float value = a[i];
    a[i] = b[i];
    b[i] = value;
  }
};

}  // namespace

Ema::Ema(const float* values, int64_t count, double decay) : values_({count}, DType::f32), decay_(decay) {
  copy(values_.mutable_data<float>(), values, count);
}

void Ema::update(const float* values, int64_t step) {
  const double t = double(step);
  const float keep = float(std::min(decay_, (1 + t) / (10 + t)));
  elements(values_.count(), Approach{keep, values, values_.mutable_data<float>()});
}

void Ema::swap(float* values) { elements(values_.count(), Exchange{values_.mutable_data<float>(), values}); }

}  // namespace tessera
