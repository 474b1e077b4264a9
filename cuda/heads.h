// Where the rows of one head lie in packed projections (B,N,3,H,D) and in results (B,N,H*D).
#pragma once

#include "engine/base/check.h"
#include "engine/base/portable.h"
#include "engine/kernels/attention.h"

namespace tessera::cuda {

template <class T>
struct HeadRows {
  T* at;           // the first
  int64_t stride;  // from row to row
  int64_t N, D;
};

// `head` counts through all images.
struct Heads : AttentionShape {
  TESSERA_FN int64_t row() const { return 3 * H * D; }  // from token to token in qkv
  TESSERA_FN int64_t out_row() const { return H * D; }
  TESSERA_FN int64_t qkv_at(int64_t head) const { return head / H * N * row() + head % H * D; }
  TESSERA_FN int64_t out_at(int64_t head) const { return head / H * N * out_row() + head % H * D; }

  template <class T>
  TESSERA_FN HeadRows<T> queries(T* qkv, int64_t head) const {
    return {qkv + qkv_at(head), row(), N, D};
  }
  template <class T>
  TESSERA_FN HeadRows<T> keys(T* qkv, int64_t head) const {
    return queries(qkv + out_row(), head);
  }
  template <class T>
  TESSERA_FN HeadRows<T> values(T* qkv, int64_t head) const {
    return queries(qkv + 2 * out_row(), head);
  }
  template <class T>
  TESSERA_FN HeadRows<T> results(T* out, int64_t head) const {
    return {out + out_at(head), out_row(), N, D};
  }
};

// Calls f.operator()<kD>() with the least kD of 16, 32 and 64 that D fits in.
template <class F>
void with_head_size(const AttentionShape& s, F f) {
  TESSERA_CHECK(s.D <= kWidestHeadOnCard, "attention: heads of ", s.D, " channels, where ", kWidestHeadOnCard,
                " is the most");
  if (s.D <= 16) return f.template operator()<16>();
  if (s.D <= 32) return f.template operator()<32>();
  f.template operator()<64>();
}

}  // namespace tessera::cuda
