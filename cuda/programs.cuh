// Row, column and channel programs on a card: kernels over the functors that the CPU runs as loops. A team of
// threads works on a row or a channel: a warp on a short row, eight rows to a block, a block on anything
// longer. Sums have a fixed order, so that two runs give the same bits.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "cuda/context.h"
#include "engine/base/portable.h"
#include "engine/base/vec.h"

namespace tessera::cuda {

constexpr int kWarp = 32;
constexpr int kBlockThreads = 256;

#ifdef __CUDA_ARCH__

// The team of this thread: those of its block with its threadIdx.y, whole warps. A team of several is a
// block.
__device__ inline int64_t team_rank() { return threadIdx.x; }
__device__ inline int64_t team_size() { return blockDim.x; }
__device__ inline void team_sync() {
  if (blockDim.x > kWarp)
    __syncthreads();
  else
    __syncwarp();
}

// combine() of the values of all threads of the team, the same bits in each of them. It must commute.
template <class T, class Combine>
__device__ T team_reduce(T value, Combine combine) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  if (blockDim.x <= kWarp) return value;
  __shared__ T of_warp[kBlockThreads / kWarp];
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = of_warp[0];
  for (int warp = 1; warp < int(blockDim.x) / kWarp; ++warp) value = combine(value, of_warp[warp]);
  __syncthreads();  // the next reduction writes there
  return value;
}

#endif

// (threads of a team, teams of a block) for rows of `width` elements.
inline dim3 team_shape(int64_t width) {
  return width <= 1024 ? dim3(kWarp, kBlockThreads / kWarp) : dim3(kBlockThreads, 1);
}

#ifdef __CUDACC__

template <class Row, class Program>
__global__ void __launch_bounds__(kBlockThreads)
    run_rows(int64_t count, const __grid_constant__ Program program) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i < count) program(Row(), i);
}

template <class Row, class Program>
void rows(int64_t count, int64_t width, const Program& program) {
  if (count == 0) return;
  const dim3 team = team_shape(width);
  run_rows<Row><<<unsigned((count + team.y - 1) / team.y), team, 0, context().stream>>>(count, program);
  check_launch("rows");
}

template <class F>
__global__ void __launch_bounds__(kBlockThreads) run_elements(int64_t n, const __grid_constant__ F f) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) f(i);
}

template <int n, class F>
struct Neighbours {
  F f;
  __device__ void operator()(int64_t i) const { f.template vec<n>(i * n); }
};

template <class F>
void elements(int64_t n, const F& f) {
  if (n == 0) return;
  if constexpr (Vectorized<F>) {
    if (n % F::kVec == 0 && f.aligned()) return cuda::elements(n / F::kVec, Neighbours<F::kVec, F>{f});
    return cuda::elements(n, Neighbours<1, F>{f});
  } else {
    constexpr int kBlocksPerMultiprocessor = 16;
    const int64_t blocks = std::min<int64_t>((n + kBlockThreads - 1) / kBlockThreads,
                                             kBlocksPerMultiprocessor * context().multiprocessors);
    run_elements<<<unsigned(blocks), kBlockThreads, 0, context().stream>>>(n, f);
    check_launch("elements");
  }
}

template <class Channel, class Program>
__global__ void __launch_bounds__(kBlockThreads)
    run_channels(int64_t B, int64_t C, int64_t area, Program program) {
  program(Channel{B, C, area, int64_t(blockIdx.x)});
}

template <class Channel, class Program>
void channels(int64_t B, int64_t C, int64_t area, const Program& program) {
  if (C == 0) return;
  run_channels<Channel>
      <<<unsigned(C), B * area <= kWarp ? kWarp : kBlockThreads, 0, context().stream>>>(B, C, area, program);
  check_launch("channels");
}

// A block sums `height` rows of V kWarp columns: thread (x, y) the rows y, y + blockDim.y, ... of V
// neighbours, and then the threads of a column their sums, in their order. Block (x, y, g) of the grid leaves
// K sums of group g in its row y of out[k], added to what is there where beta[k] is 1.
template <int V, int kThreads, class T, size_t K, class F>
__global__ void __launch_bounds__(kThreads)
    run_column_sums(int64_t rows, int64_t columns, int64_t height, std::array<T*, K> out,
                    std::array<T, K> beta, F f) {
  __shared__ T parts[kThreads / kWarp][K][kWarp * V];
  const int own = int(threadIdx.x) * V;
  const int64_t j = int64_t(blockIdx.x) * kWarp * V + own;
  const int64_t first = int64_t(blockIdx.z) * rows, begin = first + int64_t(blockIdx.y) * height;
  const int64_t end = begin + height < first + rows ? begin + height : first + rows;
  std::array<Vec<T, V>, K> sums{};
  if (j < columns) {
#pragma unroll 4
    for (int64_t i = begin + threadIdx.y; i < end; i += kThreads / kWarp) {
      const std::array<Vec<T, V>, K> terms = vecs_at<V, T, K>(f, i, j);
      for (size_t k = 0; k < K; ++k)
        for (int v = 0; v < V; ++v) sums[k].v[v] += terms[k].v[v];
    }
  }
  for (size_t k = 0; k < K; ++k)
    for (int v = 0; v < V; ++v) parts[threadIdx.y][k][own + v] = sums[k].v[v];
  __syncthreads();
  for (int column = int(threadIdx.y) * kWarp + int(threadIdx.x); column < kWarp * V; column += kThreads) {
    const int64_t at = int64_t(blockIdx.x) * kWarp * V + column;
    if (at >= columns) break;
    for (size_t k = 0; k < K; ++k) {
      if (!out[k]) continue;
      T total = 0;
      for (int y = 0; y < kThreads / kWarp; ++y) total += parts[y][k][column];
      T* const to = out[k] + (int64_t(blockIdx.z) * gridDim.y + blockIdx.y) * columns + at;
      *to = beta[k] == T(0) ? total : *to + total;
    }
  }
}

// The blocks' sums, (groups, blocks, columns) for each k, as the terms of a second pass.
template <class T, size_t K>
struct PartialSums {
  int64_t columns;
  std::array<T*, K> parts;
  TESSERA_FN std::array<T, K> operator()(int64_t i, int64_t j) const {
    std::array<T, K> terms;
    for (size_t k = 0; k < K; ++k) terms[k] = parts[k][i * columns + j];
    return terms;
  }
};

// Rows that a block sums; many enough that the second pass is short.
inline int64_t block_height(int64_t rows) { return std::max<int64_t>(64, (rows + 511) / 512); }
inline int64_t block_count(int64_t rows) {
  return std::max<int64_t>(1, (rows + block_height(rows) - 1) / block_height(rows));
}

// `blocks`: of all groups.
template <class T, size_t K>
PartialSums<T, K> partial_sums(int64_t blocks, int64_t columns, T* parts) {
  PartialSums<T, K> partial{columns, {}};
  for (size_t k = 0; k < K; ++k) partial.parts[k] = parts + int64_t(k) * blocks * columns;
  return partial;
}

template <int V, int kThreads, class T, size_t K, class F>
void sum_blocks(int64_t groups, int64_t rows, int64_t columns, int64_t height, const std::array<T*, K>& out,
                const std::array<T, K>& beta, const F& f) {
  const dim3 blocks(unsigned((columns + kWarp * V - 1) / (kWarp * V)),
                    unsigned(std::max<int64_t>(1, (rows + height - 1) / height)), unsigned(groups));
  run_column_sums<V, kThreads, T, K>
      <<<blocks, dim3(kWarp, kThreads / kWarp), 0, context().stream>>>(rows, columns, height, out, beta, f);
  check_launch("column_sums");
}

// The second pass: few columns and a few hundred rows, for which each block takes many threads.
template <class T, size_t K>
void sum_partial(int64_t groups, int64_t blocks, const std::array<T*, K>& out, const std::array<T, K>& beta,
                 const PartialSums<T, K>& partial) {
  sum_blocks<1, 1024, T, K>(groups, blocks, partial.columns, blocks, out, beta, partial);
}

// `parts` has room for K * groups * block_count(rows) * columns sums where a group has more than one block.
template <class T, size_t K, class F>
void column_sums(int64_t rows, int64_t columns, const std::array<T*, K>& out, const std::array<T, K>& beta,
                 T* parts, const F& f, int64_t groups = 1) {
  if (columns == 0 || groups == 0) return;
  const int64_t blocks = block_count(rows);
  const PartialSums<T, K> partial = partial_sums<T, K>(groups * blocks, columns, parts);
  const auto first_pass = [&](const std::array<T*, K>& to, const std::array<T, K>& how) {
    const int64_t height = block_height(rows);
    if constexpr (Vectorized<F>)
      if (columns % F::kVec == 0 && f.aligned())
        return sum_blocks<F::kVec, kBlockThreads, T, K>(groups, rows, columns, height, to, how, f);
    sum_blocks<1, kBlockThreads, T, K>(groups, rows, columns, height, to, how, f);
  };
  if (blocks == 1) return first_pass(out, beta);
  first_pass(partial.parts, {});
  sum_partial<T, K>(groups, blocks, out, beta, partial);
}

#endif

}  // namespace tessera::cuda
