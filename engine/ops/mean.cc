// mean over one axis (which is removed) or over all elements.
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// Result i is the mean of `size` elements of x, `inner` apart.
template <class T>
struct Forward {
  int64_t size, inner;
  const T* x;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const T* const first = x + i / inner * size * inner + i % inner;
    const T total = row.sum(size, [=, this](int64_t k) { return first[k * inner]; });
    row.once([=, this] { y[i] = total / T(size); });
  }
};

// Row i of dx: all elements along `inner` at one place of the axis.
template <class T>
struct Backward {
  int64_t size, inner;
  const T* dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const T share = T(1) / T(size);
    row.each(inner, [=, this](int64_t j) { dx.put(i * inner + j, share * dy[i / size * inner + j]); });
  }
};

}  // namespace

Tensor mean(const Tensor& x, int axis) {
  axis = x.shape().axis(axis);
  const int64_t outer = x.shape().count(0, axis), size = x.size(axis);
  const int64_t inner = x.shape().count(axis + 1, x.rank());
  TESSERA_CHECK(size > 0, "mean: axis ", axis, " of x", x.shape(), " is empty");
  Shape shape;
  for (int i = 0; i < x.rank(); ++i)
    if (i != axis) shape.push_back(x.size(i));
  Tensor y(shape, x.dtype());
  for_float("mean", x.dtype(), [&]<class T>() {
    rows(outer * inner, size, Forward<T>{size, inner, x.data<T>(), y.mutable_data<T>()});
  });
  record("mean", {x}, y, [=, gx = x.gradient()](const Gradient& gy) {
    for_float("mean", gx.dtype(), [&]<class T>() {
      rows(outer * size, inner, Backward<T>{size, inner, gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

Tensor mean(const Tensor& x) { return mean(x.reshape({x.count()}), 0); }

namespace {

Tensor composed(const Inputs& in) {  // a product with a row of 1/size
  const Tensor weights = Tensor::full({1, in[0].size(1)}, 1 / double(in[0].size(1)), in[0].dtype());
  std::vector<Tensor> parts;
  for (int64_t i = 0; i < in[0].size(0); ++i)
    parts.push_back(matmul(weights, slice(in[0], 0, i, i + 1).reshape({in[0].size(1), in[0].size(2)})));
  return concat(parts, 0);
}

TESSERA_CASES(OpCase{
    "mean(axis)", {"2x3x5", "1x1x1", "3x7x1"}, [](const Inputs& in) { return mean(in[0], 1); }, composed});
TESSERA_CASES(OpCase{
    "mean",
    {"2x3x5", "1", "65537x2"},
    [](const Inputs& in) { return mean(in[0]); },
    [](const Inputs& in) {
      const int64_t n = in[0].count();
      return matmul(in[0].reshape({1, n}), Tensor::full({n, 1}, 1 / double(n), in[0].dtype())).reshape({});
    }});

}  // namespace
}  // namespace tessera
