// Attention in bf16 on tensor cores, without an N x N tensor (Dao, "FlashAttention-2", 2023), as programs
// over blocks of a head's rows:
//   forward:  S = Q K^T,  P = 2^(scale log2(e) (S - highest so far)),  O = P V / sum P,
//             lse = scale highest + log sum P;
//   backward: P = e^(scale S - lse),  dS = P (dO V^T - rowsum(dO O)),  of queries dQ = scale dS K and, by the
//             transposes of S and dS, of keys dV = P^T dO and dK = scale dS^T Q.
// Inputs, P and dS are bf16; the softmax, lse and all sums are f32. Every output has one writer and every sum
// one order: two runs give the same bits. scale > 0.
#pragma once

#include <limits>

#include "cuda/attention_rows.h"

namespace tessera::cuda {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A warp's queries, and the softmax of the keys so far.
template <int kD>
struct Softmax {
  Operand query[kD / 16];
  Sums sums[kD / 8];
  Registers<float, 2> highest, total;  // of each half of the rows; `total` of a lane's own columns

  TESSERA_INLINE void start(const bf16* queries) {
    read_left<kD>(query, queries);
    clear(sums);
    each_half_row(0, [&](int lane, int half, int) {
      highest.of(lane)[half] = -kInfinity;
      total.of(lane)[half] = 0;
    });
  }

  // `count` keys of a tile, the first or another; of at most so many octets.
  template <int octets = kTile / 8>
  TESSERA_INLINE void add(const bf16* keys, const bf16* values, int count, float scale, bool is_first) {
    if constexpr (octets > 1)
      if (count <= 8 * (octets - 1)) return add<octets - 1>(keys, values, count, scale, is_first);
    add_octets<octets>(keys, values, count, scale, is_first);
  }

  // Results and lse of the rows from `first` on, by way of the warp's own rows in shared memory.
  TESSERA_INLINE void store(bf16* own, const HeadRows<bf16>& out, float* lse, int64_t lse_at, int first,
                            float scale) {
    combine_lanes(total, [](float a, float b) { return a + b; });
    Registers<float, 2> factor;
    each_half_row(first, [&](int lane, int half, int row) {
      const float log_total = log_of_2(total.of(lane)[half]);
      factor.of(lane)[half] = power_of_2(-log_total);
      if (lse && column_of(lane, 0) == 0 && row < out.N)
        lse[lse_at + row] = scale * highest.of(lane)[half] + kLn2 * log_total;
    });
    store_sums<kD>(sums, factor, own, out, first, 0);
  }

 private:
  // The last of the octets may be cut off.
  template <int octets>
  TESSERA_INLINE void add_octets(const bf16* keys, const bf16* values, int count, float scale,
                                 bool is_first) {
    const auto larger = [](float a, float b) { return std::fmax(a, b); };  // of a NaN and a number the number
    const float unit = kLog2E * scale;
    constexpr int kLast = octets % 2 == 0 ? 2 : 1;  // octets of the last group
    constexpr int kWhole = octets - kLast;
    Sums scores[octets];
    clear(scores);
    TESSERA_UNROLL
    for (int j = 0; j < kWhole; j += 2) multiply_by_columns<kD>(scores + j, query, keys + 8 * j * kPitch<kD>);
    multiply_by_columns<kD, kLast>(scores + kWhole, query, keys + 8 * kWhole * kPitch<kD>);
    const Registers<float, 2> before = highest;
    each_lane([&](int lane) {
      each_number<1>([&](int, int e) {
        if (8 * (octets - 1) + column_of(lane, e) >= count) scores[octets - 1].of(lane)[e] = -kInfinity;
      });
      each_number<octets>([&](int j, int e) {
        highest.of(lane)[e / 2] = larger(highest.of(lane)[e / 2], scores[j].of(lane)[e]);
      });
    });
    combine_lanes(highest, larger);
    each_lane([&](int lane) {
      const float zero[2] = {unit * highest.of(lane)[0], unit * highest.of(lane)[1]};
      if (!is_first) {
        float correction[2];
        TESSERA_UNROLL
        for (int half = 0; half < 2; ++half) {
          correction[half] = power_of_2(unit * before.of(lane)[half] - zero[half]);
          total.of(lane)[half] *= correction[half];
        }
        each_number<kD / 8>([&](int j, int e) { sums[j].of(lane)[e] *= correction[e / 2]; });
      }
      each_number<octets>([&](int j, int e) {
        float& weight = scores[j].of(lane)[e];
        weight = power_of_2(unit * weight - zero[e / 2]);
        total.of(lane)[e / 2] += weight;
      });
    });
    Operand weights;
    TESSERA_UNROLL
    for (int j = 0; j < kWhole; j += 2) {
      round_left(weights, scores + j);
      multiply_by_rows<kD>(sums, weights, values + 8 * j * kPitch<kD>);
    }
    round_left<kLast>(weights, scores + kWhole);
    multiply_by_rows<kD>(sums, weights, values + 8 * kWhole * kPitch<kD>);
  }
};

template <int kD>
struct AttentionForward {
  Heads s;
  Cut cut;
  const bf16* qkv;
  float scale;
  bf16* out;
  float* lse;  // or null

  static constexpr int kWarps = kMaxWarps, kBlocks = kD == 16 ? 3 : 2;
  struct Shared {
    SharedRows<kD, kTile> keys[2], values[2];
    SharedRows<kD, kMaxWarps * kRows> queries, results;  // the block's own
  };
  using State = Softmax<kD>;

  TESSERA_FN void operator()(Shared& shared, int first_block, int step, int blocks) const {
    const int N = s.N;
    each_tile<State>(
        cut, N, first_block, step, blocks,
        [&](const Place& place) {
          load_rows<kD>(place, place.rows(), place.first, N, s.D,
                        Copy{shared.queries.v, s.queries(qkv, place.head)});
        },
        [&](const Place& place, int which, int begin, int rows) {
          load_rows<kD>(place, rows, begin, N, s.D, Copy{shared.keys[which].v, s.keys(qkv, place.head)},
                        Copy{shared.values[which].v, s.values(qkv, place.head)});
        },
        [&](State& state, int warp, int, const Place&) { state.start(shared.queries.row(warp * kRows)); },
        [&](State& state, int which, int count, int begin) {
          state.add(shared.keys[which].v, shared.values[which].v, count, scale, begin == 0);
        },
        [&](State& state, int warp, int first, const Place& place) {
          state.store(shared.results.row(warp * kRows), s.results(out, place.head), lse,
                      int64_t{place.head} * N, first, scale);
        });
  }
};

template <int kD>
struct AttentionQueryGradient {
  Heads s;
  Cut cut;
  const bf16* qkv;
  float scale;
  const bf16 *out, *dout;
  const float* lse;
  float *lse_2, *minus_delta;  // for the keys: lse log2(e) and -rowsum(dO O)
  bf16* dqkv;
  float beta;

  static constexpr int kWarps = kMaxWarps, kBlocks = kD == 16 ? 3 : 2;
  struct Shared {
    SharedRows<kD, kTile> keys[2], values[2];
    SharedRows<kD, kMaxWarps * kRows> queries, douts, results;  // the block's own
    float delta[kMaxWarps * kRows];
  };
  struct State {
    Operand query[kD / 16], dout[kD / 16];
    Sums sums[kD / 8];
    Registers<float, 2> lse;  // of each half of the rows, times log2(e)
    Sums minus_delta;         // of the rows of its numbers
  };

  TESSERA_FN void operator()(Shared& shared, int first_block, int step, int blocks) const {
    const int N = s.N;
    each_tile<State>(
        cut, N, first_block, step, blocks,
        [&](const Place& place) {
          load_rows<kD>(place, place.rows(), place.first, N, s.D,
                        Copy{shared.queries.v, s.queries(qkv, place.head)},
                        Copy{shared.douts.v, s.results(dout, place.head)});
        },
        [&](const Place& place, int which, int begin, int rows) {
          load_rows<kD>(place, rows, begin, N, s.D, Copy{shared.keys[which].v, s.keys(qkv, place.head)},
                        Copy{shared.values[which].v, s.values(qkv, place.head)});
        },
        [&](State& state, int warp, int first, const Place& place) {
          const int64_t rows = int64_t{place.head} * N;
          each_half_row(first, [&](int lane, int half, int row) {
            const float own_lse = row < N ? kLog2E * lse[rows + row] : 0;
            if (column_of(lane, 0) == 0 && row < N) lse_2[rows + row] = own_lse;
            state.lse.of(lane)[half] = own_lse;
          });
          float* const own_delta = shared.delta + warp * kRows;
          Registers<float, kD / 16> dots;
          dot_rows<kD>(dots, s.results(out, place.head), s.results(dout, place.head), first);
          each_eight<kD>([&](int lane, int i, int row, int d) {
            if (d != 0) return;
            own_delta[row] = -dots.of(lane)[i];
            if (first + row < N) minus_delta[rows + first + row] = own_delta[row];
          });
          sync_warp();
          each_half_row(0, [&](int lane, int half, int row) {
            state.minus_delta.of(lane)[2 * half] = state.minus_delta.of(lane)[2 * half + 1] = own_delta[row];
          });
          read_left<kD>(state.query, shared.queries.row(warp * kRows));
          read_left<kD>(state.dout, shared.douts.row(warp * kRows));
          clear(state.sums);
        },
        [&](State& state, int which, int count, int) {
          const bf16 *k = shared.keys[which].v, *v = shared.values[which].v;
          for (; count >= kRows; count -= kRows, k += kRows * kPitch<kD>, v += kRows * kPitch<kD>)
            add_keys<true>(state, k, v, kRows);
          if (count > 0) add_keys<false>(state, k, v, count);
        },
        [&](State& state, int warp, int first, const Place& place) {
          store_sums<kD>(state.sums, scale, shared.results.row(warp * kRows), s.queries(dqkv, place.head),
                         first, beta);
        });
  }

 private:
  // 16 keys, or the last `count`.
  template <bool all>
  TESSERA_INLINE void add_keys(State& state, const bf16* keys, const bf16* values, int count) const {
    Sums scores[2], slopes[2] = {state.minus_delta, state.minus_delta};
    clear(scores);
    multiply_by_columns<kD>(scores, state.query, keys);
    multiply_by_columns<kD>(slopes, state.dout, values);
    each_lane([&](int lane) {
      each_number<2>([&](int j, int e) {
        const float weight = power_of_2(kLog2E * scale * scores[j].of(lane)[e] - state.lse.of(lane)[e / 2]);
        slopes[j].of(lane)[e] *= all || 8 * j + column_of(lane, e) < count ? weight : 0;
      });
    });
    Operand left;
    round_left(left, slopes);
    multiply_by_rows<kD>(state.sums, left, keys);
  }
};

// Of queries that keys meet, in shared memory.
template <int kD>
struct Queries {
  SharedRows<kD, kTile> rows, douts;
  // Of two queries each, as the columns of C that a lane has: lse log2(e), and -rowsum(dO O) twice. Of a
  // query beyond N both are 0, as are its rows: it adds nothing.
  struct alignas(8) {
    float v[2];
  } lse[kTile / 2];
  struct alignas(16) {
    float v[4];
  } minus_delta[kTile / 2];

  TESSERA_INLINE float& lse_of(int i) { return lse[uint32_t(i) / 2].v[uint32_t(i) % 2]; }
  TESSERA_INLINE float& minus_delta_of(int i, int copy) {
    return minus_delta[uint32_t(i) / 2].v[2 * copy + int(uint32_t(i) % 2)];
  }
};

// A warp's keys, and the sums of their gradients.
template <int kD>
struct Keys {
  Operand key[kD / 16], value[kD / 16];
  Sums dkey[kD / 8], dvalue[kD / 8];

  // Adds what 16 queries from `begin` on give; `slopes` becomes their dS^T.
  TESSERA_INLINE void add(const Queries<kD>& queries, int begin, float scale, Operand& slopes) {
    const bf16* const rows = queries.rows.v + begin * kPitch<kD>;
    const bf16* const douts = queries.douts.v + begin * kPitch<kD>;
    Sums p[2], ds[2];
    clear(p);
    each_lane([&](int lane) {
      each_number<2>(
          [&](int j, int e) { ds[j].of(lane)[e] = queries.minus_delta[begin / 2 + 4 * j + lane % 4].v[e]; });
    });
    multiply_by_columns<kD>(p, key, rows);
    multiply_by_columns<kD>(ds, value, douts);
    each_lane([&](int lane) {
      each_number<2>([&](int j, int e) {
        float& weight = p[j].of(lane)[e];
        weight = power_of_2(kLog2E * scale * weight - queries.lse[begin / 2 + 4 * j + lane % 4].v[e % 2]);
        ds[j].of(lane)[e] *= weight;
      });
    });
    Operand weights;
    round_left(weights, p);
    round_left(slopes, ds);
    multiply_by_rows<kD>(dvalue, weights, douts);
    multiply_by_rows<kD>(dkey, slopes, rows);
  }
};

template <int kD>
struct AttentionKeyGradient {
  Heads s;
  Cut cut;
  const bf16* qkv;
  float scale;
  const bf16* dout;
  const float *lse_2, *minus_delta;  // of the query gradient
  bf16* dqkv;
  float beta;

  static constexpr int kWarps = kMaxWarps, kBlocks = kD == 16 ? 3 : 2;
  struct Shared {
    Queries<kD> queries[2];
    SharedRows<kD, kMaxWarps * kRows> keys, values, results;  // the block's own
  };
  using State = Keys<kD>;

  TESSERA_FN void operator()(Shared& shared, int first_block, int step, int blocks) const {
    const int N = s.N;
    each_tile<State>(
        cut, N, first_block, step, blocks,
        [&](const Place& place) {
          load_rows<kD>(place, place.rows(), place.first, N, s.D,
                        Copy{shared.keys.v, s.keys(qkv, place.head)},
                        Copy{shared.values.v, s.values(qkv, place.head)});
        },
        [&](const Place& place, int which, int begin, int rows) {
          Queries<kD>& tile = shared.queries[which];
          load_rows<kD>(place, rows, begin, N, s.D, Copy{tile.rows.v, s.queries(qkv, place.head)},
                        Copy{tile.douts.v, s.results(dout, place.head)});
          const int64_t at = int64_t{place.head} * N + begin;
          place.each_thread([&](int thread) {
            for (int i = thread; i < rows; i += place.threads) {
              const bool there = begin + i < N;
              start_copy<4>(&tile.lse_of(i), lse_2 + at + i, there);
              for (int copy = 0; copy < 2; ++copy)
                start_copy<4>(&tile.minus_delta_of(i, copy), minus_delta + at + i, there);
            }
          });
        },
        [&](State& state, int warp, int, const Place&) {
          read_left<kD>(state.key, shared.keys.row(warp * kRows));
          read_left<kD>(state.value, shared.values.row(warp * kRows));
          clear(state.dkey);
          clear(state.dvalue);
        },
        [&](State& state, int which, int count, int) {
          Operand slopes;
          for (int i = 0; i < count; i += kRows) state.add(shared.queries[which], i, scale, slopes);
        },
        [&](State& state, int warp, int first, const Place& place) {
          bf16* const own = shared.results.row(warp * kRows);
          store_sums<kD>(state.dkey, scale, own, s.keys(dqkv, place.head), first, beta);
          store_sums<kD>(state.dvalue, 1, own, s.values(dqkv, place.head), first, beta);
        });
  }
};

}  // namespace tessera::cuda
