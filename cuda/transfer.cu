// Copies between the host and the card that nobody waits for.
#include "cuda/context.h"
#include "cuda/runtime.h"

namespace tessera::cuda {
namespace {

void* pinned(size_t bytes) {
  context();  // on this thread
  void* buffer = nullptr;
  TESSERA_CUDA_CALL(cudaMallocHost(&buffer, bytes));
  return buffer;
}

}  // namespace

Upload::Upload(void* to, size_t bytes) : to_(to), arriving_(allocate(bytes)), taken_(make_event()) {
  for (size_t i = 0; i < 2; ++i) {
    buffers_[i] = pinned(bytes);
    left_[i] = make_event();
  }
  TESSERA_CUDA_CALL(cudaEventRecord(taken_, context().stream));  // once it is allocated
}

Upload::~Upload() {
  cudaStreamSynchronize(context().copy_stream);
  for (size_t i = 0; i < 2; ++i) {
    cudaFreeHost(buffers_[i]);
    cudaEventDestroy(left_[i]);
  }
  cudaEventDestroy(taken_);
  release(arriving_);
}

std::byte* Upload::next() {
  const auto i = size_t(blocks_ % 2);
  TESSERA_CUDA_CALL(cudaEventSynchronize(left_[i]));
  return static_cast<std::byte*>(buffers_[i]);
}

void Upload::send(size_t bytes) {
  const auto i = size_t(blocks_++ % 2);
  const auto [stream, copy_stream] = std::pair(context().stream, context().copy_stream);
  TESSERA_CUDA_CALL(cudaStreamWaitEvent(copy_stream, taken_));
  TESSERA_CUDA_CALL(cudaMemcpyAsync(arriving_, buffers_[i], bytes, cudaMemcpyHostToDevice, copy_stream));
  TESSERA_CUDA_CALL(cudaEventRecord(left_[i], copy_stream));
  TESSERA_CUDA_CALL(cudaStreamWaitEvent(stream, left_[i]));
  TESSERA_CUDA_CALL(cudaMemcpyAsync(to_, arriving_, bytes, cudaMemcpyDeviceToDevice, stream));
  TESSERA_CUDA_CALL(cudaEventRecord(taken_, stream));
}

Download::Download(const void* from, size_t bytes) : from_(from), bytes_(bytes) {
  for (size_t i = 0; i < 2; ++i) {
    buffers_[i] = pinned(bytes);
    ready_[i] = make_event();
  }
}

Download::~Download() {
  cudaStreamSynchronize(context().stream);
  for (size_t i = 0; i < 2; ++i) {
    cudaFreeHost(buffers_[i]);
    cudaEventDestroy(ready_[i]);
  }
}

void Download::fetch() {
  const auto i = size_t(fetched_++ % 2);
  copy(buffers_[i], from_, bytes_);
  TESSERA_CUDA_CALL(cudaEventRecord(ready_[i], context().stream));
}

const void* Download::wait() {
  const auto i = size_t(waited_++ % 2);
  TESSERA_CUDA_CALL(cudaEventSynchronize(ready_[i]));
  return buffers_[i];
}

}  // namespace tessera::cuda
