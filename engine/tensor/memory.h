// Memory of the host or of a card, and what is done to it without a kernel.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cuda/runtime.h"
#include "engine/base/device.h"

namespace tessera {

// Uninitialised; never null: Error(Exit::device) where there is not enough.
void* allocate_memory(const Device& device, size_t bytes, size_t alignment);
void release_memory(const Device& device, void* block);

// Between any two devices. When a side is the host, its memory may be used again on return.
void copy_memory(void* to, const Device& to_device, const void* from, const Device& from_device,
                 size_t bytes);

// On the current device.
template <class T>
void copy(T* to, const T* from, int64_t n) {
  if (Device::current().is_cuda()) return cuda::copy(to, from, size_t(n) * sizeof(T));
  std::copy_n(from, n, to);
}
void zero(void* to, size_t bytes);
template <class T>
void fill(T* to, int64_t n, T value) {
  if (Device::current().is_cuda()) return cuda::fill(to, n, value);
  std::fill_n(to, n, value);
}

}  // namespace tessera
