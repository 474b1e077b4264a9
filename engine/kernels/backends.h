// What a back-end provides behind gemm.h, attention.h and conv.h, for T = float and double, and products and
// attention in bf16. dispatch.cc calls that of the current device.
#pragma once

#include "engine/kernels/attention.h"
#include "engine/kernels/conv.h"
#include "engine/kernels/gemm.h"
#include "engine/tensor/tensor.h"

namespace tessera {

namespace cpu {

// m and n are above 0 and every ld is given.
template <class T>
void gemm(const Gemm<T>& g);
template <class T>
void attention_forward(const AttentionShape& shape, const T* qkv, Wide<T> scale, T* out, Wide<T>* lse);
template <class T>
void attention_backward(const AttentionShape& shape, const T* qkv, Wide<T> scale, const T* out,
                        const Wide<T>* lse, const T* dout, T* dqkv, Wide<T> beta);
template <class T>
void conv_forward(const ConvShape& shape, const T* x, const T* weight, const T* bias, T* y);
template <class T>
void conv_data_gradient(const ConvShape& shape, const T* weight, const T* dy, T* dx, T beta);
template <class T>
void conv_weight_gradient(const ConvShape& shape, const T* x, const T* dy, T* dweight, T beta);

// By way of f32 (engine/cpu/bf16.cc).
void gemm(const Gemm<bf16>& g);
void gemm(const Gemm<bf16, float>& g);
void attention_forward(const AttentionShape& shape, const bf16* qkv, float scale, bf16* out, float* lse);
void attention_backward(const AttentionShape& shape, const bf16* qkv, float scale, const bf16* out,
                        const float* lse, const bf16* dout, bf16* dqkv, float beta);

}  // namespace cpu

namespace cuda {

// m and n are above 0 and every ld is given.
template <class T, class Out>
void gemm(const Gemm<T, Out>& g, const GemmBatch& batch);
template <class T>
void attention_forward(const AttentionShape& shape, const T* qkv, Wide<T> scale, T* out, Wide<T>* lse);
template <class T>
void attention_backward(const AttentionShape& shape, const T* qkv, Wide<T> scale, const T* out,
                        const Wide<T>* lse, const T* dout, T* dqkv, Wide<T> beta);
template <class T>
void conv_forward(const ConvShape& shape, const T* x, const T* weight, const T* bias, T* y);
template <class T>
void conv_data_gradient(const ConvShape& shape, const T* weight, const T* dy, T* dx, T beta);
template <class T>
void conv_weight_gradient(const ConvShape& shape, const T* x, const T* dy, T* dweight, T beta);

// On tensor cores (cuda/attention_bf16.cu).
void attention_forward(const AttentionShape& shape, const bf16* qkv, float scale, bf16* out, float* lse);
void attention_backward(const AttentionShape& shape, const bf16* qkv, float scale, const bf16* out,
                        const float* lse, const bf16* dout, bf16* dqkv, float beta);

// Layer norm of f32 rows (cuda/layer_norm.cu), y and dy in f32 or bf16; false, and nothing is done, where
// rows are too long for registers, or are not pairs of numbers.
template <class Y>
bool layer_norm_forward(int64_t M, int64_t C, float eps, const float* x, const float* gamma,
                        const float* beta, Y* y, float* mean, float* rstd);
template <class Y>
bool layer_norm_backward(int64_t M, int64_t C, const float* x, const float* gamma, const float* mean,
                         const float* rstd, const Y* dy, const GradTarget<float>& dx,
                         const GradTarget<float>& dgamma, const GradTarget<float>& dbeta);

}  // namespace cuda
}  // namespace tessera
