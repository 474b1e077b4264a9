// Products of the back-end's own files: many of one shape in one call.
#pragma once

#include "engine/kernels/backends.h"

namespace tessera::cuda {

template <class T>
using Batch = GemmBatch;

}  // namespace tessera::cuda
