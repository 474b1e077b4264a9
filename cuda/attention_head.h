// Attention in bf16 where a head is one tile (cuda/attention_tiles.h): a block has all of it in shared memory
// and reads everything once. Backward, each warp owns 16 keys, and then 16 queries, for which all warps leave
// dS^T in shared memory: P and dS are computed once.
#pragma once

#include "cuda/attention_tiles.h"

namespace tessera::cuda {

inline bool fits_in_a_tile(int64_t N) { return N <= kTile; }

template <int kD>
struct AttentionOfHead {
  Heads s;
  const bf16* qkv;
  float scale;
  bf16* out;
  float* lse;  // or null

  static constexpr int kWarps = kGroups, kBlocks = kD == 16 ? 6 : kD == 32 ? 4 : 3;
  struct Shared {
    struct {
      SharedRows<kD, kTile> queries, keys, values;  // a warp's own queries turn into its results
    } heads[2];
  };
  using State = Softmax<kD>;

  TESSERA_FN void operator()(Shared& shared, int first_head, int step, int heads) const {
    const int N = s.N;
    Warps<State> warps;
    in_turn(
        first_head, step, heads,
        [&](int which, int head) {
          auto& to = shared.heads[which];
          const Place place(head, N);
          load_rows<kD>(place, place.rows(), 0, N, s.D, Copy{to.queries.v, s.queries(qkv, head)},
                        Copy{to.keys.v, s.keys(qkv, head)}, Copy{to.values.v, s.values(qkv, head)});
        },
        [&](int which, int head) {
          auto& in = shared.heads[which];
          warps.each(Place(head, N), [&](State& state, int, int first) {
            bf16* const own = in.queries.row(first);
            state.start(own);
            state.add(in.keys.v, in.values.v, N, scale, true);
            state.store(own, s.results(out, head), lse, int64_t{head} * N, first, scale);
          });
        });
  }
};

template <int kD>
struct AttentionGradientOfHead {
  Heads s;
  const bf16* qkv;
  float scale;
  const bf16 *out, *dout;
  const float* lse;
  bf16* dqkv;
  float beta;

  static constexpr int kWarps = kGroups, kBlocks = kD == 16 ? 5 : kD == 32 ? 4 : 3;
  struct Shared {
    Queries<kD> queries;
    SharedRows<kD, kTile> keys, values;  // a warp's own values are on their way in, and then its results out
    SharedRows<kTile, kTile> slopes;     // dS^T
  };
  using State = Keys<kD>;

  TESSERA_FN void operator()(Shared& shared, int first_head, int step, int heads) const {
    for (int head = first_head; head < heads; head += step) {
      add_head(shared, head);
      sync_block();  // what is in shared memory was read
    }
  }

 private:
  TESSERA_INLINE void add_head(Shared& shared, int head) const {
    const int N = s.N;
    const Place place(head, N);
    Warps<State> warps;
    const auto douts = s.results(dout, head);
    load_rows<kD>(place, place.rows(), 0, N, s.D, Copy{shared.keys.v, s.keys(qkv, head)},
                  Copy{shared.queries.rows.v, s.queries(qkv, head)},
                  Copy{shared.values.v, s.values(qkv, head)}, Copy{shared.queries.douts.v, douts});
    warps.each(place, [&](State&, int, int first) {
      Registers<float, kD / 16> own_lse, delta;
      each_eight<kD>([&](int lane, int i, int row, int) {
        own_lse.of(lane)[i] = first + row < N ? lse[int64_t{head} * N + first + row] : 0;
      });
      dot_rows<kD>(delta, s.results(out, head), douts, first);
      each_eight<kD>([&](int lane, int i, int row, int d) {
        if (d != 0) return;
        shared.queries.lse_of(first + row) = kLog2E * own_lse.of(lane)[i];
        for (int copy = 0; copy < 2; ++copy)
          shared.queries.minus_delta_of(first + row, copy) = -delta.of(lane)[i];
      });
    });
    wait_for_copies();
    sync_block();
    warps.each(place, [&](State& state, int, int first) {
      bf16* const own = shared.values.row(first);
      read_left<kD>(state.key, shared.keys.row(first));
      read_left<kD>(state.value, own);
      clear(state.dkey);
      clear(state.dvalue);
      TESSERA_UNROLL
      for (int begin = 0; begin < kTile; begin += kRows) {
        if (begin >= N) break;
        Operand slopes;
        state.add(shared.queries, begin, scale, slopes);
        each_lane([&](int lane) {
          TESSERA_UNROLL
          for (int r = 0; r < 4; ++r) {
            const int row = first + row_of(lane, r % 2 * 2), column = begin + r / 2 * 8 + column_of(lane, 0);
            store_word(shared.slopes.row(row) + column, row < N ? slopes.of(lane)[r] : 0);
          }
        });
      }
      store_sums<kD>(state.dkey, scale, own, s.keys(dqkv, head), first, beta);
      store_sums<kD>(state.dvalue, 1, own, s.values(dqkv, head), first, beta);
    });
    sync_block();
    warps.each(place, [&](State&, int, int first) {
      Sums dquery[kD / 8];
      clear(dquery);
      TESSERA_UNROLL
      for (int begin = 0; begin < kTile; begin += kRows) {
        if (begin >= N) break;
        Operand slopes;
        load_matrices<true>(slopes, [&](int lane) {
          return shared.slopes.row(begin + lane % 8 + lane / 16 * 8) + first + lane / 8 % 2 * 8;
        });
        multiply_by_rows<kD>(dquery, slopes, shared.keys.row(begin));
      }
      store_sums<kD>(dquery, scale, shared.values.row(first), s.queries(dqkv, head), first, beta);
    });
  }
};

}  // namespace tessera::cuda
