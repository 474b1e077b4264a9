// unfold: y[b,(i,j),(c,u,v)] = x[b, i stride + u - padding, j stride + v - padding, c], x zero outside: each
// window of a grid of tokens becomes one token (the soft split of T2T-ViT, Yuan et al., 2021). The gradient
// of a point is the sum over the windows that it lies in.
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"
#include "engine/ops/windows.h"

namespace tessera {
namespace {

template <class T>
struct Forward {
  GridWindows windows;
  int64_t C;
  const T* x;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t n) const {  // one window
    const int64_t taps = windows.taps();
    for (int64_t t = 0; t < taps; ++t) {
      T* const out = y + n * C * taps + t;
      const int64_t point = windows.point(n, t);
      const T* const in = x + point * C;
      if (point < 0)
        row.each(C, [=](int64_t c) { out[c * taps] = T(0); });
      else
        row.each(C, [=](int64_t c) { out[c * taps] = in[c]; });
    }
  }
};

template <class T>
struct Backward {
  GridWindows windows;
  int64_t C;
  const T* dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t n) const {  // one point
    const int64_t taps = windows.taps();
    row.each(C, [=, this](int64_t c) { dx.put(n * C + c, T(0)); });
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t window = windows.window(n, t);
      if (window < 0) continue;
      T* const to = dx.data + n * C;
      const T* const from = dy + window * C * taps + t;
      row.each(C, [=](int64_t c) { to[c] += from[c * taps]; });
    }
  }
};

}  // namespace

Tensor unfold(const Tensor& x, int64_t kernel, int64_t stride, int64_t padding) {
  Dims dim("unfold");
  dim(x, "x(B,H,W,C)");
  const int64_t B = dim['B'], C = dim['C'];
  const GridWindows windows{{dim['H'], kernel, stride, padding}, {dim['W'], kernel, stride, padding}};
  windows.check("unfold");
  Tensor y({B, windows.count(), C * windows.taps()}, x.dtype());
  for_float("unfold", x.dtype(), [&]<class T>() {
    rows(B * windows.count(), C * windows.taps(), Forward<T>{windows, C, x.data<T>(), y.mutable_data<T>()});
  });
  record("unfold", {x}, y, [=, gx = x.gradient()](const Gradient& gy) {
    for_float("unfold", gx.dtype(), [&]<class T>() {
      rows(B * windows.points(), C * windows.taps(), Backward<T>{windows, C, gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

namespace {

Tensor composed(const Tensor& x, int64_t kernel, int64_t stride, int64_t padding) {
  const int64_t B = x.size(0), H = x.size(1), W = x.size(2), C = x.size(3);
  std::vector<int64_t> index;
  int64_t count = 0;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t top = -padding; top + kernel <= H + padding; top += stride)
      for (int64_t left = -padding; left + kernel <= W + padding; left += stride, ++count)
        for (int64_t c = 0; c < C; ++c)
          for (int64_t row = top; row < top + kernel; ++row)
            for (int64_t column = left; column < left + kernel; ++column) {
              const bool inside = row >= 0 && row < H && column >= 0 && column < W;
              index.push_back(inside ? ((b * H + row) * W + column) * C + c : -1);
            }
  return take(x, index, {B, count / B, C * kernel * kernel});
}

OpCase unfolding(const char* name, int64_t kernel, int64_t stride, int64_t padding,
                 std::vector<const char*> shapes) {
  return {name, std::move(shapes), [=](const Inputs& in) { return unfold(in[0], kernel, stride, padding); },
          [=](const Inputs& in) { return composed(in[0], kernel, stride, padding); }};
}

TESSERA_CASES(unfolding("unfold(3,2,1)", 3, 2, 1,
                        {"2x8x8x3", "3x5x7x2", "1x1x1x1", "1x1x2x17", "65537x1x1x1"}));
TESSERA_CASES(unfolding("unfold(2,1,0)", 2, 1, 0, {"2x4x3x5", "1x2x2x1"}));
TESSERA_CASES(unfolding("unfold(2,3,2)", 2, 3, 2, {"2x4x6x3"}));

}  // namespace
}  // namespace tessera
