// What the engine asks of a card beside kernels: memory, copies and waiting, on the current device and in the
// order of its one stream. none.cc stands in where the build has no CUDA: there no device is ever current.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cuda {

void* allocate(size_t bytes);
void release(void* block);
// Between any two places; the host's side must stay as it is until the stream has come by.
void copy(void* to, const void* from, size_t bytes);
void zero(void* to, size_t bytes);
void fill(float* to, int64_t n, float value);
void fill(double* to, int64_t n, double value);
// Whether f32 products may round their operands to tf32 (10 bits of mantissa); off until --dtype tf32.
bool& use_tf32();
// Waits for all that was asked for.
void synchronize();

}  // namespace tessera::cuda
