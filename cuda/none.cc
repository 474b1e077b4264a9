// In place of the back-end in a build without CUDA, so that nobody else asks whether there is one.
#include "cuda/devices.h"
#include "cuda/runtime.h"
#include "engine/base/check.h"
#include "engine/kernels/backends.h"

namespace tessera {

std::vector<std::string> cuda_devices(std::string*) { return {}; }

namespace cuda {
namespace {

[[noreturn]] void absent() { fail(Exit::device, "this build has no CUDA back-end"); }

}  // namespace

void* allocate(size_t) { absent(); }
void release(void*) { absent(); }
void copy(void*, const void*, size_t) { absent(); }
void copy_across(void*, const Device&, const void*, const Device&, size_t) { absent(); }
void zero(void*, size_t) { absent(); }
void fill(float*, int64_t, float) { absent(); }
void fill(double*, int64_t, double) { absent(); }
bool& use_tf32() { absent(); }
void synchronize() { absent(); }

Graph::~Graph() = default;
std::string Graph::record(const std::function<void()>&) { absent(); }
void Graph::launch() { absent(); }
Upload::Upload(void* to, size_t) : to_(to) { absent(); }
Upload::~Upload() = default;
std::byte* Upload::next() { absent(); }
void Upload::send(size_t) { absent(); }
Download::Download(const void* from, size_t bytes) : from_(from), bytes_(bytes) { absent(); }
Download::~Download() = default;
void Download::fetch() { absent(); }
const void* Download::wait() { absent(); }

template <class T, class Out>
void gemm(const Gemm<T, Out>&, const GemmBatch&) {
  absent();
}
template <class T>
void attention_forward(const AttentionShape&, const T*, Wide<T>, T*, Wide<T>*) {
  absent();
}
template <class T>
void attention_backward(const AttentionShape&, const T*, Wide<T>, const T*, const Wide<T>*, const T*, T*,
                        Wide<T>) {
  absent();
}
template <class T>
void conv_forward(const ConvShape&, const T*, const T*, const T*, T*) {
  absent();
}
template <class T>
void conv_data_gradient(const ConvShape&, const T*, const T*, T*, T) {
  absent();
}
template <class T>
void conv_weight_gradient(const ConvShape&, const T*, const T*, T*, T) {
  absent();
}

#define TESSERA_INSTANTIATE(T)                                                                               \
  template void gemm(const Gemm<T>&, const GemmBatch&);                                                      \
  template void attention_forward(const AttentionShape&, const T*, T, T*, T*);                               \
  template void attention_backward(const AttentionShape&, const T*, T, const T*, const T*, const T*, T*, T); \
  template void conv_forward(const ConvShape&, const T*, const T*, const T*, T*);                            \
  template void conv_data_gradient(const ConvShape&, const T*, const T*, T*, T);                             \
  template void conv_weight_gradient(const ConvShape&, const T*, const T*, T*, T);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE
template void gemm(const Gemm<bf16>&, const GemmBatch&);
template void gemm(const Gemm<bf16, float>&, const GemmBatch&);
void attention_forward(const AttentionShape&, const bf16*, float, bf16*, float*) { absent(); }
void attention_backward(const AttentionShape&, const bf16*, float, const bf16*, const float*, const bf16*,
                        bf16*, float) {
  absent();
}
template <class Y>
bool layer_norm_forward(int64_t, int64_t, float, const float*, const float*, const float*, Y*, float*,
                        float*) {
  absent();
}
template <class Y>
bool layer_norm_backward(int64_t, int64_t, const float*, const float*, const float*, const float*, const Y*,
                         const GradTarget<float>&, const GradTarget<float>&, const GradTarget<float>&) {
  absent();
}

#define TESSERA_INSTANTIATE(Y)                                                                            \
  template bool layer_norm_forward(int64_t, int64_t, float, const float*, const float*, const float*, Y*, \
                                   float*, float*);                                                       \
  template bool layer_norm_backward(int64_t, int64_t, const float*, const float*, const float*,           \
                                    const float*, const Y*, const GradTarget<float>&,                     \
                                    const GradTarget<float>&, const GradTarget<float>&);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace cuda
}  // namespace tessera
