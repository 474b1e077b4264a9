// max_pool: the largest element of each window; padding counts as -infinity. The gradient goes to the first
// largest element in row-major order; a NaN in a window is its maximum.
#include <cmath>
#include <limits>

#include "engine/kernels/conv.h"
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

struct Pool {
  int64_t planes, H, W, kernel, stride, padding, out_height, out_width;

  TESSERA_FN int64_t area() const { return H * W; }
  TESSERA_FN int64_t out_area() const { return out_height * out_width; }
  // The places of window i along an axis of `size` that lie inside the image, from begin to end.
  TESSERA_FN int64_t begin(int64_t i) const {
    const int64_t first = i * stride - padding;
    return first < 0 ? 0 : first;
  }
  TESSERA_FN int64_t end(int64_t i, int64_t size) const {
    const int64_t last = i * stride - padding + kernel;
    return last < size ? last : size;
  }
  // The windows along an axis with `count` of them that hold the place i.
  TESSERA_FN int64_t first_window(int64_t i) const {
    const int64_t past = i + padding - kernel;  // where one would start that just misses it
    return past < 0 ? 0 : past / stride + 1;
  }
  TESSERA_FN int64_t last_window(int64_t i, int64_t count) const {
    const int64_t last = (i + padding) / stride;
    return last < count ? last : count - 1;
  }
};

// y of one plane, an image's channel, and where in the plane each maximum was.
template <class T>
struct Forward {
  Pool pool;
  const T* x;
  T* y;
  int32_t* where;
  TESSERA_FN void operator()(const Row& row, int64_t plane) const {
    const T* const in = x + plane * pool.area();
    const int64_t first = plane * pool.out_area();
    row.each(pool.out_area(), [=, this](int64_t k) {
      const int64_t i = k / pool.out_width, j = k % pool.out_width;
      int64_t best = pool.begin(i) * pool.W + pool.begin(j);
      for (int64_t u = pool.begin(i); u < pool.end(i, pool.H); ++u)
        for (int64_t at = u * pool.W + pool.begin(j); at < u * pool.W + pool.end(j, pool.W); ++at)
          if (in[at] > in[best] || in[at] != in[at]) best = at;
      y[first + k] = in[best];
      where[first + k] = int32_t(best);
    });
  }
};

// dx_i = sum of dy over the windows whose maximum is element i, in their order. Windows overlap: here one
// thread adds up a whole plane, window by window.
template <class T>
struct Backward {
  Pool pool;
  const T* dy;
  const int32_t* where;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t plane) const {
    T* const to = dx.data + plane * pool.area();
    if (dx.beta == T(0)) row.each(pool.area(), [=](int64_t i) { to[i] = T(0); });
    row.sync();
    row.once([=, this] {
      for (int64_t i = plane * pool.out_area(); i < (plane + 1) * pool.out_area(); ++i) to[where[i]] += dy[i];
    });
  }
};

// The same for a card, which has a thread for each element: it looks at the windows that hold it.
template <class T>
struct Gather {
  Pool pool;
  const T* dy;
  const int32_t* where;
  GradTarget<T> dx;
  TESSERA_FN void operator()(int64_t i) const {
    const int64_t plane = i / pool.area(), own = i % pool.area(), first = plane * pool.out_area();
    const int64_t row = own / pool.W, column = own % pool.W;
    T sum = dx.beta == T(0) ? T(0) : dx.data[i];
    for (int64_t u = pool.first_window(row); u <= pool.last_window(row, pool.out_height); ++u)
      for (int64_t v = pool.first_window(column); v <= pool.last_window(column, pool.out_width); ++v) {
        const int64_t k = first + u * pool.out_width + v;
        if (where[k] == own) sum += dy[k];
      }
    dx.data[i] = sum;
  }
};

}  // namespace

Tensor max_pool(const Tensor& x, int64_t kernel, int64_t stride, int64_t padding) {
  Dims dim("max_pool");
  dim(x, "x(B,C,H,W)");
  Pool pool{dim['B'] * dim['C'], dim['H'], dim['W'], kernel, stride, padding, 0, 0};
  TESSERA_CHECK(kernel >= 1 && stride >= 1, "max_pool: kernel ", kernel, " and stride ", stride,
                " must be at least 1");
  TESSERA_CHECK(padding >= 0 && 2 * padding <= kernel, "max_pool: padding ", padding,
                " must be from 0 to half of kernel ", kernel, ", or a window could hold padding alone");
  TESSERA_CHECK(kernel <= pool.H + 2 * padding && kernel <= pool.W + 2 * padding, "max_pool: kernel ", kernel,
                " is larger than x", x.shape(), " with padding ", padding);
  TESSERA_CHECK(pool.H * pool.W <= std::numeric_limits<int32_t>::max(), "max_pool: x", x.shape(),
                " has more than 2^31 - 1 pixels in a plane");
  pool.out_height = window_count(pool.H, kernel, stride, padding);
  pool.out_width = window_count(pool.W, kernel, stride, padding);
  Tensor y({dim['B'], dim['C'], pool.out_height, pool.out_width}, x.dtype());
  Tensor indices(y.shape(), DType::i32);
  for_float("max_pool", x.dtype(), [&]<class T>() {
    rows(pool.planes, pool.area(),
         Forward<T>{pool, x.data<T>(), y.mutable_data<T>(), indices.mutable_data<int32_t>()});
  });
  record("max_pool", {x}, y, [pool, indices, gx = x.gradient()](const Gradient& gy) {
    for_float("max_pool", gx.dtype(), [&]<class T>() {
      const T* const dy = gy.read<T>();
      const int32_t* const where = indices.data<int32_t>();
      if (on_card())
        elements(pool.planes * pool.area(), Gather<T>{pool, dy, where, gx.target<T>()});
      else
        rows(pool.planes, pool.area(), Backward<T>{pool, dy, where, gx.target<T>()});
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
               std::vector<const char*> shapes) {
  return {name, std::move(shapes), [=](const Inputs& in) { return max_pool(in[0], kernel, stride, padding); },
          [=](const Inputs& in) { return composed(in[0], kernel, stride, padding); }, keep_apart};
}

TESSERA_CASES(pooling("max_pool(3,2,1)", 3, 2, 1, {"2x3x7x9", "1x1x1x1", "2x5x8x8"}));
TESSERA_CASES(pooling("max_pool(2,2,0)", 2, 2, 0, {"2x3x6x5", "1x1x2x2"}));
TESSERA_CASES(pooling("max_pool(2,1,1)", 2, 1, 1, {"1x2x1x3", "1x1x260x260"}));
TESSERA_CASES(pooling("max_pool(1,3,0)", 1, 3, 0, {"2x1x5x4"}));

}  // namespace
}  // namespace tessera
