// What the ops on point clouds share.
#pragma once

#include <algorithm>
#include <limits>

#include "engine/base/portable.h"
#include "engine/kernels/rows.h"
#include "engine/tensor/tape.h"

namespace tessera {

template <class T>
TESSERA_INLINE T squared_distance(const T* a, const T* b) {
  const T x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
  return x * x + y * y + z * z;
}

// The first place of the largest of n values; a place inside of [0,n) even where all of them are NaN.
template <class F>
TESSERA_FN int64_t first_largest(const Row& row, int64_t n, F value) {
  using T = decltype(value(n));
  const T largest = row.max(n, value);
  const T place = -row.max(n, [=](int64_t j) { return value(j) == largest ? -T(j) : -T(n - 1); });
  return int64_t(place);
}

// `count` of its points are asked for.
inline void check_cloud(const char* op, const Tensor& points, int64_t count) {
  const int64_t P = points.size(1), most = int64_t{1} << 24;  // a float counts no further
  TESSERA_CHECK(1 <= count && count <= P && P <= most, op, ": ", count, " of points", points.shape(),
                ": a cloud has at least the points asked for and at most ", most);
  refuse_gradient(op, {points});
}

}  // namespace tessera
