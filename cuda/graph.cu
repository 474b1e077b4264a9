// A step as one CUDA graph, recorded from what is asked of the stream.
#include "cuda/context.h"
#include "cuda/runtime.h"

namespace tessera::cuda {

Graph::~Graph() {
  if (executable_) cudaGraphExecDestroy(executable_);  // freed once it has run
}

std::string Graph::record(const std::function<void()>& work) {
  if (executable_) TESSERA_CUDA_CALL(cudaGraphExecDestroy(std::exchange(executable_, nullptr)));
  const cudaStream_t stream = context().stream;
  // What another thread asks of the card meanwhile is none of it.
  TESSERA_CUDA_CALL(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  const auto discard = [&] {
    cudaStreamEndCapture(stream, &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();  // forgotten: the capture was given up
  };
  try {
    work();
    TESSERA_CUDA_CALL(cudaStreamEndCapture(stream, &graph));
  } catch (const Error& error) {
    discard();
    if (error.code() != Exit::device) throw;
    return error.what();
  } catch (...) {
    discard();
    throw;
  }
  const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
  cudaGraphDestroy(graph);
  if (status == cudaSuccess) return {};
  executable_ = nullptr;
  cudaGetLastError();  // forgotten: the work can go on without a graph
  return std::string("cudaGraphInstantiate: ") + cudaGetErrorString(status);
}

void Graph::launch() { TESSERA_CUDA_CALL(cudaGraphLaunch(executable_, context().stream)); }

}  // namespace tessera::cuda
