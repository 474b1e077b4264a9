// tessera bench --mode ops: the ops of a ViT's training step one by one, beside what the device can do.
#pragma once

#include <cstdint>

#include "train/config.h"

namespace tessera::cli {

// On the current device, at the sizes of `batch` images.
int bench_ops(const RunConfig& config, int64_t batch, bool json);

}  // namespace tessera::cli
