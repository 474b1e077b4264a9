// Softmax attention on packed projections: O = softmax(scale Q K^T) V for each image and head.
// Letters: B batch, N tokens, H heads, D head size. Arrays are dense, last index fastest.
#pragma once

#include <cstdint>

#include "engine/base/bf16.h"

namespace tessera {

constexpr int64_t kWidestHeadOnCard = 64;  // the largest D that a card has kernels for

struct AttentionShape {
  int64_t B, N, H, D;
  int64_t first = 0;  // tokens whose results are wanted, the first M; 0: all, which a card always takes

  int64_t M() const { return first > 0 ? first : N; }
};

// qkv (B,N,3,H,D) -> out (B,M,H*D), and, unless lse is null, lse (B,H,M) = log sum_j exp(scale q_i . k_j),
// all that backward needs of the M x N probabilities. A NaN in qkv reaches every output that depends on it.
template <class T>
void attention_forward(const AttentionShape& shape, const T* qkv, Wide<T> scale, T* out, Wide<T>* lse);

// From dout (B,M,H*D), with out and lse of the forward pass, to dqkv (B,N,3,H,D) = gradient + beta * dqkv.
// beta is 0 (dqkv is not read) or 1. The probabilities are computed again from lse (Dao et al.,
// "FlashAttention", 2022, appendix B.2): P = exp(scale Q K^T - lse), dV = P^T dO, dP = dO V^T, dS = P * (dP -
// rowsum(dO * O)), dQ = scale dS K, dK = scale dS^T Q.
template <class T>
void attention_backward(const AttentionShape& shape, const T* qkv, Wide<T> scale, const T* out,
                        const Wide<T>* lse, const T* dout, T* dqkv, Wide<T> beta);

}  // namespace tessera
