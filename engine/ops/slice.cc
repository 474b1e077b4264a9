// slice: elements begin to end along one axis; the gradient outside is 0.
#include "engine/ops/cases.h"
#include "engine/ops/copy.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"
#include "engine/tensor/memory.h"

namespace tessera {

Tensor slice(const Tensor& x, int axis, int64_t begin, int64_t end) {
  axis = x.shape().axis(axis);
  const int64_t size = x.size(axis);
  TESSERA_CHECK(0 <= begin && begin <= end && end <= size, "slice: [", begin, ",", end,
                ") is not inside axis ", axis, " of x", x.shape());
  Shape shape = x.shape();
  shape[axis] = end - begin;
  const int64_t outer = x.shape().count(0, axis), inner = x.shape().count(axis + 1, x.rank());
  const int64_t piece = (end - begin) * inner, stride = size * inner, start = begin * inner;
  Tensor y(shape, x.dtype());
  for_activation("slice", x.dtype(), [&]<class T>() {
    rows(outer, piece, CopyRows<T>{piece, stride, piece, x.data<T>() + start, {y.mutable_data<T>()}});
  });
  record("slice", {x}, y, [=, gx = x.gradient()](const Gradient& gy) {
    for_activation("slice", gx.dtype(), [&]<class T>() {
      const auto dx = gx.target<T>();
      if (dx.beta == 0) zero(dx.data, size_t(gx.shape().count()) * sizeof(T));
      rows(outer, piece, CopyRows<T>{piece, piece, stride, gy.read<T>(), {dx.data + start, 1}});
    });
  });
  return y;
}

namespace {

Tensor composed(const Tensor& x, int axis, int64_t begin, int64_t end) {
  Shape shape = x.shape();
  shape[axis] = end - begin;
  const int64_t inner = x.shape().count(axis + 1, x.rank()), size = x.size(axis);
  std::vector<int64_t> index(size_t(shape.count()));
  for (int64_t i = 0; i < shape.count(); ++i) {
    const int64_t outer = i / (inner * shape[axis]), rest = i % (inner * shape[axis]);
    index[size_t(i)] = outer * inner * size + begin * inner + rest;
  }
  return take(x, index, shape);
}

TESSERA_CASES(OpCase{"slice(0)",
                     {"5x3", "4x1x2"},
                     [](const Inputs& in) { return slice(in[0], 0, 1, 3); },
                     [](const Inputs& in) { return composed(in[0], 0, 1, 3); }});
TESSERA_CASES(OpCase{"slice(1)",
                     {"5x3x2", "1x2", "65537x2"},
                     [](const Inputs& in) { return slice(in[0], 1, 1, 2); },
                     [](const Inputs& in) { return composed(in[0], 1, 1, 2); }});

}  // namespace
}  // namespace tessera
