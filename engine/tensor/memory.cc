#include "engine/tensor/memory.h"

#include <cstdlib>
#include <cstring>

#include "engine/base/check.h"

namespace tessera {

void* allocate_memory(const Device& device, size_t bytes, size_t alignment) {
  bytes = (std::max<size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  if (device.is_cuda()) {
    const Device::Scope there(device);
    return cuda::allocate(bytes);  // aligned to 256 bytes and more
  }
  void* const block = std::aligned_alloc(alignment, bytes);
  TESSERA_CHECK_AS(Exit::device, block, "out of memory: ", bytes,
                   " bytes could not be allocated; a smaller batch or micro-batch needs less");
  return block;
}

void release_memory(const Device& device, void* block) {
  if (!device.is_cuda()) return std::free(block);
  const Device::Scope there(device);
  cuda::release(block);
}

void copy_memory(void* to, const Device& to_device, const void* from, const Device& from_device,
                 size_t bytes) {
  if (bytes == 0) return;
  if (!to_device.is_cuda() && !from_device.is_cuda()) {
    std::memcpy(to, from, bytes);
    return;
  }
  if (to_device.is_cuda() && from_device.is_cuda() && to_device != from_device)
    return cuda::copy_across(to, to_device, from, from_device, bytes);
  const Device::Scope there(to_device.is_cuda() ? to_device : from_device);
  cuda::copy(to, from, bytes);
  if (to_device != from_device) cuda::synchronize();
}

void zero(void* to, size_t bytes) {
  if (Device::current().is_cuda()) return cuda::zero(to, bytes);
  std::memset(to, 0, bytes);
}

}  // namespace tessera
