#include "models/flops.h"

#include "models/registry.h"

namespace tessera {

ModelCost cost(const ModelConfig& c) { return architecture_by_name(c.architecture).cost(c); }

}  // namespace tessera
