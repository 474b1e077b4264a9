// Windows that slide over a grid with zeros around it: along each axis, tap u of window i meets the point
// i stride + u - padding.
#pragma once

#include <cstdint>

#include "engine/base/check.h"
#include "engine/base/portable.h"
#include "engine/kernels/conv.h"

namespace tessera {

// Along one axis.
struct WindowAxis {
  int64_t size, kernel, stride, padding;

  TESSERA_INLINE int64_t count() const { return window_count(size, kernel, stride, padding); }
  // The point that tap u of window i meets, or -1 outside.
  TESSERA_INLINE int64_t point(int64_t i, int64_t u) const {
    const int64_t p = i * stride + u - padding;
    return p < size ? (p < 0 ? -1 : p) : -1;
  }
  // The window whose tap u meets point p, or -1 where there is none.
  TESSERA_INLINE int64_t window(int64_t p, int64_t u) const {
    const int64_t first = p + padding - u;
    return first >= 0 && first % stride == 0 && first / stride < count() ? first / stride : -1;
  }
};

// Along both axes of each of B grids x(B,H,W,C). Points and windows of all grids are counted row-major.
struct GridWindows {
  WindowAxis down, across;

  TESSERA_INLINE int64_t count() const { return down.count() * across.count(); }
  TESSERA_INLINE int64_t points() const { return down.size * across.size; }
  TESSERA_INLINE int64_t taps() const { return down.kernel * across.kernel; }
  // The point that tap t, which counts row-major, of window n meets, or -1.
  TESSERA_INLINE int64_t point(int64_t n, int64_t t) const {
    const int64_t b = n / count(), i = n % count() / across.count(), j = n % across.count();
    const int64_t p = down.point(i, t / across.kernel), q = across.point(j, t % across.kernel);
    return p < 0 || q < 0 ? -1 : b * points() + p * across.size + q;
  }
  // The window whose tap t meets point n, or -1.
  TESSERA_INLINE int64_t window(int64_t n, int64_t t) const {
    const int64_t b = n / points(), p = n % points() / across.size, q = n % across.size;
    const int64_t i = down.window(p, t / across.kernel), j = across.window(q, t % across.kernel);
    return i < 0 || j < 0 ? -1 : b * count() + i * across.count() + j;
  }

  void check(const char* op) const {
    TESSERA_CHECK(down.stride >= 1 && down.padding >= 0, op, ": stride ", down.stride,
                  " must be at least 1 and padding ", down.padding, " at least 0");
    for (const WindowAxis& axis : {down, across})
      TESSERA_CHECK(axis.kernel >= 1 && axis.size >= 1 && axis.kernel <= axis.size + 2 * axis.padding, op,
                    ": a kernel of ", axis.kernel, " does not fit a grid of ", axis.size, " with padding ",
                    axis.padding);
  }
};

}  // namespace tessera
