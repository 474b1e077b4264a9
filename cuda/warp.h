// A warp's registers, and its products on tensor cores: mma.sync m16n8k16 of bf16 with sums in f32, and
// ldmatrix, which brings the operands from shared memory (PTX ISA, "Warp Level Matrix Instructions"). On the
// host the same code works on the registers of all 32 lanes, one lane after the other, and the two
// instructions do what that document says: kernels made of them run, and are tested, without a card.
//
// With g = lane / 4 and t = lane % 4, a lane has of C (16 x 8) += A (16 x 16) B (16 x 8), two neighbours a
// register in A and B and one number a register in C,
//   A: row g, g + 8, g, g + 8 from column 2t, 2t, 2t + 8, 2t + 8 on;
//   B: column g from row 2t, 2t + 8 on;
//   C: row g, g, g + 8, g + 8 at column 2t, 2t + 1, 2t, 2t + 1.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine/base/bf16.h"
#include "engine/base/portable.h"

#ifdef __CUDA_ARCH__
#define TESSERA_UNROLL _Pragma("unroll")
#define TESSERA_NO_UNROLL _Pragma("unroll 1")
#else
#define TESSERA_UNROLL
#define TESSERA_NO_UNROLL
#endif

namespace tessera::cuda {

constexpr int kLanes = 32;
#ifdef __CUDA_ARCH__
constexpr int kOwnLanes = 1;  // whose registers one thread of the program has
#else
constexpr int kOwnLanes = kLanes;
#endif

// n numbers of each lane. On a card every index but the lane must be known when it is compiled.
template <class T, int n>
struct Registers {
  T values[kOwnLanes][n];
  TESSERA_INLINE T* of(int lane) { return values[lane % kOwnLanes]; }
  TESSERA_INLINE const T* of(int lane) const { return values[lane % kOwnLanes]; }
};

using Operand = Registers<uint32_t, 4>;  // A, or B of two products side by side: registers 0, 1 and 2, 3
using Sums = Registers<float, 4>;        // C

// The place in C of the e-th number of a lane.
TESSERA_INLINE int row_of(int lane, int e) { return lane / 4 + e / 2 * 8; }
TESSERA_INLINE int column_of(int lane, int e) { return lane % 4 * 2 + e % 2; }

// f(j, e) for the e-th number of the j-th of n products.
template <int n, class F>
TESSERA_INLINE void each_number(F f) {
  TESSERA_UNROLL
  for (int i = 0; i < 4 * n; ++i) f(i / 4, i % 4);
}

#ifdef __CUDA_ARCH__
__device__ inline int own_lane() { return int(threadIdx.x % unsigned{kLanes}); }
#endif

template <class F>
TESSERA_INLINE void each_lane(F f) {
#ifdef __CUDA_ARCH__
  f(own_lane());
#else
  for (int lane = 0; lane < kLanes; ++lane) f(lane);
#endif
}

// What other lanes wrote to shared memory may be read from here on.
TESSERA_INLINE void sync_warp() {
#ifdef __CUDA_ARCH__
  __syncwarp();
#endif
}

TESSERA_INLINE uint32_t pack(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return uint32_t{bf16_bits(low)} | uint32_t{bf16_bits(high)} << 16;
#endif
}
TESSERA_INLINE float low_of(uint32_t both) { return std::bit_cast<float>(both << 16); }
TESSERA_INLINE float high_of(uint32_t both) { return std::bit_cast<float>(both & 0xFFFF0000u); }

// 2^x, on a card to 2 units in the last place.
TESSERA_INLINE float power_of_2(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return std::exp2(x);
#endif
}

// Its inverse, on a card to 2^-22 of 1 or of the result.
TESSERA_INLINE float log_of_2(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return std::log2(x);
#endif
}

// 4 or 16 bytes on their way to shared memory, zeros where there is nothing; there for the thread that asked
// for them after wait_for_copies(), and for all after a barrier too.
template <int bytes>
TESSERA_INLINE void start_copy(void* to, const void* from, bool there) {
#ifdef __CUDA_ARCH__
  const uint32_t at = uint32_t(__cvta_generic_to_shared(to));
  if constexpr (bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(at), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :
                 : "r"(at), "l"(from), "r"(there ? 4 : 0)
                 : "memory");
#else
  if (there)
    std::memcpy(to, from, bytes);
  else
    std::memset(to, 0, bytes);
#endif
}
TESSERA_INLINE void wait_for_copies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Four 8 x 8 matrices in shared memory, of which the lane 8 i + r gives the address of row r of the i-th.
// Register i of a lane gets the numbers 2t and 2t + 1 of row g or, transposed, of column g.
template <bool kTransposed, class Address>
TESSERA_INLINE void load_matrices(Operand& to, Address address) {
#ifdef __CUDA_ARCH__
  const uint32_t from = uint32_t(__cvta_generic_to_shared(address(own_lane())));
  uint32_t* const r = to.of(0);
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
#else
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 4; ++i) {
      const auto bits = [&](int g, int along) {
        const int row = kTransposed ? along : g, column = kTransposed ? g : along;
        return uint32_t{address(8 * i + row)[column].bits};
      };
      const int g = lane / 4, t = lane % 4;
      to.of(lane)[i] = bits(g, 2 * t) | bits(g, 2 * t + 1) << 16;
    }
#endif
}

// C += A B with B in the registers `first` and first + 1 of b.
TESSERA_INLINE void multiply_add(Sums& c, const Operand& a, const Operand& b, int first) {
#ifdef __CUDA_ARCH__
  float* const sum = c.of(0);
  const uint32_t *const left = a.of(0), *const right = b.of(0) + first;
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
#else
  float left[16][16], right[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; ++r) {
      float* const at = &left[g + r % 2 * 8][2 * t + r / 2 * 8];
      at[0] = low_of(a.of(lane)[r]);
      at[1] = high_of(a.of(lane)[r]);
    }
    for (int r = 0; r < 2; ++r) {
      right[2 * t + 8 * r][g] = low_of(b.of(lane)[first + r]);
      right[2 * t + 8 * r + 1][g] = high_of(b.of(lane)[first + r]);
    }
  }
  for (int lane = 0; lane < kLanes; ++lane)
    for (int e = 0; e < 4; ++e)
      for (int k = 0; k < 16; ++k) c.of(lane)[e] += left[row_of(lane, e)][k] * right[k][column_of(lane, e)];
#endif
}

// combine() of what the lanes side by side, four for a row of C, have, the same bits in each of them. It must
// commute.
template <int lanes = 4, int n, class Combine>
TESSERA_INLINE void combine_lanes(Registers<float, n>& values, Combine combine) {
  TESSERA_UNROLL
  for (int distance = 1; distance < lanes; distance *= 2) {
#ifdef __CUDA_ARCH__
    float* const own = values.of(0);
    TESSERA_UNROLL
    for (int i = 0; i < n; ++i) own[i] = combine(own[i], __shfl_xor_sync(0xffffffffu, own[i], distance));
#else
    const Registers<float, n> before = values;
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < n; ++i)
        values.of(lane)[i] = combine(before.of(lane)[i], before.of(lane ^ distance)[i]);
#endif
  }
}

}  // namespace tessera::cuda
