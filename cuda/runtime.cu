#include "cuda/runtime.h"

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>

#include "cuda/context.h"
#include "cuda/devices.h"

namespace tessera {
namespace cuda {
namespace {

constexpr int kMinMajor = 8;  // compute capability: bf16 and memory pools

__host__ std::string describe(int index) {
  cudaDeviceProp card;
  TESSERA_CUDA_CALL(cudaGetDeviceProperties(&card, index));
  return text(card.name, ", ", card.totalGlobalMem >> 20, " MiB, compute capability ", card.major, ".",
              card.minor, ", ", card.multiProcessorCount, " multiprocessors");
}

std::unique_ptr<Context> make_context(int index) {
  cudaDeviceProp card;
  TESSERA_CUDA_CALL(cudaGetDeviceProperties(&card, index));
  TESSERA_CHECK_AS(Exit::device, card.major >= kMinMajor, "cuda:", index, " (", card.name,
                   ") has compute capability ", card.major, ".", card.minor, ", and ", kMinMajor,
                   ".0 is needed; use --device cpu");
  auto made = std::make_unique<Context>();
  made->multiprocessors = card.multiProcessorCount;
  made->name = card.name;
  TESSERA_CUDA_CALL(cudaStreamCreateWithFlags(&made->stream, cudaStreamNonBlocking));
  TESSERA_CUDA_CALL(cudaStreamCreateWithFlags(&made->copy_stream, cudaStreamNonBlocking));
  // Freed blocks stay with the process: a step's first pass allocates much and often.
  cudaMemPool_t pool;
  TESSERA_CUDA_CALL(cudaDeviceGetDefaultMemPool(&pool, index));
  uint64_t keep = UINT64_MAX;
  TESSERA_CUDA_CALL(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
  return made;
}

template <class T>
__global__ void fill_kernel(T* to, int64_t n, T value) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += int64_t(gridDim.x) * blockDim.x)
    to[i] = value;
}

template <class T>
void fill_any(T* to, int64_t n, T value) {
  if (n == 0) return;
  const int64_t blocks = std::min<int64_t>((n + 255) / 256, 8 * context().multiprocessors);
  fill_kernel<<<unsigned(blocks), 256, 0, context().stream>>>(to, n, value);
  check_launch("fill");
}

}  // namespace

void check(cudaError_t status, const char* call) {
  TESSERA_CHECK_AS(Exit::device, status == cudaSuccess, "CUDA: ", call, ": ", cudaGetErrorString(status),
                   " (", cudaGetErrorName(status), ")");
}

Context& context() {
  static std::array<std::unique_ptr<Context>, kMaxCards> contexts;
  static std::mutex mutex;
  const Device device = Device::current();
  TESSERA_CHECK(device.is_cuda() && device.index >= 0 && device.index < kMaxCards,
                "cuda: the current device is ", device);
  thread_local int active = -1;
  if (active != device.index) {
    TESSERA_CUDA_CALL(cudaSetDevice(device.index));
    active = device.index;
  }
  const std::lock_guard lock(mutex);
  std::unique_ptr<Context>& slot = contexts[size_t(device.index)];
  if (!slot) slot = make_context(device.index);
  return *slot;
}

cudaEvent_t make_event() {
  context();  // on this thread
  cudaEvent_t event;
  TESSERA_CUDA_CALL(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync));
  return event;
}

void* allocate(size_t bytes) {
  const cudaStream_t stream = context().stream;
  cudaStreamCaptureStatus capturing;
  TESSERA_CUDA_CALL(cudaStreamIsCapturing(stream, &capturing));
  TESSERA_CHECK_AS(Exit::device, capturing == cudaStreamCaptureStatusNone, "CUDA: ", bytes,
                   " bytes were asked for while a graph was recorded, which would keep them to itself");
  void* block = nullptr;
  const cudaError_t status = cudaMallocAsync(&block, bytes, stream);
  if (status == cudaErrorMemoryAllocation) {
    size_t available = 0, total = 0;
    cudaGetLastError();  // forgotten: it is reported here
    TESSERA_CUDA_CALL(cudaMemGetInfo(&available, &total));
    fail(Exit::device, "out of memory on ", Device::current(), " (", context().name, "): ", bytes,
         " bytes could not be allocated, ", available, " of ", total,
         " are free; a smaller train.batch needs less");
  }
  check(status, "cudaMallocAsync");
  return block;
}

void release(void* block) {
  if (block)
    cudaFreeAsync(block, context().stream);  // called by destructors: an error shows at the next call
}

void copy(void* to, const void* from, size_t bytes) {
  if (bytes) TESSERA_CUDA_CALL(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, context().stream));
}

void copy_across(void* to, const Device& to_card, const void* from, const Device& from_card, size_t bytes) {
  const auto after = [](const Device& first, const Device& then) {
    cudaEvent_t done;
    {
      const Device::Scope there(first);
      done = make_event();
      TESSERA_CUDA_CALL(cudaEventRecord(done, context().stream));
    }
    const Device::Scope there(then);
    TESSERA_CUDA_CALL(cudaStreamWaitEvent(context().stream, done));
    TESSERA_CUDA_CALL(cudaEventDestroy(done));
  };
  after(from_card, to_card);  // it is written by then
  {
    const Device::Scope there(to_card);
    copy(to, from, bytes);
  }
  after(to_card, from_card);  // and not written again, nor freed, before
}

void zero(void* to, size_t bytes) {
  if (bytes) TESSERA_CUDA_CALL(cudaMemsetAsync(to, 0, bytes, context().stream));
}

void fill(float* to, int64_t n, float value) { fill_any(to, n, value); }
void fill(double* to, int64_t n, double value) { fill_any(to, n, value); }

bool& use_tf32() {
  static bool tf32 = false;
  return tf32;
}

void synchronize() { TESSERA_CUDA_CALL(cudaStreamSynchronize(context().stream)); }

}  // namespace cuda

std::vector<std::string> cuda_devices(std::string* why_none) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();
    count = 0;
    if (why_none) *why_none = text("no card can be used: ", cudaGetErrorString(status));
  }
  std::vector<std::string> cards;
  for (int i = 0; i < count; ++i) cards.push_back(cuda::describe(i));
  return cards;
}

}  // namespace tessera
