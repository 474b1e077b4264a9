#include "optim/sam.h"

#include "engine/kernels/rows.h"

namespace tessera {
namespace {

struct Climb {
  double rho;
  const double* norm;
  const float* gradients;
  float *values, *kept;
  bf16* copies;
  TESSERA_FN void operator()(int64_t i) const {
    kept[i] = values[i];
    if (*norm != 0) values[i] += float(rho / *norm) * gradients[i];
    if (copies) copies[i] = values[i];
  }
};

struct Descend {
  const float* kept;
  float* values;
  bf16* copies;
  TESSERA_FN void operator()(int64_t i) const {
    values[i] = kept[i];
    if (copies) copies[i] = values[i];
  }
};

}  // namespace

void Sam::climb(float* values, const float* gradients, int64_t count, const double* norm, bf16* copies) {
  if (!kept_) kept_ = Tensor({count}, DType::f32);
  elements(count, Climb{rho_, norm, gradients, values, kept_.mutable_data<float>(), copies});
}

void Sam::descend(float* values, bf16* copies) const {
  elements(kept_.count(), Descend{kept_.data<float>(), values, copies});
}

}  // namespace tessera
