#include "optim/sam.h"

#include "engine/kernels/rows.h"
#include "engine/tensor/memory.h"

namespace tessera {
namespace {

struct Climb {
  double rho;
  const double* norm;
  const float* gradients;
  float* values;
  TESSERA_FN void operator()(int64_t i) const {
    if (*norm != 0) values[i] += float(rho / *norm) * gradients[i];
  }
};

}  // namespace

void Sam::climb(float* values, const float* gradients, int64_t count, const double* norm) {
  if (!kept_) kept_ = Tensor({count}, DType::f32);
  copy(kept_.mutable_data<float>(), values, count);
  elements(count, Climb{rho_, norm, gradients, values});
}

void Sam::descend(float* values) const { copy(values, kept_.data<float>(), kept_.count()); }

}  // namespace tessera
