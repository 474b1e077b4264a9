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

struct Rule {
  const float* values;
  float* ema;
  TESSERA_FN Approach at(const StepNumbers& numbers) const { return {float(numbers.ema_keep), values, ema}; }
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

double Ema::keep(int64_t step) const {
  const double t = double(step);
  return std::min(decay_, (1 + t) / (10 + t));
}

void Ema::update(const float* values, const StepNumbers* numbers) {
  update_elements(values_.count(), Rule{values, values_.mutable_data<float>()}, numbers);
}

void Ema::swap(float* values) { elements(values_.count(), Exchange{values_.mutable_data<float>(), values}); }

}  // namespace tessera
