#include "optim/sam.h"

#include <algorithm>

#include "engine/kernels/rows.h"

namespace tessera {

void Sam::climb(float* values, const float* gradients, int64_t count, double norm) {
  kept_.assign(values, values + count);
  if (norm == 0) return;
  const float step = float(rho_ / norm);
  elements(count, [=](int64_t i) { values[i] += step * gradients[i]; });
}

void Sam::descend(float* values) const { std::copy(kept_.begin(), kept_.end(), values); }

}  // namespace tessera
