// Attention in bf16 on tensor cores, without an N x N tensor (Dao, "FlashAttention-2", 2023), as programs
// over blocks of a head's rows:
//   forward:  S = scale Q K^T,  P = 2^(S log2(e) - highest so far),  O = P V / sum P,  lse = log sum P;
//   backward: P = e^(S - lse),  dS = P (dO V^T - rowsum(dO O)),  of queries dQ = scale dS K and, by the
//             transposes of S and dS, of keys dV = P^T dO and dK = scale dS^T Q.
// Inputs, P and dS are bf16; the softmax, lse and all sums are f32. Every output has one writer and every sum
// one order: two runs give the same bits.
#pragma once

#include <limits>

#include "cuda/attention_rows.h"

namespace tessera::cuda {

constexpr float kLog2E = 1.44269504f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <int kD>
struct AttentionForward {
  Heads s;
  Cut cut;
  const bf16* qkv;
  float scale;
  bf16* out;
  float* lse;  // or null

  struct State {
    Operand query[kD / 16];
    Sums sums[kD / 8];
    Registers<float, 2> highest, total;  // of each half of the rows; `total` of a lane's own columns
  };

  TESSERA_FN void operator()(Tiles<kD>& tiles, int64_t block) const {
    Warps<State> warps(cut, block, s.N);
    const auto queries = s.queries(qkv, warps.head), keys = s.keys(qkv, warps.head),
               values = s.values(qkv, warps.head);
    warps.each([&](State& state, int warp, int64_t first) {
      load_left<kD>(state.query, tiles.own[warp], queries, first);
      clear(state.sums);
      each_lane([&](int lane) {
        state.highest.of(lane)[0] = state.highest.of(lane)[1] = -kInfinity;
        state.total.of(lane)[0] = state.total.of(lane)[1] = 0;
      });
    });
    each_tile(
        warps, s.N,
        [&](int thread, int64_t begin, int rows) {
          load_rows<kD>(tiles.first, rows, keys, begin, thread, warps.threads);
          load_rows<kD>(tiles.second, rows, values, begin, thread, warps.threads);
        },
        [&](State& state, int count) { add_tile(state, tiles, count); });
    warps.each([&](State& state, int warp, int64_t first) {
      combine_over_row(state.total, [](float a, float b) { return a + b; });
      Registers<float, 2> factor;
      each_lane([&](int lane) {
        TESSERA_UNROLL
        for (int half = 0; half < 2; ++half) {
          const float total = state.total.of(lane)[half];
          const int64_t row = first + row_of(lane, 2 * half);
          factor.of(lane)[half] = 1 / total;
          if (lse && column_of(lane, 0) == 0 && row < s.N)
            lse[warps.head * s.N + row] = (state.highest.of(lane)[half] + std::log2(total)) / kLog2E;
        }
      });
      store_sums<kD>(state.sums, factor, tiles.own[warp], s.results(out, warps.head), first, 0);
    });
  }

 private:
  TESSERA_INLINE void add_tile(State& state, const Tiles<kD>& tiles, int count) const {
    const auto larger = [](float a, float b) { return a < b ? b : a; };
    Sums scores[kTile / 8];
    clear(scores);
    TESSERA_UNROLL
    for (int c = 0; c < kTile / 16; ++c)
      if (16 * c < count)
        multiply_by_columns<kD>(scores[2 * c], scores[2 * c + 1], state.query,
                                tiles.first + 16 * c * kPitch<kD>);
    Registers<float, 2> highest = state.highest;
    each_lane([&](int lane) {
      each_number<kTile / 8>([&](int j, int e) {
        float& score = scores[j].of(lane)[e];
        score = 8 * j + column_of(lane, e) < count ? kLog2E * scale * score : -kInfinity;
        highest.of(lane)[e / 2] = larger(highest.of(lane)[e / 2], score);
      });
    });
    combine_over_row(highest, larger);
    each_lane([&](int lane) {
      float correction[2];
      TESSERA_UNROLL
      for (int half = 0; half < 2; ++half) {
        correction[half] = power_of_2(state.highest.of(lane)[half] - highest.of(lane)[half]);
        state.total.of(lane)[half] *= correction[half];
      }
      each_number<kD / 8>([&](int j, int e) { state.sums[j].of(lane)[e] *= correction[e / 2]; });
      each_number<kTile / 8>([&](int j, int e) {
        float& weight = scores[j].of(lane)[e];
        weight = power_of_2(weight - highest.of(lane)[e / 2]);
        state.total.of(lane)[e / 2] += weight;
      });
    });
    state.highest = highest;
    TESSERA_UNROLL
    for (int c = 0; c < kTile / 16; ++c)
      if (16 * c < count)
        multiply_by_rows<kD>(state.sums, scores[2 * c], scores[2 * c + 1],
                             tiles.second + 16 * c * kPitch<kD>);
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
  float* delta;  // rowsum(dO O), for the keys
  bf16* dqkv;
  float beta;

  struct State {
    Operand query[kD / 16], dout[kD / 16];
    Sums sums[kD / 8];
    Registers<float, 2> lse, delta;  // of each half of the rows; lse times log2(e)
  };

  TESSERA_FN void operator()(Tiles<kD>& tiles, int64_t block) const {
    Warps<State> warps(cut, block, s.N);
    const int64_t head = warps.head;
    const auto keys = s.keys(qkv, head), values = s.values(qkv, head);
    warps.each([&](State& state, int warp, int64_t first) {
      load_left<kD>(state.query, tiles.own[warp], s.queries(qkv, head), first);
      load_left<kD>(state.dout, tiles.own[warp], s.results(dout, head), first);
      Operand result[kD / 16];
      load_left<kD>(result, tiles.own[warp], s.results(out, head), first);
      find_delta(state, result);
      clear(state.sums);
      each_lane([&](int lane) {
        TESSERA_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int64_t row = first + row_of(lane, 2 * half);
          state.lse.of(lane)[half] = row < s.N ? kLog2E * lse[head * s.N + row] : kInfinity;
          if (column_of(lane, 0) == 0 && row < s.N) delta[head * s.N + row] = state.delta.of(lane)[half];
        }
      });
    });
    each_tile(
        warps, s.N,
        [&](int thread, int64_t begin, int rows) {
          load_rows<kD>(tiles.first, rows, keys, begin, thread, warps.threads);
          load_rows<kD>(tiles.second, rows, values, begin, thread, warps.threads);
        },
        [&](State& state, int count) { add_tile(state, tiles, count); });
    warps.each([&](State& state, int warp, int64_t first) {
      store_sums<kD>(state.sums, scale, tiles.own[warp], s.queries(dqkv, head), first, beta);
    });
  }

 private:
  TESSERA_INLINE void find_delta(State& state, const Operand (&result)[kD / 16]) const {
    each_lane([&](int lane) {
      TESSERA_UNROLL
      for (int half = 0; half < 2; ++half) {
        float& sum = state.delta.of(lane)[half];
        sum = 0;
        each_number<kD / 16>([&](int k, int r) {
          if (r % 2 != half) return;  // a register of the other half's row
          const uint32_t o = result[k].of(lane)[r], g = state.dout[k].of(lane)[r];
          sum += low_of(o) * low_of(g) + high_of(o) * high_of(g);
        });
      }
    });
    combine_over_row(state.delta, [](float a, float b) { return a + b; });
  }

  TESSERA_INLINE void add_tile(State& state, const Tiles<kD>& tiles, int count) const {
    for (int begin = 0; begin < count; begin += 16) {
      const bf16* const keys = tiles.first + begin * kPitch<kD>;
      const bf16* const values = tiles.second + begin * kPitch<kD>;
      Sums scores[2], slopes[2];
      multiply_by_columns<kD>(scores[0], scores[1], state.query, keys);
      multiply_by_columns<kD>(slopes[0], slopes[1], state.dout, values);
      each_lane([&](int lane) {
        each_number<2>([&](int j, int e) {
          const float score = kLog2E * scale * scores[j].of(lane)[e];
          const bool there = begin + 8 * j + column_of(lane, e) < count;
          const float weight = there ? power_of_2(score - state.lse.of(lane)[e / 2]) : 0;
          float& slope = slopes[j].of(lane)[e];
          slope = weight * (slope - state.delta.of(lane)[e / 2]);
        });
      });
      multiply_by_rows<kD>(state.sums, slopes[0], slopes[1], keys);
    }
  }
};

template <int kD>
struct AttentionKeyGradient {
  Heads s;
  Cut cut;
  const bf16* qkv;
  float scale;
  const bf16* dout;
  const float *lse, *delta;
  bf16* dqkv;
  float beta;

  struct State {
    Operand key[kD / 16], value[kD / 16];
    Sums dkey[kD / 8], dvalue[kD / 8];
  };

  TESSERA_FN void operator()(Tiles<kD>& tiles, int64_t block) const {
    Warps<State> warps(cut, block, s.N);
    const int64_t head = warps.head;
    const auto queries = s.queries(qkv, head), douts = s.results(dout, head);
    warps.each([&](State& state, int warp, int64_t first) {
      load_left<kD>(state.key, tiles.own[warp], s.keys(qkv, head), first);
      load_left<kD>(state.value, tiles.own[warp], s.values(qkv, head), first);
      clear(state.dkey);
      clear(state.dvalue);
    });
    each_tile(
        warps, s.N,
        [&](int thread, int64_t begin, int rows) {
          load_rows<kD>(tiles.first, rows, queries, begin, thread, warps.threads);
          load_rows<kD>(tiles.second, rows, douts, begin, thread, warps.threads);
          for (int i = thread; i < rows; i += warps.threads) {
            const bool there = begin + i < s.N;  // otherwise it gives no key any weight
            tiles.lse[i] = there ? kLog2E * lse[head * s.N + begin + i] : kInfinity;
            tiles.delta[i] = there ? delta[head * s.N + begin + i] : 0;
          }
        },
        [&](State& state, int count) { add_tile(state, tiles, count); });
    warps.each([&](State& state, int warp, int64_t first) {
      store_sums<kD>(state.dkey, scale, tiles.own[warp], s.keys(dqkv, head), first, beta);
      store_sums<kD>(state.dvalue, 1, tiles.own[warp], s.values(dqkv, head), first, beta);
    });
  }

 private:
  TESSERA_INLINE void add_tile(State& state, const Tiles<kD>& tiles, int count) const {
    for (int begin = 0; begin < count; begin += 16) {
      const bf16* const queries = tiles.first + begin * kPitch<kD>;
      const bf16* const douts = tiles.second + begin * kPitch<kD>;
      Sums weights[2], slopes[2];
      multiply_by_columns<kD>(weights[0], weights[1], state.key, queries);
      multiply_by_columns<kD>(slopes[0], slopes[1], state.value, douts);
      each_lane([&](int lane) {
        each_number<2>([&](int j, int e) {
          const int query = begin + 8 * j + column_of(lane, e);
          float &weight = weights[j].of(lane)[e], &slope = slopes[j].of(lane)[e];
          weight = power_of_2(kLog2E * scale * weight - tiles.lse[query]);
          slope = weight * (slope - tiles.delta[query]);
        });
      });
      multiply_by_rows<kD>(state.dvalue, weights[0], weights[1], douts);
      multiply_by_rows<kD>(state.dkey, slopes[0], slopes[1], queries);
    }
  }
};

}  // namespace tessera::cuda
