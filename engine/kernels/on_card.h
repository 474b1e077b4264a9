// How a program finds its way to a card: a file that is compiled as CUDA launches it there, any other
// refuses.
#pragma once

#include "engine/base/check.h"
#include "engine/base/device.h"

#ifdef __CUDACC__
#include "cuda/programs.cuh"
#define TESSERA_ON_CARD(launch) ::tessera::cuda::launch
// Programs of the CPU alone may pass lambdas that no card could run.
#define TESSERA_HOST_LAMBDAS _Pragma("nv_exec_check_disable")
#else
#define TESSERA_ON_CARD(launch) ::tessera::refuse_card()
#define TESSERA_HOST_LAMBDAS
#endif

namespace tessera {

inline bool on_card() { return Device::current().is_cuda(); }

[[noreturn]] inline void refuse_card(const char* op = "this op") {
  fail(Exit::device, op, " has no CUDA kernel yet (docs/gpu.md); use --device cpu");
}

}  // namespace tessera
