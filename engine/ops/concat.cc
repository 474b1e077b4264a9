// concat: parts one after the other along an axis; each part's gradient is its slice.
#include "engine/ops/cases.h"
#include "engine/ops/copy.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {

Tensor concat(const std::vector<Tensor>& parts, int axis) {
  TESSERA_CHECK(!parts.empty(), "concat: no parts");
  axis = parts[0].shape().axis(axis);
  Shape shape = parts[0].shape();
  int64_t total = 0;
  for (const Tensor& part : parts) {
    Shape same = part.shape();
    total += same[axis];
    same[axis] = shape[axis];
    TESSERA_CHECK(same == shape, "concat: ", parts[0].shape(), " and ", part.shape(), " differ outside axis ",
                  axis);
  }
  shape[axis] = total;
  const int64_t outer = shape.count(0, axis), inner = shape.count(axis + 1, shape.rank());
  const int64_t stride = total * inner;
  Tensor y(shape, parts[0].dtype());
  int64_t start = 0;
  for (const Tensor& part : parts) {
    const int64_t piece = part.size(axis) * inner;
    for_float("concat", y.dtype(), [&]<class T>() {
      rows(outer, piece, CopyRows<T>{piece, piece, stride, part.data<T>(), {y.mutable_data<T>() + start}});
    });
    start += piece;
  }
  // One node a part, so that each may or may not want a gradient.
  start = 0;
  for (const Tensor& part : parts) {
    const int64_t piece = part.size(axis) * inner;
    record("concat", {part}, y, [=, gx = part.gradient()](const Gradient& gy) {
      for_float("concat", gx.dtype(), [&]<class T>() {
        rows(outer, piece, CopyRows<T>{piece, stride, piece, gy.read<T>() + start, gx.target<T>()});
      });
    });
    start += piece;
  }
  return y;
}

namespace {

Tensor composed(const Inputs& in, int axis) {  // by placing each part in zeros and adding
  Shape shape = in[0].shape();
  shape[axis] = in[0].size(axis) + in[1].size(axis);
  const int64_t inner = shape.count(axis + 1, shape.rank());
  std::vector<int64_t> first(size_t(shape.count()), -1), second(size_t(shape.count()), -1);
  for (int64_t i = 0, a = 0, b = 0; i < shape.count(); ++i)
    if (i / inner % shape[axis] < in[0].size(axis))
      first[size_t(i)] = a++;
    else
      second[size_t(i)] = b++;
  return add(take(in[0], first, shape), take(in[1], second, shape));
}

TESSERA_CASES(OpCase{"concat(0)",
                     {"5x3 2x3", "1 1"},
                     [](const Inputs& in) { return concat(in, 0); },
                     [](const Inputs& in) { return composed(in, 0); }});
TESSERA_CASES(OpCase{"concat(1)",
                     {"2x1x3 2x4x3", "65537x1 65537x2"},
                     [](const Inputs& in) { return concat(in, 1); },
                     [](const Inputs& in) { return composed(in, 1); }});

}  // namespace
}  // namespace tessera
