// Row, column and channel programs on a card: kernels over the functors that the CPU runs as loops. A team of
// threads works on a row or a channel: a warp on a short row, eight rows to a block, a block on anything
// longer. Sums have a fixed order, so that two runs give the same bits.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "cuda/context.h"
#include "engine/base/portable.h"

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

template <class F>
void elements(int64_t n, const F& f) {
  if (n == 0) return;
  constexpr int kBlocksPerMultiprocessor = 16;
  const int64_t blocks = std::min<int64_t>((n + kBlockThreads - 1) / kBlockThreads,
                                           kBlocksPerMultiprocessor * context().multiprocessors);
  run_elements<<<unsigned(blocks), kBlockThreads, 0, context().stream>>>(n, f);
  check_launch("elements");
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

// A block sums `height` rows of kWarp columns: thread (x, y) the rows y, y + 8, ... of column x, and then
// those eight sums in their order. Block (x, y) of the grid leaves K sums in row y of out[k], added to what
// is there where beta[k] is 1.
template <class T, size_t K, class F>
__global__ void __launch_bounds__(kBlockThreads)
    run_column_sums(int64_t rows, int64_t columns, int64_t height, std::array<T*, K> out,
                    std::array<T, K> beta, F f) {
  __shared__ T parts[kBlockThreads / kWarp][K][kWarp];
  const int64_t j = int64_t(blockIdx.x) * kWarp + threadIdx.x;
  const int64_t begin = int64_t(blockIdx.y) * height, end = begin + height < rows ? begin + height : rows;
  std::array<T, K> sums{};
  if (j < columns)
    for (int64_t i = begin + threadIdx.y; i < end; i += blockDim.y) {
      const std::array<T, K> terms = f(i, j);
      for (size_t k = 0; k < K; ++k) sums[k] += terms[k];
    }
  for (size_t k = 0; k < K; ++k) parts[threadIdx.y][k][threadIdx.x] = sums[k];
  __syncthreads();
  if (threadIdx.y != 0 || j >= columns) return;
  for (size_t k = 0; k < K; ++k) {
    if (!out[k]) continue;
    T total = 0;
    for (unsigned y = 0; y < blockDim.y; ++y) total += parts[y][k][threadIdx.x];
    T* const to = out[k] + int64_t(blockIdx.y) * columns + j;
    *to = beta[k] == T(0) ? total : *to + total;
  }
}

// The blocks' sums, (blocks, columns) for each k, as the terms of a second pass.
template <class T, size_t K>
struct PartialSums {
  int64_t columns;
  std::array<T*, K> parts;
  __device__ std::array<T, K> operator()(int64_t i, int64_t j) const {
    std::array<T, K> terms;
    for (size_t k = 0; k < K; ++k) terms[k] = parts[k][i * columns + j];
    return terms;
  }
};

// Rows that a block sums; many enough that the second pass is short.
inline int64_t block_height(int64_t rows) { return std::max<int64_t>(256, (rows + 255) / 256); }
inline int64_t block_count(int64_t rows) {
  return std::max<int64_t>(1, (rows + block_height(rows) - 1) / block_height(rows));
}

// `parts` has room for K * block_count(rows) * columns sums where there is more than one block.
template <class T, size_t K, class F>
void column_sums(int64_t rows, int64_t columns, const std::array<T*, K>& out, const std::array<T, K>& beta,
                 T* parts, const F& f) {
  if (columns == 0) return;
  const dim3 threads(kWarp, kBlockThreads / kWarp);
  const unsigned strips = unsigned((columns + kWarp - 1) / kWarp);
  const int64_t blocks = block_count(rows);
  const cudaStream_t stream = context().stream;
  if (blocks == 1) {
    run_column_sums<T, K>
        <<<strips, threads, 0, stream>>>(rows, columns, std::max<int64_t>(rows, 1), out, beta, f);
  } else {
    PartialSums<T, K> partial{columns, {}};
    for (size_t k = 0; k < K; ++k) partial.parts[k] = parts + int64_t(k) * blocks * columns;
    run_column_sums<T, K><<<dim3(strips, unsigned(blocks)), threads, 0, stream>>>(
        rows, columns, block_height(rows), partial.parts, {}, f);
    check_launch("column_sums");
    run_column_sums<T, K><<<strips, threads, 0, stream>>>(blocks, columns, blocks, out, beta, partial);
  }
  check_launch("column_sums");
}

#endif

}  // namespace tessera::cuda
