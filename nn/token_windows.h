// The orders in which Swin Transformers (Liu et al., 2021) take the tokens of a grid, window by window or
// four by four, as rows for permute_rows. Made by programs, where they are needed: no card waits for an
// upload.
#pragma once

#include "engine/tensor/tensor.h"

namespace tessera {

// How a grid of G x G tokens is cut. A shifted cut moves the grid round by `shift` first.
struct Windows {
  int64_t grid, size, shift;

  TESSERA_FN int64_t across() const { return grid / size; }
  TESSERA_FN int64_t count() const { return across() * across(); }
  TESSERA_FN int64_t tokens() const { return size * size; }  // of a window
  // The place in the shifted grid of a window's token.
  TESSERA_FN int64_t row(int64_t window, int64_t token) const {
    return window / across() * size + token / size;
  }
  TESSERA_FN int64_t column(int64_t window, int64_t token) const {
    return window % across() * size + token % size;
  }
};

// The rows of B images in the order of their windows, each row by row: i32 (B*G*G).
Tensor window_order(const Windows& windows, int64_t B);

// (n,1,N,N) for n windows of N tokens, to be added to scores: 0, or -100 where a shift brought two tokens
// together.
Tensor shift_mask(const Windows& windows, DType dtype);

// The rows of B images of G x G tokens, four by four as they merge; of four, column by column as the authors
// have it: i32 (B*G*G).
Tensor merging_order(int64_t grid, int64_t B);

}  // namespace tessera
