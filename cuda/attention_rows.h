// Rows of a head on their way through a block: from global to shared memory and back, and as the operands of
// products on tensor cores. A warp owns 16 rows of one side; those of the other side come by tiles that all
// warps read. It all runs on the host too, one warp, thread or lane after the other.
#pragma once

#include <algorithm>

#include "cuda/heads.h"
#include "cuda/warp.h"

namespace tessera::cuda {

constexpr int kRows = 16;     // of a warp
constexpr int kTile = 64;     // rows of the other side in shared memory
constexpr int kMaxWarps = 5;  // of a block: the 65 tokens of a 32 x 32 image are one

// From row to row in shared memory: the eight rows that ldmatrix reads at once lie in different banks.
template <int kD>
constexpr int kPitch = kD + 8;

template <int kD>
struct alignas(16) Tiles {
  bf16 own[kMaxWarps][kRows * kPitch<kD>];  // a warp's rows, on their way in and out
  bf16 first[kTile * kPitch<kD>], second[kTile * kPitch<kD>];
  float lse[kTile], delta[kTile];  // of queries, where they are the other side
};

// How a head's rows are shared out to blocks: as evenly as can be.
struct Cut {
  int64_t blocks_of_head;
  int warps;  // of a block

  explicit Cut(int64_t N) {
    const int64_t groups = (N + kRows - 1) / kRows;
    blocks_of_head = (groups + kMaxWarps - 1) / kMaxWarps;
    warps = int((groups + blocks_of_head - 1) / blocks_of_head);
  }
};

// A block's warps, and the state that each keeps in registers.
template <class State>
struct Warps {
#ifdef __CUDA_ARCH__
  State states[1];
#else
  State states[kMaxWarps];
#endif
  int64_t head, first;  // the block's first row
  int threads, busy;    // warps that have rows

  TESSERA_INLINE Warps(const Cut& cut, int64_t block, int64_t N)
      : head(block / cut.blocks_of_head),
        first(block % cut.blocks_of_head * cut.warps * kRows),
        threads(cut.warps * kLanes),
        busy(int((N - first + kRows - 1) / kRows) < cut.warps ? int((N - first + kRows - 1) / kRows)
                                                              : cut.warps) {}

  // f(state, warp, first row) for those that have rows.
  template <class F>
  TESSERA_INLINE void each(F f) {
#ifdef __CUDA_ARCH__
    const int warp = int(threadIdx.x) / kLanes;
    if (warp < busy) f(states[0], warp, first + warp * kRows);
#else
    for (int warp = 0; warp < busy; ++warp) f(states[warp], warp, first + warp * kRows);
#endif
  }
  // f(thread)
  template <class F>
  TESSERA_INLINE void each_thread(F f) const {
#ifdef __CUDA_ARCH__
    f(int(threadIdx.x));
#else
    for (int thread = 0; thread < threads; ++thread) f(thread);
#endif
  }
  TESSERA_INLINE static void sync() {
#ifdef __CUDA_ARCH__
    __syncthreads();
#endif
  }
};

struct alignas(16) Eight {
  bf16 v[8];
};

// `count` rows from `first` on into a tile, 0 beyond N rows and D numbers.
template <int kD>
TESSERA_INLINE void load_rows(bf16* tile, int count, const HeadRows<const bf16>& from, int64_t first,
                              int thread, int threads) {
  if (from.D % 8 == 0) {
    for (int i = thread; i < count * (kD / 8); i += threads) {
      const int row = i / (kD / 8), d = i % (kD / 8) * 8;
      Eight numbers{};
      if (first + row < from.N && d < from.D)
        numbers = *reinterpret_cast<const Eight*>(from.at + (first + row) * from.stride + d);
      *reinterpret_cast<Eight*>(tile + row * kPitch<kD> + d) = numbers;
    }
  } else {
    for (int i = thread; i < count * kD; i += threads) {
      const int row = i / kD, d = i % kD;
      const bool there = first + row < from.N && d < from.D;
      tile[row * kPitch<kD> + d] = there ? float(from.at[(first + row) * from.stride + d]) : 0.0f;
    }
  }
}

// A warp's rows from `first` on: what is in the tile, + beta * what was there.
template <int kD>
TESSERA_INLINE void store_rows(const HeadRows<bf16>& to, int64_t first, const bf16* tile, float beta,
                               int lane) {
  if (to.D % 8 == 0) {
    for (int i = lane; i < kRows * (kD / 8); i += kLanes) {
      const int row = i / (kD / 8), d = i % (kD / 8) * 8;
      if (first + row >= to.N || d >= to.D) continue;
      Eight numbers = *reinterpret_cast<const Eight*>(tile + row * kPitch<kD> + d);
      Eight* const at = reinterpret_cast<Eight*>(to.at + (first + row) * to.stride + d);
      if (beta != 0)
        for (int k = 0; k < 8; ++k) numbers.v[k] = numbers.v[k] + at->v[k];
      *at = numbers;
    }
  } else {
    for (int i = lane; i < kRows * kD; i += kLanes) {
      const int row = i / kD, d = i % kD;
      if (first + row >= to.N || d >= to.D) continue;
      bf16& at = to.at[(first + row) * to.stride + d];
      at = tile[row * kPitch<kD> + d] + (beta != 0 ? float(at) : 0.0f);
    }
  }
}

// A warp's rows from `first` on, by way of shared memory, as A of kD / 16 products.
template <int kD>
TESSERA_INLINE void load_left(Operand (&to)[kD / 16], bf16* own, const HeadRows<const bf16>& from,
                              int64_t first) {
  sync_warp();  // what was there was read
  each_lane([&](int lane) { load_rows<kD>(own, kRows, from, first, lane, kLanes); });
  sync_warp();
  TESSERA_UNROLL
  for (int k = 0; k < kD / 16; ++k)
    load_matrices<false>(to[k], [&](int lane) {
      return own + (lane % 8 + lane / 8 % 2 * 8) * kPitch<kD> + k * 16 + lane / 16 * 8;
    });
}

// The way back: factor * sums + beta * what was there, a factor for each half of the rows.
template <int kD>
TESSERA_INLINE void store_sums(const Sums (&sums)[kD / 8], const Registers<float, 2>& factor, bf16* own,
                               const HeadRows<bf16>& to, int64_t first, float beta) {
  sync_warp();  // what was there was read
  each_lane([&](int lane) {
    each_number<kD / 8>([&](int j, int e) {
      own[row_of(lane, e) * kPitch<kD> + 8 * j + column_of(lane, e)] =
          factor.of(lane)[e / 2] * sums[j].of(lane)[e];
    });
  });
  sync_warp();
  each_lane([&](int lane) { store_rows<kD>(to, first, own, beta, lane); });
}

template <int kD>
TESSERA_INLINE void store_sums(const Sums (&sums)[kD / 8], float factor, bf16* own, const HeadRows<bf16>& to,
                               int64_t first, float beta) {
  Registers<float, 2> factors;
  each_lane([&](int lane) { factors.of(lane)[0] = factors.of(lane)[1] = factor; });
  store_sums<kD>(sums, factors, own, to, first, beta);
}

template <int n>
TESSERA_INLINE void clear(Sums (&sums)[n]) {
  TESSERA_UNROLL
  for (int j = 0; j < n; ++j) sums[j] = Sums{};
}

// (c0, c1), 16 x 16, = A rows^T for 16 rows of a tile.
template <int kD>
TESSERA_INLINE void multiply_by_columns(Sums& c0, Sums& c1, const Operand (&a)[kD / 16], const bf16* rows) {
  c0 = c1 = Sums{};
  TESSERA_UNROLL
  for (int k = 0; k < kD / 16; ++k) {
    Operand b;
    load_matrices<false>(b, [&](int lane) {
      return rows + (lane % 8 + lane / 16 * 8) * kPitch<kD> + k * 16 + lane / 8 % 2 * 8;
    });
    multiply_add(c0, a[k], b, 0);
    multiply_add(c1, a[k], b, 2);
  }
}

// sums, 16 x kD, += (c0, c1) rows, with the factors on the left rounded to bf16.
template <int kD>
TESSERA_INLINE void multiply_by_rows(Sums (&sums)[kD / 8], const Sums& c0, const Sums& c1, const bf16* rows) {
  Operand a;  // the places of two C side by side are those of an A
  each_lane([&](int lane) {
    a.of(lane)[0] = pack(c0.of(lane)[0], c0.of(lane)[1]);
    a.of(lane)[1] = pack(c0.of(lane)[2], c0.of(lane)[3]);
    a.of(lane)[2] = pack(c1.of(lane)[0], c1.of(lane)[1]);
    a.of(lane)[3] = pack(c1.of(lane)[2], c1.of(lane)[3]);
  });
  TESSERA_UNROLL
  for (int j = 0; j < kD / 16; ++j) {
    Operand b;
    load_matrices<true>(b, [&](int lane) {
      return rows + (lane % 8 + lane / 8 % 2 * 8) * kPitch<kD> + j * 16 + lane / 16 * 8;
    });
    multiply_add(sums[2 * j], a, b, 0);
    multiply_add(sums[2 * j + 1], a, b, 2);
  }
}

// Goes through the rows of the other side, 0 to N, by tiles: load(thread, first row, rows) brings those that
// the products touch, and add(state, rows that are there) is what each warp does with them.
template <class State, class Load, class Add>
TESSERA_INLINE void each_tile(Warps<State>& warps, int64_t N, Load load, Add add) {
  for (int64_t begin = 0; begin < N; begin += kTile) {
    const int count = int(N - begin < kTile ? N - begin : kTile);
    warps.sync();  // the last tile was read
    warps.each_thread([&](int thread) { load(thread, begin, (count + 15) / 16 * 16); });
    warps.sync();
    warps.each([&](State& state, int, int64_t) { add(state, count); });
  }
}

}  // namespace tessera::cuda
