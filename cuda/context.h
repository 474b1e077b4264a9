// What the back-end's own files share: checked calls, and the card's stream and limits.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "engine/base/check.h"
#include "engine/base/device.h"

namespace tessera::cuda {

// Throws Error(Exit::device) that names the call, unless all is well.
void check(cudaError_t status, const char* call);

constexpr int kMaxCards = 64;

struct Context {
  cudaStream_t stream = nullptr;       // all kernels and copies of a step, in order
  cudaStream_t copy_stream = nullptr;  // what overlaps with them
  int multiprocessors = 0;
  std::string name;
};

// That of the current device, on which this thread's CUDA calls work from here on. Made at the first call:
// an old driver or an unsupported card is Error(Exit::device).
Context& context();

// An event of the current device to order streams by, and to wait for without keeping a core busy.
cudaEvent_t make_event();

// After a kernel launch: its error, under its name.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace tessera::cuda

#define TESSERA_CUDA_CALL(call) ::tessera::cuda::check(call, #call)
