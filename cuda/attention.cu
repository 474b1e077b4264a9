// Attention without an N x N tensor, forward and backward (Dao et al., "FlashAttention", 2022), on the
// ordinary cores in f32 or f64. A team of one, two or four threads owns one row, of queries or of keys, in
// registers; the block goes through the rows of the other side by tiles in shared memory, which all its teams
// read at once. Every sum has one order and every output one writer: two runs give the same bits.
#include <limits>

#include "cuda/context.h"
#include "cuda/heads.h"
#include "cuda/programs.cuh"
#include "engine/base/vec_math.h"
#include "engine/kernels/backends.h"
#include "engine/tensor/tensor.h"

namespace tessera::cuda {
namespace {

constexpr int kTile = 32;         // rows of the other side in shared memory
constexpr int kMaxThreads = 128;  // of a block

template <class T>
struct alignas(16) Vector {
  static constexpr int kSize = int(16 / sizeof(T));
  T v[kSize];
};

// How the D <= kD numbers of a row are shared out to a team: vector by vector, in turn.
template <class T, int kD>
struct Team {
  static constexpr int kVector = Vector<T>::kSize;
  static constexpr int kMost = int(128 / sizeof(T));  // numbers of a thread
  static constexpr int kSize = kD > kMost ? kD / kMost : 1;
  static constexpr int kOwn = kD / kSize;

  // Where the thread's i-th number stands in the row.
  __device__ static int place(int i, int member) {
    return (i / kVector * kSize + member) * kVector + i % kVector;
  }
  // Of the thread's numbers and a row in shared memory; all of the team get the sum.
  __device__ static T dot(const T (&own)[kOwn], const T* row, int member) {
    T sum = 0;
#pragma unroll
    for (int c = 0; c < kOwn / kVector; ++c) {
      const auto part = reinterpret_cast<const Vector<T>*>(row)[c * kSize + member];
#pragma unroll
      for (int e = 0; e < kVector; ++e) sum += own[c * kVector + e] * part.v[e];
    }
#pragma unroll
    for (int distance = 1; distance < kSize; distance *= 2)
      sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    return sum;
  }
  __device__ static void add_scaled(T (&own)[kOwn], T factor, const T* row, int member) {
#pragma unroll
    for (int c = 0; c < kOwn / kVector; ++c) {
      const auto part = reinterpret_cast<const Vector<T>*>(row)[c * kSize + member];
#pragma unroll
      for (int e = 0; e < kVector; ++e) own[c * kVector + e] += factor * part.v[e];
    }
  }
  // The thread's part of a row of `D` numbers, 0 beyond them and where there is no row.
  __device__ static void load(T (&own)[kOwn], const T* row, bool there, int64_t D, T factor, int member) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int d = place(i, member);
      own[i] = there && d < D ? row[d] * factor : T(0);
    }
  }
  __device__ static void store(const T (&own)[kOwn], T* row, int64_t D, T factor, T beta, int member) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int d = place(i, member);
      if (d < D) row[d] = beta == T(0) ? factor * own[i] : row[d] + factor * own[i];
    }
  }
};

// Rows first to first + kTile of an array whose rows lie `stride` apart, 0 beyond N rows and D numbers.
template <class T, int kD>
__device__ void load_tile(T (&tile)[kTile][kD], const T* from, int64_t stride, int64_t first, int64_t N,
                          int64_t D, T factor) {
  for (int i = int(threadIdx.x); i < kTile * kD; i += int(blockDim.x)) {
    const int row = i / kD, d = i % kD;
    tile[row][d] = first + row < N && d < D ? from[(first + row) * stride + d] * factor : T(0);
  }
}

// One head, and the row of this thread's team in it; blocks of a head follow one another.
template <class T, int kD>
struct Place {
  Heads s;
  int64_t head, i;
  int member;

  __device__ Place(const AttentionShape& shape, int64_t blocks_of_head) : s{shape} {
    const int64_t teams = blockDim.x / Team<T, kD>::kSize;
    head = int64_t(blockIdx.x) / blocks_of_head;
    i = int64_t(blockIdx.x) % blocks_of_head * teams + threadIdx.x / Team<T, kD>::kSize;
    member = int(threadIdx.x) % Team<T, kD>::kSize;
  }
  __device__ bool there() const { return i < s.N; }
  __device__ int64_t row() const { return s.row(); }
  __device__ int64_t out_row() const { return s.out_row(); }
  __device__ int64_t qkv_at() const { return s.qkv_at(head); }
  __device__ int64_t out_at() const { return s.out_at(head); }
};

// The running softmax of a row: `highest` so far and, relative to it, the sum of weights and of weighted
// values.
template <class T, int kD>
__global__ void __launch_bounds__(kMaxThreads)
    forward_kernel(AttentionShape shape, int64_t blocks_of_head, const T* qkv, T scale, T* out, T* lse) {
  using Own = Team<T, kD>;
  constexpr int kChunk = 8;  // keys between two corrections of the sums
  __shared__ alignas(16) T keys[kTile][kD], values[kTile][kD];
  const Place<T, kD> at(shape, blocks_of_head);
  const T* const query_rows = qkv + at.qkv_at();
  const T* const key_rows = query_rows + at.out_row();
  T query[Own::kOwn], sums[Own::kOwn] = {};
  Own::load(query, query_rows + at.i * at.row(), at.there(), shape.D, scale, at.member);
  T highest = -std::numeric_limits<T>::infinity(), total = 0;
  for (int64_t first = 0; first < shape.N; first += kTile) {
    __syncthreads();  // the last tile was read
    load_tile(keys, key_rows, at.row(), first, shape.N, shape.D, T(1));
    load_tile(values, key_rows + at.out_row(), at.row(), first, shape.N, shape.D, T(1));
    __syncthreads();
    const int count = int(shape.N - first < kTile ? shape.N - first : kTile);
    for (int begin = 0; begin < count; begin += kChunk) {
      T scores[kChunk], highest_now = highest;
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {  // beyond `count` the tile holds zeros
        scores[j] = Own::dot(query, keys[begin + j], at.member);
        if (begin + j >= count) scores[j] = -std::numeric_limits<T>::infinity();
        highest_now = highest_now < scores[j] ? scores[j] : highest_now;
      }
      const T correction = vexp(highest - highest_now);
      highest = highest_now;
      total *= correction;
#pragma unroll
      for (int i = 0; i < Own::kOwn; ++i) sums[i] *= correction;
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        if (begin + j >= count) break;
        const T weight = vexp(scores[j] - highest);
        total += weight;
        Own::add_scaled(sums, weight, values[begin + j], at.member);
      }
    }
  }
  if (!at.there()) return;
  Own::store(sums, out + at.out_at() + at.i * at.out_row(), shape.D, T(1) / total, T(0), at.member);
  if (lse && at.member == 0) lse[at.head * shape.N + at.i] = highest + std::log(total);
}

// dQ of a row of queries, and delta = rowsum(dO * O), which the keys need too.
template <class T, int kD>
__global__ void __launch_bounds__(kMaxThreads)
    query_gradient_kernel(AttentionShape shape, int64_t blocks_of_head, const T* qkv, T scale, const T* out,
                          const T* lse, const T* dout, T* delta, T* dqkv, T beta) {
  using Own = Team<T, kD>;
  __shared__ alignas(16) T keys[kTile][kD], values[kTile][kD];
  const Place<T, kD> at(shape, blocks_of_head);
  const T* const query_rows = qkv + at.qkv_at();
  const T* const key_rows = query_rows + at.out_row();
  const int64_t own_out = at.out_at() + at.i * at.out_row();
  T query[Own::kOwn], grad_out[Own::kOwn], grad[Own::kOwn] = {}, own_delta = 0;
  Own::load(query, query_rows + at.i * at.row(), at.there(), shape.D, scale, at.member);
  Own::load(grad_out, dout + own_out, at.there(), shape.D, T(1), at.member);
  Own::load(grad, out + own_out, at.there(), shape.D, T(1), at.member);
#pragma unroll
  for (int i = 0; i < Own::kOwn; ++i) {
    own_delta += grad[i] * grad_out[i];
    grad[i] = 0;
  }
#pragma unroll
  for (int distance = 1; distance < Own::kSize; distance *= 2)
    own_delta += __shfl_xor_sync(0xffffffffu, own_delta, distance);
  const T own_lse = at.there() ? lse[at.head * shape.N + at.i] : T(0);
  for (int64_t first = 0; first < shape.N; first += kTile) {
    __syncthreads();
    load_tile(keys, key_rows, at.row(), first, shape.N, shape.D, T(1));
    load_tile(values, key_rows + at.out_row(), at.row(), first, shape.N, shape.D, T(1));
    __syncthreads();
    const int count = int(shape.N - first < kTile ? shape.N - first : kTile);
    for (int j = 0; j < count; ++j) {
      const T weight = vexp(Own::dot(query, keys[j], at.member) - own_lse);
      const T slope = weight * (Own::dot(grad_out, values[j], at.member) - own_delta);
      Own::add_scaled(grad, slope, keys[j], at.member);
    }
  }
  if (!at.there()) return;
  Own::store(grad, dqkv + at.qkv_at() + at.i * at.row(), shape.D, scale, beta, at.member);
  if (at.member == 0) delta[at.head * shape.N + at.i] = own_delta;
}

// dK and dV of a row of keys, from `delta` of all queries.
template <class T, int kD>
__global__ void __launch_bounds__(kMaxThreads)
    key_gradient_kernel(AttentionShape shape, int64_t blocks_of_head, const T* qkv, T scale, const T* lse,
                        const T* delta, const T* dout, T* dqkv, T beta) {
  using Own = Team<T, kD>;
  __shared__ alignas(16) T queries[kTile][kD], grad_outs[kTile][kD];
  __shared__ T lses[kTile], deltas[kTile];
  const Place<T, kD> at(shape, blocks_of_head);
  const T* const query_rows = qkv + at.qkv_at();
  const T* const key_row = query_rows + at.out_row() + at.i * at.row();
  T key[Own::kOwn], value[Own::kOwn], grad_key[Own::kOwn] = {}, grad_value[Own::kOwn] = {};
  Own::load(key, key_row, at.there(), shape.D, T(1), at.member);
  Own::load(value, key_row + at.out_row(), at.there(), shape.D, T(1), at.member);
  for (int64_t first = 0; first < shape.N; first += kTile) {
    __syncthreads();
    load_tile(queries, query_rows, at.row(), first, shape.N, shape.D, scale);
    load_tile(grad_outs, dout + at.out_at(), at.out_row(), first, shape.N, shape.D, T(1));
    const int count = int(shape.N - first < kTile ? shape.N - first : kTile);
    if (int(threadIdx.x) < count) {  // a block has a warp, so kTile threads, at least
      lses[threadIdx.x] = lse[at.head * shape.N + first + threadIdx.x];
      deltas[threadIdx.x] = delta[at.head * shape.N + first + threadIdx.x];
    }
    __syncthreads();
    for (int i = 0; i < count; ++i) {
      const T weight = vexp(Own::dot(key, queries[i], at.member) - lses[i]);
      const T slope = weight * (Own::dot(value, grad_outs[i], at.member) - deltas[i]);
      Own::add_scaled(grad_value, weight, grad_outs[i], at.member);
      Own::add_scaled(grad_key, slope, queries[i], at.member);
    }
  }
  if (!at.there()) return;
  T* const to = dqkv + at.qkv_at() + at.out_row() + at.i * at.row();
  Own::store(grad_key, to, shape.D, T(1), beta, at.member);
  Own::store(grad_value, to + at.out_row(), shape.D, T(1), beta, at.member);
}

// Blocks of whole warps that share out a head's rows as evenly as they can.
struct Launch {
  int64_t blocks_of_head;
  unsigned blocks, threads;

  Launch(const AttentionShape& s, int team) {
    blocks_of_head = (s.N * team + kMaxThreads - 1) / kMaxThreads;
    const int64_t rows = (s.N + blocks_of_head - 1) / blocks_of_head;
    threads = unsigned((rows * team + kWarp - 1) / kWarp * kWarp);
    blocks = unsigned(s.B * s.H * blocks_of_head);
  }
};

}  // namespace

template <class T>
void attention_forward(const AttentionShape& s, const T* qkv, Wide<T> scale, T* out, Wide<T>* lse) {
  if (s.B * s.H * s.N * s.D == 0) return;
  with_head_size(s, [&]<int kD>() {
    const Launch launch(s, Team<T, kD>::kSize);
    forward_kernel<T, kD><<<launch.blocks, launch.threads, 0, context().stream>>>(s, launch.blocks_of_head,
                                                                                  qkv, scale, out, lse);
  });
  check_launch("attention_forward");
}

template <class T>
void attention_backward(const AttentionShape& s, const T* qkv, Wide<T> scale, const T* out,
                        const Wide<T>* lse, const T* dout, T* dqkv, Wide<T> beta) {
  if (s.B * s.H * s.N * s.D == 0) return;
  Tensor deltas({s.B, s.H, s.N}, dtype_of<T>());
  T* const delta = deltas.mutable_data<T>();
  const cudaStream_t stream = context().stream;
  with_head_size(s, [&]<int kD>() {
    const Launch launch(s, Team<T, kD>::kSize);
    query_gradient_kernel<T, kD><<<launch.blocks, launch.threads, 0, stream>>>(
        s, launch.blocks_of_head, qkv, scale, out, lse, dout, delta, dqkv, beta);
    check_launch("attention_backward (queries)");
    key_gradient_kernel<T, kD><<<launch.blocks, launch.threads, 0, stream>>>(
        s, launch.blocks_of_head, qkv, scale, lse, delta, dout, dqkv, beta);
  });
  check_launch("attention_backward (keys)");
}

template void attention_forward(const AttentionShape&, const float*, float, float*, float*);
template void attention_forward(const AttentionShape&, const double*, double, double*, double*);
template void attention_backward(const AttentionShape&, const float*, float, const float*, const float*,
                                 const float*, float*, float);
template void attention_backward(const AttentionShape&, const double*, double, const double*, const double*,
                                 const double*, double*, double);

}  // namespace tessera::cuda
