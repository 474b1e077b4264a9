// max_pool: the largest element of each window; padding counts as -infinity. The gradient goes to the first
// largest element in row-major order; a NaN in a window is its maximum.
#include <cmath>
#include <limits>

#include "engine/base/parallel.h"
#include "engine/kernels/conv.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

struct Pool {
  int64_t planes, H, W, kernel, stride, padding;

  int64_t out_height() const { return window_count(H, kernel, stride, padding); }
  int64_t out_width() const { return window_count(W, kernel, stride, padding); }
  int64_t out_area() const { return out_height() * out_width(); }

  // Calls f(plane) for each image and channel.
  template <class F>
  void each_plane(F f) const {
    constexpr int64_t kElementsPerTask = 16384;
    parallel_for(planes, std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, H * W)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t plane = begin; plane < end; ++plane) f(plane);
                 });
  }
};

// Places of one window along an axis that lie inside the image.
struct Span {
  int64_t begin, end;
  Span(int64_t place, int64_t size, const Pool& pool)
      : begin(std::max<int64_t>(0, place * pool.stride - pool.padding)),
        end(std::min(size, place * pool.stride - pool.padding + pool.kernel)) {}
};

// y of one plane, and where in the plane each maximum was.
template <class T>
void forward(const Pool& pool, const T* x, T* y, int32_t* where) {
  for (int64_t i = 0; i < pool.out_height(); ++i)
    for (int64_t j = 0; j < pool.out_width(); ++j) {
      const Span down(i, pool.H, pool), across(j, pool.W, pool);
      int64_t best = down.begin * pool.W + across.begin;
      for (int64_t row = down.begin; row < down.end; ++row)
        for (int64_t at = row * pool.W + across.begin; at < row * pool.W + across.end; ++at)
          if (x[at] > x[best] || std::isnan(x[at])) best = at;
      *y++ = x[best];
      *where++ = int32_t(best);
    }
}

}  // namespace

Tensor max_pool(const Tensor& x, int64_t kernel, int64_t stride, int64_t padding) {
  Dims dim("max_pool");
  dim(x, "x(B,C,H,W)");
  const Pool pool{dim['B'] * dim['C'], dim['H'], dim['W'], kernel, stride, padding};
  TESSERA_CHECK(kernel >= 1 && stride >= 1, "max_pool: kernel ", kernel, " and stride ", stride,
                " must be at least 1");
  TESSERA_CHECK(padding >= 0 && 2 * padding <= kernel, "max_pool: padding ", padding,
                " must be from 0 to half of kernel ", kernel, ", or a window could hold padding alone");
  TESSERA_CHECK(kernel <= pool.H + 2 * padding && kernel <= pool.W + 2 * padding, "max_pool: kernel ", kernel,
                " is larger than x", x.shape(), " with padding ", padding);
  TESSERA_CHECK(pool.H * pool.W <= std::numeric_limits<int32_t>::max(), "max_pool: x", x.shape(),
                " has more than 2^31 - 1 pixels in a plane");
  Tensor y({dim['B'], dim['C'], pool.out_height(), pool.out_width()}, x.dtype());
  Tensor indices(y.shape(), DType::i32);
  const int64_t area = pool.H * pool.W, out_area = pool.out_area();
  for_float("max_pool", x.dtype(), [&]<class T>() {
    pool.each_plane([&, in = x.data<T>(), out = y.mutable_data<T>(),
                     where = indices.mutable_data<int32_t>()](int64_t plane) {
      forward(pool, in + plane * area, out + plane * out_area, where + plane * out_area);
    });
  });
  record("max_pool", {x}, y, [pool, area, out_area, indices, gx = x.gradient()](const Gradient& gy) {
    for_float("max_pool", gx.dtype(), [&]<class T>() {
      pool.each_plane(
          [&, dx = gx.target<T>(), dy = gy.read<T>(), where = indices.data<int32_t>()](int64_t plane) {
            T* const to = dx.data + plane * area;
            if (dx.beta == T(0)) std::fill_n(to, area, T(0));
            for (int64_t i = plane * out_area; i < (plane + 1) * out_area; ++i) to[where[i]] += dy[i];
          });
    });
  });
  return y;
}

namespace {

// Folds the places of the window with max(a,b) = b + relu(a - b). Outside the image the nearest pixel stands
// in, which is in the window too.
Tensor composed(const Tensor& x, int64_t kernel, int64_t stride, int64_t padding) {
  const int64_t H = x.size(2), W = x.size(3);
  const Shape shape{x.size(0), x.size(1), window_count(H, kernel, stride, padding),
                    window_count(W, kernel, stride, padding)};
  Tensor largest;
  for (int64_t u = 0; u < kernel; ++u)
    for (int64_t v = 0; v < kernel; ++v) {
      std::vector<int64_t> index;
      for (int64_t plane = 0; plane < shape[0] * shape[1]; ++plane)
        for (int64_t i = 0; i < shape[2]; ++i)
          for (int64_t j = 0; j < shape[3]; ++j) {
            const int64_t row = std::clamp<int64_t>(i * stride + u - padding, 0, H - 1);
            const int64_t column = std::clamp<int64_t>(j * stride + v - padding, 0, W - 1);
            index.push_back((plane * H + row) * W + column);
          }
      const Tensor place = take(x, index, shape);
      largest = largest ? add(largest, relu(subtract(place, largest))) : place;
    }
  return largest;
}

// No two pixels of any 8 x 8 window closer than 1/640: a lattice of values, shifted by the place.
void keep_apart(Inputs& inputs) {
  double* x = inputs[0].mutable_data<double>();
  const int64_t H = inputs[0].size(2), W = inputs[0].size(3);
  for (int64_t i = 0; i < inputs[0].count(); ++i)
    x[i] = 0.1 * (std::round(10 * x[i]) + double(i / W % H % 8 * 8 + i % W % 8) / 64);
}

OpCase pooling(const char* name, int64_t kernel, int64_t stride, int64_t padding,
               std::vector<std::string> shapes) {
  return {name, std::move(shapes), [=](const Inputs& in) { return max_pool(in[0], kernel, stride, padding); },
          [=](const Inputs& in) { return composed(in[0], kernel, stride, padding); }, keep_apart};
}

TESSERA_CASES(pooling("max_pool(3,2,1)", 3, 2, 1, {"2x3x7x9", "1x1x1x1", "2x5x8x8"}));
TESSERA_CASES(pooling("max_pool(2,2,0)", 2, 2, 0, {"2x3x6x5", "1x1x2x2"}));
TESSERA_CASES(pooling("max_pool(2,1,1)", 2, 1, 1, {"1x2x1x3", "1x1x260x260"}));
TESSERA_CASES(pooling("max_pool(1,3,0)", 1, 3, 0, {"2x1x5x4"}));

}  // namespace
}  // namespace tessera
