// What a back-end provides behind gemm.h, attention.h and conv.h, for T = float and double. dispatch.cc calls
// that of the current device.
#pragma once

#include "engine/kernels/attention.h"
#include "engine/kernels/conv.h"
#include "engine/kernels/gemm.h"

namespace tessera {

namespace cpu {

// m and n are above 0 and every ld is given.
template <class T>
void gemm(const Gemm<T>& g);
template <class T>
void attention_forward(const AttentionShape& shape, const T* qkv, T scale, T* out, T* lse);
template <class T>
void attention_backward(const AttentionShape& shape, const T* qkv, T scale, const T* out, const T* lse,
                        const T* dout, T* dqkv, T beta);
template <class T>
void conv_forward(const ConvShape& shape, const T* x, const T* weight, const T* bias, T* y);
template <class T>
void conv_data_gradient(const ConvShape& shape, const T* weight, const T* dy, T* dx, T beta);
template <class T>
void conv_weight_gradient(const ConvShape& shape, const T* x, const T* dy, T* dweight, T beta);

}  // namespace cpu

namespace cuda {

template <class T>
void gemm(const Gemm<T>& g);
// Sizes are above 0, every ld is given.
template <class T>
void gemm(const Gemm<T>& g, const GemmBatch& batch);
template <class T>
void attention_forward(const AttentionShape& shape, const T* qkv, T scale, T* out, T* lse);
template <class T>
void attention_backward(const AttentionShape& shape, const T* qkv, T scale, const T* out, const T* lse,
                        const T* dout, T* dqkv, T beta);
template <class T>
void conv_forward(const ConvShape& shape, const T* x, const T* weight, const T* bias, T* y);
template <class T>
void conv_data_gradient(const ConvShape& shape, const T* weight, const T* dy, T* dx, T beta);
template <class T>
void conv_weight_gradient(const ConvShape& shape, const T* x, const T* dy, T* dweight, T beta);

}  // namespace cuda
}  // namespace tessera
