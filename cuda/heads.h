// Where the rows of one head lie in packed projections (B,N,3,H,D) and in results (B,N,H*D).
#pragma once

#include <type_traits>

#include "engine/base/check.h"
#include "engine/base/portable.h"
#include "engine/kernels/attention.h"

namespace tessera::cuda {

template <class T>
struct HeadRows {
  T* at;            // the first
  uint32_t stride;  // from row to row
  int N, D;

  // 32 bits are enough within an image, and take fewer instructions.
  TESSERA_INLINE T* of(int row, int d) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    const uint32_t bytes = (uint32_t(row) * stride + uint32_t(d)) * uint32_t(sizeof(T));
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(at) + bytes);
  }
};

// `head` counts through all images.
struct Heads {
  int B, N, H, D;
  uint32_t part_of_image;  // 2^32 / H - 1, rounded up

  TESSERA_FN Heads(const AttentionShape& s)
      : B(int(s.B)), N(int(s.N)), H(int(s.H)), D(int(s.D)), part_of_image(0xFFFFFFFFu / uint32_t(s.H)) {}

  TESSERA_FN uint32_t row() const { return 3 * out_row(); }  // from token to token in qkv
  TESSERA_FN uint32_t out_row() const { return uint32_t(H) * uint32_t(D); }
  TESSERA_FN int64_t qkv_at(int64_t head) const { return at(uint32_t(head), row()); }
  TESSERA_FN int64_t out_at(int64_t head) const { return at(uint32_t(head), out_row()); }

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

 private:
  TESSERA_FN int64_t at(uint32_t head, uint32_t row) const {
    const uint32_t image = (uint64_t{head} * part_of_image + head) >> 32;  // head / H, while head H < 2^32
    return int64_t(uint64_t{uint32_t(N)} * row * image + (head - image * uint32_t(H)) * uint32_t(D));
  }
};

// Calls f.operator()<kD>() with the least kD of 16, 32 and 64 that D fits in.
template <class F>
void with_head_size(const AttentionShape& s, F f) {
  TESSERA_CHECK(s.D <= kWidestHeadOnCard, "attention: heads of ", s.D, " channels, where ", kWidestHeadOnCard,
                " is the most");
  TESSERA_CHECK(s.B * s.H * s.H < int64_t{1} << 32, "attention: ", s.B, " images of ", s.H,
                " heads are more than a card's kernels count");
  if (s.D <= 16) return f.template operator()<16>();
  if (s.D <= 32) return f.template operator()<32>();
  f.template operator()<64>();
}

}  // namespace tessera::cuda
