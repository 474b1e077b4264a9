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

template <class T>
struct ShiftMask {
  Windows windows;
  T* mask;
  // Along each axis only the last window holds tokens from both edges: from its own, and `shift` from the
  // other.
  TESSERA_FN int edge(int64_t window, int64_t token) const {
    const int64_t own = windows.grid - windows.shift;
    return 2 * (windows.row(window, token) >= own) + (windows.column(window, token) >= own);
  }
  TESSERA_FN void operator()(int64_t i) const {
    const int64_t N = windows.tokens(), window = i / (N * N);
    mask[i] = edge(window, i / N % N) == edge(window, i % N) ? T(0) : T(-100);
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
  Tensor mask({windows.count(), 1, windows.tokens(), windows.tokens()}, dtype);
  for_float("shift_mask", dtype, [&]<class T>() {
    elements(mask.count(), ShiftMask<T>{windows, mask.mutable_data<T>()});
  });
  return mask;
}

Tensor merging_order(int64_t grid, int64_t B) {
  Tensor order({B * grid * grid}, DType::i32);
  elements(order.count(), MergingOrder{grid, order.mutable_data<int32_t>()});
  return order;
}

}  // namespace tessera
