#include "nn/token_windows.h"

#include "engine/kernels/rows.h"

namespace tessera {
namespace {

struct WindowOrder {
  Windows windows;
  int32_t* order;
  TESSERA_FN void operator()(int64_t i) const {
    const int64_t grid = windows.grid, N = windows.tokens(), image = i / (grid * grid);
    const int64_t window = i / N % windows.count(), token = i % N;
    const int64_t row = (windows.row(window, token) + windows.shift) % grid;
    const int64_t column = (windows.column(window, token) + windows.shift) % grid;
    order[i] = int32_t((image * grid + row) * grid + column);
  }
};

// Along each axis only the last window holds tokens from both edges: from its own, and `shift` from the
// other.
struct TokenEdge {
  Windows windows;
  int32_t* edge;
  TESSERA_FN void operator()(int64_t i) const {
    const int64_t own = windows.grid - windows.shift, window = i / windows.tokens(),
                  token = i % windows.tokens();
    edge[i] = 2 * (windows.row(window, token) >= own) + (windows.column(window, token) >= own);
  }
};

template <class T>
struct ShiftMask {
  int64_t N;
  const int32_t* edge;
  T* mask;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const int32_t own = edge[i];
    const int32_t* const others = edge + i / N * N;
    T* const out = mask + i * N;
    row.each(N, [=](int64_t j) { out[j] = others[j] == own ? T(0) : T(-100); });
  }
};

struct MergingOrder {
  int64_t grid;
  int32_t* order;
  TESSERA_FN void operator()(int64_t i) const {
    const int64_t half = grid / 2, four = i / 4, image = four / (half * half);
    const int64_t row = four / half % half * 2 + i % 2, column = four % half * 2 + i % 4 / 2;
    order[i] = int32_t((image * grid + row) * grid + column);
  }
};

}  // namespace

Tensor window_order(const Windows& windows, int64_t B) {
  Tensor order({B * windows.grid * windows.grid}, DType::i32);
  elements(order.count(), WindowOrder{windows, order.mutable_data<int32_t>()});
  return order;
}

Tensor shift_mask(const Windows& windows, DType dtype) {
  const int64_t n = windows.count(), N = windows.tokens();
  Tensor edge({n * N}, DType::i32), mask({n, 1, N, N}, dtype);
  elements(n * N, TokenEdge{windows, edge.mutable_data<int32_t>()});
  for_float("shift_mask", dtype, [&]<class T>() {
    rows(n * N, N, ShiftMask<T>{N, edge.data<int32_t>(), mask.mutable_data<T>()});
  });
  return mask;
}

Tensor merging_order(int64_t grid, int64_t B) {
  Tensor order({B * grid * grid}, DType::i32);
  elements(order.count(), MergingOrder{grid, order.mutable_data<int32_t>()});
  return order;
}

}  // namespace tessera
