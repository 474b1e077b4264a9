// Layer norm of rows that a warp holds in registers: x and dy are read once, and one pass gives dx and the
// terms of dgamma and dbeta, whose sums have a fixed order. Rows that do not fit go by the programs of the
// op.
#include "cuda/programs.cuh"
#include "engine/kernels/backends.h"
#include "engine/tensor/tensor.h"

namespace tessera::cuda {
namespace {

constexpr int kTeams = kBlockThreads / kWarp;  // rows that a block works on at once
constexpr int kPair = 2;                       // neighbours of a lane
constexpr int kMostPairs = 16;                 // of a lane

// The pairs of a lane in a row of C channels: lane, lane + kWarp, ...
template <int kPairs, class F>
__device__ void each_pair(int64_t C, F f) {
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const int j = (p * kWarp + int(threadIdx.x)) * kPair;
    if (j < C) f(p, j);
  }
}

__device__ float sum_over_warp(float value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

using Pair = Vec<float, kPair>;

template <class T>
__device__ Pair load_pair(const T* at) {
  const auto own = load_vec<kPair>(at);
  return {float(own.v[0]), float(own.v[1])};
}

template <int kPairs, class Y>
__global__ void __launch_bounds__(kBlockThreads)
    forward_kernel(int64_t M, int64_t C, float eps, const float* x, const float* gamma, const float* beta,
                   Y* y, float* mean, float* rstd) {
  const int64_t i = int64_t(blockIdx.x) * kTeams + threadIdx.y;
  if (i >= M) return;
  Pair own[kPairs];
  float sum = 0, squares = 0;
  each_pair<kPairs>(C, [&](int p, int j) {
    own[p] = load_pair(x + i * C + j);
    sum += own[p].v[0] + own[p].v[1];
  });
  const float center = sum_over_warp(sum) / float(C);
  each_pair<kPairs>(C, [&](int p, int) {
    for (float& value : own[p].v) {
      value -= center;
      squares += value * value;
    }
  });
  const float inverse = 1 / std::sqrt(sum_over_warp(squares) / float(C) + eps);
  each_pair<kPairs>(C, [&](int p, int j) {
    const Pair scale = load_vec<kPair>(gamma + j), shift = load_vec<kPair>(beta + j);
    Vec<Y, kPair> out;
    for (int k = 0; k < kPair; ++k) out.v[k] = own[p].v[k] * inverse * scale.v[k] + shift.v[k];
    store_vec(y + i * C + j, out);
  });
  if (threadIdx.x == 0) {
    mean[i] = center;
    rstd[i] = inverse;
  }
}

// Leaves the block's part of dgamma and dbeta in row blockIdx.x of `parts`.
template <int kPairs, class Y>
__global__ void __launch_bounds__(kBlockThreads)
    backward_kernel(int64_t M, int64_t C, const float* x, const float* gamma, const float* mean,
                    const float* rstd, const Y* dy, GradTarget<float> dx, PartialSums<float, 2> parts) {
  Pair dgamma[kPairs] = {}, dbeta[kPairs] = {};
  for (int64_t i = int64_t(blockIdx.x) * kTeams + threadIdx.y; i < M; i += int64_t(gridDim.x) * kTeams) {
    const float center = mean[i], inverse = rstd[i];
    Pair xhat[kPairs], g[kPairs];
    float sum = 0, product = 0;
    each_pair<kPairs>(C, [&](int p, int j) {
      xhat[p] = load_pair(x + i * C + j);
      g[p] = load_pair(dy + i * C + j);
    });
    each_pair<kPairs>(C, [&](int p, int j) {
      const Pair scale = load_vec<kPair>(gamma + j);
      for (int k = 0; k < kPair; ++k) {
        float &hat = xhat[p].v[k], &slope = g[p].v[k];
        hat = (hat - center) * inverse;
        dgamma[p].v[k] += slope * hat;
        dbeta[p].v[k] += slope;
        slope *= scale.v[k];
        sum += slope;
        product += slope * hat;
      }
    });
    if (!dx) continue;
    const float mean_g = sum_over_warp(sum) / float(C), mean_gx = sum_over_warp(product) / float(C);
    each_pair<kPairs>(C, [&](int p, int j) {
      float* const to = dx.data + i * C + j;
      Pair out = dx.beta == 0 ? Pair{} : load_vec<kPair>(to);
      for (int k = 0; k < kPair; ++k) out.v[k] += inverse * (g[p].v[k] - mean_g - xhat[p].v[k] * mean_gx);
      store_vec(to, out);
    });
  }
  __shared__ Pair sums[2][kWarp * kPairs];
  for (int team = 0; team < kTeams; ++team) {  // in this order
    if (int(threadIdx.y) == team)
      each_pair<kPairs>(C, [&](int p, int j) {
        Pair &gammas = sums[0][j / kPair], &betas = sums[1][j / kPair];
        for (int k = 0; k < kPair; ++k) {
          gammas.v[k] = (team > 0 ? gammas.v[k] : 0) + dgamma[p].v[k];
          betas.v[k] = (team > 0 ? betas.v[k] : 0) + dbeta[p].v[k];
        }
      });
    __syncthreads();
  }
  for (int j = int(threadIdx.y) * kWarp + int(threadIdx.x); j < C; j += kBlockThreads)
    for (int k = 0; k < 2; ++k) parts.parts[k][int64_t(blockIdx.x) * C + j] = sums[k][j / kPair].v[j % kPair];
}

// Calls f.operator()<kPairs>() with the pairs that a lane needs for C channels; false where it cannot have
// them.
template <class F>
bool with_pairs(int64_t C, F f) {
  const int64_t pairs = (C / kPair + kWarp - 1) / kWarp;
  if (C == 0 || C % kPair != 0 || pairs > kMostPairs) return false;
  if (pairs <= 1)
    f.template operator()<1>();
  else if (pairs <= 3)
    f.template operator()<3>();
  else if (pairs <= 6)
    f.template operator()<6>();
  else if (pairs <= 12)
    f.template operator()<12>();
  else
    f.template operator()<kMostPairs>();
  return true;
}

}  // namespace

template <class Y>
bool layer_norm_forward(int64_t M, int64_t C, float eps, const float* x, const float* gamma,
                        const float* beta, Y* y, float* mean, float* rstd) {
  if (M == 0 || !aligned_to<kPair>(x, gamma, beta) || !aligned_to<kPair>(y)) return false;
  return with_pairs(C, [&]<int kPairs>() {
    forward_kernel<kPairs><<<unsigned((M + kTeams - 1) / kTeams), dim3(kWarp, kTeams), 0, context().stream>>>(
        M, C, eps, x, gamma, beta, y, mean, rstd);
    check_launch("layer_norm_forward");
  });
}

template <class Y>
bool layer_norm_backward(int64_t M, int64_t C, const float* x, const float* gamma, const float* mean,
                         const float* rstd, const Y* dy, const GradTarget<float>& dx,
                         const GradTarget<float>& dgamma, const GradTarget<float>& dbeta) {
  if (M == 0 || !aligned_to<kPair>(x, gamma, dx.data) || !aligned_to<kPair>(dy)) return false;
  return with_pairs(C, [&]<int kPairs>() {
    constexpr int64_t kMostBlocks = 528;  // four on each multiprocessor of an H200
    const int64_t blocks = std::min(kMostBlocks, (M + kTeams - 1) / kTeams);
    Tensor sums({2 * blocks * C}, DType::f32);
    const auto parts = partial_sums<float, 2>(blocks, C, sums.mutable_data<float>());
    backward_kernel<kPairs><<<unsigned(blocks), dim3(kWarp, kTeams), 0, context().stream>>>(
        M, C, x, gamma, mean, rstd, dy, dx, parts);
    check_launch("layer_norm_backward");
    if (dgamma || dbeta)
      sum_partial<float, 2>(1, blocks, {dgamma.data, dbeta.data}, {dgamma.beta, dbeta.beta}, parts);
  });
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

}  // namespace tessera::cuda
