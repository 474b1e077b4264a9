// max over one axis (which is removed). The gradient goes to the first largest element; a NaN on the axis is
// its maximum.
#include <cmath>

#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// x(outer,size,inner) to y(outer,inner), and where on the axis each maximum was.
template <class T>
struct Maximum {
  int64_t size, inner;
  const T* x;
  T* y;
  int32_t* where;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const T* const in = x + i * size * inner;
    T* const out = y + i * inner;
    int32_t* const place = where + i * inner;
    row.each(inner, [=](int64_t j) {
      out[j] = in[j];
      place[j] = 0;
    });
    for (int64_t k = 1; k < size; ++k)
      row.each(inner, [=, this](int64_t j) {
        const T value = in[k * inner + j];
        const bool larger = value > out[j] || (value != value && out[j] == out[j]);
        out[j] = larger ? value : out[j];
        place[j] = larger ? int32_t(k) : place[j];
      });
  }
};

template <class T>
struct Backward {
  int64_t size, inner;
  const int32_t* where;
  const T* dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    for (int64_t k = 0; k < size; ++k)
      row.each(inner, [=, this](int64_t j) {
        const int64_t at = i * inner + j;
        dx.put((i * size + k) * inner + j, where[at] == k ? dy[at] : T(0));
      });
  }
};

}  // namespace

Tensor max(const Tensor& x, int axis) {
  axis = x.shape().axis(axis);
  const int64_t outer = x.shape().count(0, axis), size = x.size(axis);
  const int64_t inner = x.shape().count(axis + 1, x.rank());
  TESSERA_CHECK(size > 0, "max: axis ", axis, " of x", x.shape(), " is empty");
  TESSERA_CHECK(size <= INT32_MAX, "max: axis ", axis, " of x", x.shape(), " is longer than 2^31 - 1");
  Shape shape;
  for (int i = 0; i < x.rank(); ++i)
    if (i != axis) shape.push_back(x.size(i));
  Tensor y(shape, x.dtype()), where(shape, DType::i32);
  for_float("max", x.dtype(), [&]<class T>() {
    rows(outer, size * inner,
         Maximum<T>{size, inner, x.data<T>(), y.mutable_data<T>(), where.mutable_data<int32_t>()});
  });
  record("max", {x}, y, [=, gx = x.gradient()](const Gradient& gy) {
    for_float("max", gx.dtype(), [&]<class T>() {
      rows(outer, size * inner,
           Backward<T>{size, inner, where.data<int32_t>(), gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

namespace {

// Folds the axis with max(a,b) = b + relu(a - b).
Tensor composed(const Tensor& x) {
  const auto at = [&](int64_t k) { return slice(x, 1, k, k + 1).reshape({x.size(0), x.size(2)}); };
  Tensor largest = at(0);
  for (int64_t k = 1; k < x.size(1); ++k) largest = add(largest, relu(subtract(at(k), largest)));
  return largest;
}

// No two values of an axis closer than 1/640: a lattice, shifted by the place on the axis.
void keep_apart(Inputs& inputs) {
  double* x = inputs[0].mutable_data<double>();
  const int64_t size = inputs[0].size(1), inner = inputs[0].size(2);
  for (int64_t i = 0; i < inputs[0].count(); ++i)
    x[i] = 0.1 * (std::round(10 * x[i]) + double(i / inner % size % 64) / 64);
}

TESSERA_CASES(OpCase{"max",
                     {"2x3x5", "1x1x1", "5x33x1", "1x7x3", "65537x2x1"},
                     [](const Inputs& in) { return max(in[0], 1); },
                     [](const Inputs& in) { return composed(in[0]); },
                     keep_apart});

}  // namespace
}  // namespace tessera
