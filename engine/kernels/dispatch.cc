// Products, attention and convolution on the current device.
#include <algorithm>

#include "engine/base/check.h"
#include "engine/base/device.h"
#include "engine/kernels/backends.h"

namespace tessera {
namespace {

bool on_card() { return Device::current().is_cuda(); }

int64_t checked_ld(const char* matrix, int64_t ld, int64_t row) {
  TESSERA_CHECK(ld == 0 || ld >= row, "gemm: ld", matrix, "=", ld, " is shorter than a row of ", matrix, ", ",
                row, " elements; 0 stands for dense rows");
  return ld == 0 ? row : ld;
}

template <class T, class Out>
Gemm<T, Out> checked(const Gemm<T, Out>& given) {
  Gemm<T, Out> g = given;
  TESSERA_CHECK(g.m >= 0 && g.n >= 0 && g.k >= 0, "gemm: sizes (m,n,k) = (", g.m, ",", g.n, ",", g.k,
                ") must not be negative");
  TESSERA_CHECK(on_card() || !g.addend, "gemm: addend is for a card alone");
  g.lda = checked_ld("a", g.lda, g.transpose_a ? g.m : g.k);
  g.ldb = checked_ld("b", g.ldb, g.transpose_b ? g.k : g.n);
  g.ldc = checked_ld("c", g.ldc, g.n);
  return g;
}

}  // namespace

template <class T, class Out>
void gemm(const Gemm<T, Out>& given) {
  const Gemm<T, Out> g = checked(given);
  if (g.m == 0 || g.n == 0) return;
  on_card() ? cuda::gemm(g, {}) : cpu::gemm(g);
}

template <class T, class Out>
void gemm(const Gemm<T, Out>& given, const GemmBatch& batch) {
  if (batch.count == 1) return gemm(given);
  constexpr int64_t kMost = 65535;  // a card counts no further along the axis of the products
  Gemm<T, Out> g = checked(given);
  TESSERA_CHECK(!g.addend, "gemm: ", batch.count, " products have no addend");
  const bool together = on_card() && g.m > 0 && g.n > 0 && g.k > 0;
  for (int64_t first = 0; first < batch.count;) {
    const int64_t count = together ? std::min(kMost, batch.count - first) : 1;
    if (together)
      cuda::gemm(g, {count, batch.stride_a, batch.stride_b, batch.stride_c, batch.stride_bias});
    else
      gemm(g);
    g.a += count * batch.stride_a;
    g.b += count * batch.stride_b;
    g.c += count * batch.stride_c;
    if (g.bias) g.bias += count * batch.stride_bias;
    first += count;
  }
}

template <class T>
void attention_forward(const AttentionShape& shape, const T* qkv, Wide<T> scale, T* out, Wide<T>* lse) {
  on_card() ? cuda::attention_forward(shape, qkv, scale, out, lse)
            : cpu::attention_forward(shape, qkv, scale, out, lse);
}

template <class T>
void attention_backward(const AttentionShape& shape, const T* qkv, Wide<T> scale, const T* out,
                        const Wide<T>* lse, const T* dout, T* dqkv, Wide<T> beta) {
  TESSERA_CHECK(beta == 0 || beta == 1, "attention_backward: beta is ", beta,
                ", expected 0 (overwrite) or 1 (add)");
  on_card() ? cuda::attention_backward(shape, qkv, scale, out, lse, dout, dqkv, beta)
            : cpu::attention_backward(shape, qkv, scale, out, lse, dout, dqkv, beta);
}

template <class T>
void conv_forward(const ConvShape& s, const T* x, const T* weight, const T* bias, T* y) {
  on_card() ? cuda::conv_forward(s, x, weight, bias, y) : cpu::conv_forward(s, x, weight, bias, y);
}

template <class T>
void conv_data_gradient(const ConvShape& s, const T* weight, const T* dy, T* dx, T beta) {
  on_card() ? cuda::conv_data_gradient(s, weight, dy, dx, beta)
            : cpu::conv_data_gradient(s, weight, dy, dx, beta);
}

template <class T>
void conv_weight_gradient(const ConvShape& s, const T* x, const T* dy, T* dweight, T beta) {
  on_card() ? cuda::conv_weight_gradient(s, x, dy, dweight, beta)
            : cpu::conv_weight_gradient(s, x, dy, dweight, beta);
}

#define TESSERA_INSTANTIATE(T)                                                                               \
  template void gemm(const Gemm<T>&);                                                                        \
  template void gemm(const Gemm<T>&, const GemmBatch&);                                                      \
  template void attention_forward(const AttentionShape&, const T*, T, T*, T*);                               \
  template void attention_backward(const AttentionShape&, const T*, T, const T*, const T*, const T*, T*, T); \
  template void conv_forward(const ConvShape&, const T*, const T*, const T*, T*);                            \
  template void conv_data_gradient(const ConvShape&, const T*, const T*, T*, T);                             \
  template void conv_weight_gradient(const ConvShape&, const T*, const T*, T*, T);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE
template void gemm(const Gemm<bf16>&);
template void gemm(const Gemm<bf16, float>&);
template void gemm(const Gemm<bf16>&, const GemmBatch&);
template void gemm(const Gemm<bf16, float>&, const GemmBatch&);
template void attention_forward(const AttentionShape&, const bf16*, float, bf16*, float*);
template void attention_backward(const AttentionShape&, const bf16*, float, const bf16*, const float*,
                                 const bf16*, bf16*, float);

}  // namespace tessera
