// Rows of a head on their way through a block: from global to shared memory and back, and as the operands of
// products on tensor cores. A warp owns 16 rows of one side; those of the other side come by tiles that all
// warps read. It all runs on the host too, one warp, thread or lane after the other.
#pragma once

#include "cuda/heads.h"
#include "cuda/warp.h"

namespace tessera::cuda {

constexpr int kRows = 16;               // of a warp, and of a group on the other side
constexpr int kGroups = 5;              // of a tile: the 65 tokens of a 32 x 32 image are one
constexpr int kTile = kGroups * kRows;  // rows of the other side in shared memory
constexpr int kMaxWarps = 7;            // of a block: the 197 tokens of a 224 x 224 image are two

TESSERA_INLINE int groups_of(int rows) { return int(uint32_t(rows + kRows - 1) / kRows); }

// From row to row in shared memory: the eight rows that ldmatrix reads at once lie in different banks.
template <int kD>
constexpr int kPitch = kD + 8;

template <int kD, int rows>
struct alignas(16) SharedRows {
  bf16 v[rows * kPitch<kD>];

  TESSERA_INLINE bf16* row(int i) { return v + i * kPitch<kD>; }
};

// How a head's rows are shared out to blocks: as evenly as can be.
struct Cut {
  int blocks_of_head, warps;  // of a block

  explicit Cut(int64_t N) {
    const int groups = groups_of(int(N));
    blocks_of_head = (groups + kMaxWarps - 1) / kMaxWarps;
    warps = (groups + blocks_of_head - 1) / blocks_of_head;
  }
};

// The rows of a head that one block owns, and its warps.
struct Place {
  int head, first;    // the first row
  int threads, busy;  // warps that have rows

  TESSERA_INLINE Place(const Cut& cut, int block, int N)
      : head(block), first(0), threads(cut.warps * kLanes) {
    if (cut.blocks_of_head > 1) {
      head = int(uint32_t(block) / uint32_t(cut.blocks_of_head));
      first = (block - head * cut.blocks_of_head) * cut.warps * kRows;
    }
    const int groups = groups_of(N - first);
    busy = groups < cut.warps ? groups : cut.warps;
  }
  // All rows of a head that is one block.
  TESSERA_INLINE Place(int head, int N)
      : head(head), first(0), threads(groups_of(N) * kLanes), busy(groups_of(N)) {}

  TESSERA_INLINE int rows() const { return busy * kRows; }

  // f(thread)
  template <class F>
  TESSERA_INLINE void each_thread(F f) const {
#ifdef __CUDA_ARCH__
    f(int(threadIdx.x));
#else
    for (int thread = 0; thread < threads; ++thread) f(thread);
#endif
  }
};

// The state that each warp of a block keeps in registers.
template <class State>
struct Warps {
#ifdef __CUDA_ARCH__
  State states[1];
#else
  State states[kMaxWarps];
#endif

  // f(state, warp, first row) for those that have rows.
  template <class F>
  TESSERA_INLINE void each(const Place& place, F f) {
#ifdef __CUDA_ARCH__
    const int warp = int(threadIdx.x / unsigned{kLanes});
    if (warp < place.busy) f(states[0], warp, place.first + warp * kRows);
#else
    for (int warp = 0; warp < place.busy; ++warp) f(states[warp], warp, place.first + warp * kRows);
#endif
  }
};

TESSERA_INLINE void sync_block() {
#ifdef __CUDA_ARCH__
  __syncthreads();
#endif
}

// 2 n numbers that lie together.
template <int n>
struct [[gnu::may_alias]] alignas(4 * n) Words {
  uint32_t v[n];
};

TESSERA_INLINE void store_word(bf16* to, uint32_t both) { *reinterpret_cast<Words<1>*>(to) = {both}; }

// f(row, d) for each eight numbers of `count` rows that fall to one of `threads`, of whole warps. d does not
// change.
template <int kD, class F>
TESSERA_INLINE void each_vector(int count, int thread, int threads, F f) {
  constexpr int kVectors = kD / 8;
  const int d = int(uint32_t(thread) % kVectors) * 8;
  for (int row = int(uint32_t(thread) / kVectors); row < count; row += int(uint32_t(threads) / kVectors))
    f(row, d);
}

struct Copy {
  bf16* to;
  HeadRows<const bf16> from;
};

// `count` rows from `first` on, 0 beyond N rows and D numbers, of each of some arrays of one shape are on
// their way into shared memory, brought by all of a block.
template <int kD, class... Copies>
TESSERA_INLINE void load_rows(const Place& place, int count, int first, int N, int D,
                              const Copies&... copies) {
  place.each_thread([&](int thread) {
    if (D % 8 == 0) {
      each_vector<kD>(count, thread, place.threads, [&](int row, int d) {
        const bool there = first + row < N && d < D;
        (start_copy<16>(copies.to + row * kPitch<kD> + d, copies.from.of(first + row, d), there), ...);
      });
    } else {
      TESSERA_NO_UNROLL
      for (int i = thread; i < count * kD; i += place.threads) {
        const int row = int(uint32_t(i) / kD), d = int(uint32_t(i) % kD);
        const bool there = first + row < N && d < D;
        ((copies.to[row * kPitch<kD> + d] = there ? float(*copies.from.of(first + row, d)) : 0.0f), ...);
      }
    }
  });
}

// A warp's rows from `first` on: what is in the tile, + beta * what was there.
template <int kD>
TESSERA_INLINE void store_rows(const HeadRows<bf16>& to, int first, const bf16* tile, float beta, int lane) {
  if (to.D % 8 == 0) {
    each_vector<kD>(kRows, lane, kLanes, [&](int row, int d) {
      if (first + row >= to.N || d >= to.D) return;
      auto numbers = *reinterpret_cast<const Words<4>*>(tile + row * kPitch<kD> + d);
      auto* const at = reinterpret_cast<Words<4>*>(to.of(first + row, d));
      if (beta != 0) {
        const Words<4> before = *at;
        TESSERA_UNROLL
        for (int k = 0; k < 4; ++k)
          numbers.v[k] =
              pack(low_of(numbers.v[k]) + low_of(before.v[k]), high_of(numbers.v[k]) + high_of(before.v[k]));
      }
      *at = numbers;
    });
  } else {
    TESSERA_NO_UNROLL
    for (int i = lane; i < kRows * kD; i += kLanes) {
      const int row = int(uint32_t(i) / kD), d = int(uint32_t(i) % kD);
      if (first + row >= to.N || d >= to.D) continue;
      bf16& at = *to.of(first + row, d);
      at = tile[row * kPitch<kD> + d] + (beta != 0 ? float(at) : 0.0f);
    }
  }
}

// f(lane, half, row) for the two rows of each lane, of those of a warp from `first` on.
template <class F>
TESSERA_INLINE void each_half_row(int first, F f) {
  each_lane([&](int lane) {
    TESSERA_UNROLL
    for (int half = 0; half < 2; ++half) f(lane, half, first + row_of(lane, 2 * half));
  });
}

// f(lane, i, row, d) for the kD / 16 times eight numbers of each lane, from the d-th of one of a warp's rows
// on.
template <int kD, class F>
TESSERA_INLINE void each_eight(F f) {
  constexpr int kVectors = kD / 8;
  each_lane([&](int lane) {
    TESSERA_UNROLL
    for (int i = 0; i < kD / 16; ++i)
      f(lane, i, i * (kLanes / kVectors) + lane / kVectors, lane % kVectors * 8);
  });
}

// The sums of a b over the rows of each_eight, those of a warp from `first` on; 0 beyond N rows.
template <int kD>
TESSERA_INLINE void dot_rows(Registers<float, kD / 16>& sums, const HeadRows<const bf16>& a,
                             const HeadRows<const bf16>& b, int first) {
  each_eight<kD>([&](int lane, int i, int own_row, int d) {
    float sum = 0;
    const int row = first + own_row;
    if (a.D % 8 == 0) {
      Words<4> x{}, y{};
      if (row < a.N && d < a.D) {
        x = *reinterpret_cast<const Words<4>*>(a.of(row, d));
        y = *reinterpret_cast<const Words<4>*>(b.of(row, d));
      }
      TESSERA_UNROLL
      for (int k = 0; k < 4; ++k) {
        sum += low_of(x.v[k]) * low_of(y.v[k]);
        sum += high_of(x.v[k]) * high_of(y.v[k]);
      }
    } else {
      TESSERA_NO_UNROLL
      for (int k = d; k < d + 8; ++k)
        if (row < a.N && k < a.D) sum += *a.of(row, k) * *b.of(row, k);
    }
    sums.of(lane)[i] = sum;
  });
  combine_lanes<kD / 8>(sums, [](float x, float y) { return x + y; });
}

// 16 rows in shared memory as A of kD / 16 products.
template <int kD>
TESSERA_INLINE void read_left(Operand (&to)[kD / 16], const bf16* rows) {
  TESSERA_UNROLL
  for (int k = 0; k < kD / 16; ++k)
    load_matrices<false>(to[k], [&](int lane) {
      return rows + (lane % 8 + lane / 8 % 2 * 8) * kPitch<kD> + k * 16 + lane / 16 * 8;
    });
}

// The way back, by a warp's own rows in shared memory: factor * sums + beta * what was there, a factor for
// each half of the rows.
template <int kD>
TESSERA_INLINE void store_sums(const Sums (&sums)[kD / 8], const Registers<float, 2>& factor, bf16* own,
                               const HeadRows<bf16>& to, int first, float beta) {
  sync_warp();  // what was there was read
  each_lane([&](int lane) {
    TESSERA_UNROLL
    for (int i = 0; i < kD / 4; ++i) {
      const int j = i / 2, half = i % 2;
      const float f = factor.of(lane)[half], *const two = sums[j].of(lane) + 2 * half;
      store_word(own + row_of(lane, 2 * half) * kPitch<kD> + 8 * j + column_of(lane, 0),
                 pack(f * two[0], f * two[1]));
    }
  });
  sync_warp();
  each_lane([&](int lane) { store_rows<kD>(to, first, own, beta, lane); });
}

template <int kD>
TESSERA_INLINE void store_sums(const Sums (&sums)[kD / 8], float factor, bf16* own, const HeadRows<bf16>& to,
                               int first, float beta) {
  Registers<float, 2> factors;
  each_half_row(first, [&](int lane, int half, int) { factors.of(lane)[half] = factor; });
  store_sums<kD>(sums, factors, own, to, first, beta);
}

template <int n>
TESSERA_INLINE void clear(Sums (&sums)[n]) {
  TESSERA_UNROLL
  for (int j = 0; j < n; ++j) sums[j] = Sums{};
}

// c, 16 x 8 `octets`, += A rows^T for the first one or two octets of 16 rows of a tile.
template <int kD, int octets = 2>
TESSERA_INLINE void multiply_by_columns(Sums* c, const Operand (&a)[kD / 16], const bf16* rows) {
  TESSERA_UNROLL
  for (int k = 0; k < kD / 16; ++k) {
    Operand b;
    load_matrices<false>(b, [&](int lane) {
      return rows + (lane % 8 + lane / 16 * 8) * kPitch<kD> + k * 16 + lane / 8 % 2 * 8;
    });
    TESSERA_UNROLL
    for (int j = 0; j < octets; ++j) multiply_add(c[j], a[k], b, 2 * j);
  }
}

// One or two products side by side, rounded to bf16, as A: the places of two C are those of an A.
template <int octets = 2>
TESSERA_INLINE void round_left(Operand& a, const Sums* c) {
  each_lane([&](int lane) {
    TESSERA_UNROLL
    for (int j = 0; j < 2; ++j) {
      const float* const number = c[j < octets ? j : 0].of(lane);
      a.of(lane)[2 * j] = j < octets ? pack(number[0], number[1]) : 0;
      a.of(lane)[2 * j + 1] = j < octets ? pack(number[2], number[3]) : 0;
    }
  });
}

// sums, 16 x kD, += A rows for 16 rows of a tile.
template <int kD>
TESSERA_INLINE void multiply_by_rows(Sums (&sums)[kD / 8], const Operand& a, const bf16* rows) {
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

// Goes from `first` to `end` by steps, each on its way while the one before it is worked on: bring(which of
// two places, i) asks for it, and work(which, i) finds it there.
template <class Bring, class Work>
TESSERA_INLINE void in_turn(int first, int step, int end, Bring bring, Work work) {
  bring(0, first);
  for (int i = first, which = 0; i < end; i += step, which ^= 1) {
    wait_for_copies();
    sync_block();  // this one is there, and the one before it was read
    if (i + step < end) bring(which ^ 1, i + step);
    work(which, i);
  }
}

// Takes blocks in turn and, for each, goes through the rows of the other side, 0 to N, by tiles, always with
// the next one on its way. own(place) brings the block's own rows and load(place, which of two, first row,
// rows) those of a tile that the products touch. Each warp then does start(state, warp, first row, place),
// add(state, which, rows that are there, first row) for each tile, and finish(as start). Own rows are
// overwritten from the last tile on, and read in the first: there must be two, N > kTile.
template <class State, class Own, class Load, class Start, class Add, class Finish>
TESSERA_INLINE void each_tile(const Cut& cut, int N, int block, int step, int blocks, Own own, Load load,
                              Start start, Add add, Finish finish) {
  const auto bring = [&](const Place& place, int which, int begin) {
    if (begin == 0) own(place);
    const int rows = groups_of(N - begin) * kRows;
    load(place, which, begin, rows < kTile ? rows : kTile);
  };
  Warps<State> warps;
  Place place(cut, block, N);
  bring(place, 0, 0);
  for (int begin = 0, which = 0; block < blocks; which ^= 1) {
    wait_for_copies();
    sync_block();  // this tile is there, and the one before it was read
    const bool is_last = begin + kTile >= N;
    const int next_block = is_last ? block + step : block, next_begin = is_last ? 0 : begin + kTile;
    const Place next(cut, next_block, N);
    if (next_block < blocks) bring(next, which ^ 1, next_begin);
    warps.each(place, [&](State& state, int warp, int first) {
      if (begin == 0) start(state, warp, first, place);
      add(state, which, N - begin < kTile ? N - begin : kTile, begin);
      if (is_last) finish(state, warp, first, place);
    });
    block = next_block, begin = next_begin, place = next;
  }
}

}  // namespace tessera::cuda
