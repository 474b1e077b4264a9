#include "engine/ops/elementary.h"

#include <cmath>
#include <numbers>

#include "engine/ops/cases.h"

namespace tessera {
namespace {

// y = f(x), dx = dy * df(x, y).
template <class F, class D>
Tensor unary(const char* name, const Tensor& x, F f, D df) {
  Tensor y = like(x);
  for_float(name, x.dtype(), [&]<class T>() {
    for (int64_t i = 0; i < x.count(); ++i) y.mutable_data<T>()[i] = f(x.data<T>()[i]);
  });
  record(name, {x}, y, [x, y = y.detach(), gx = x.gradient(), df](const Gradient& gy) {
    for_float("unary", x.dtype(), [&]<class T>() {
      const auto dx = gx.target<T>();
      for (int64_t i = 0; i < x.count(); ++i) dx.put(i, gy.read<T>()[i] * df(x.data<T>()[i], y.data<T>()[i]));
    });
  });
  return y;
}

}  // namespace

Tensor exp(const Tensor& x) {
  return unary(
      "exp", x, [](auto v) { return std::exp(v); }, [](auto, auto y) { return y; });
}
Tensor log(const Tensor& x) {
  return unary(
      "log", x, [](auto v) { return std::log(v); }, [](auto v, auto) { return 1 / v; });
}
Tensor erf(const Tensor& x) {
  return unary(
      "erf", x, [](auto v) { return std::erf(v); },
      [](auto v, auto) { return decltype(v)(2 * std::numbers::inv_sqrtpi) * std::exp(-v * v); });
}
Tensor pow(const Tensor& x, double exponent) {
  return unary(
      "pow", x, [exponent](auto v) { return decltype(v)(std::pow(v, exponent)); },
      [exponent](auto v, auto) { return decltype(v)(exponent * std::pow(v, exponent - 1)); });
}

Tensor take(const Tensor& x, const std::vector<int64_t>& index, const Shape& shape) {
  TESSERA_CHECK(int64_t(index.size()) == shape.count(), "take: ", index.size(), " indices for the shape ",
                shape);
  Tensor y(shape, x.dtype());
  for_float("take", x.dtype(), [&]<class T>() {
    for (size_t i = 0; i < index.size(); ++i) {
      TESSERA_CHECK(index[i] >= -1 && index[i] < x.count(), "take: index ", index[i], " outside ", x.shape());
      y.mutable_data<T>()[i] = index[i] < 0 ? T(0) : x.data<T>()[index[i]];
    }
  });
  record("take", {x}, y, [index, gx = x.gradient()](const Gradient& gy) {
    for_float("take", gx.dtype(), [&]<class T>() {
      const auto dx = gx.target<T>();
      if (dx.beta == T(0)) std::fill_n(dx.data, gx.shape().count(), T(0));
      for (size_t i = 0; i < index.size(); ++i)
        if (index[i] >= 0) dx.data[index[i]] += gy.read<T>()[i];
    });
  });
  return y;
}

Tensor permute_axes(const Tensor& x, const std::vector<int>& axes) {
  TESSERA_CHECK(int(axes.size()) == x.rank(), "permute_axes: ", axes.size(), " axes for ", x.shape());
  Shape shape;
  std::vector<int64_t> strides;
  for (int axis : axes) {
    shape.push_back(x.size(axis));
    strides.push_back(x.shape().count(axis + 1, x.rank()));
  }
  std::vector<int64_t> index(size_t(x.count()));
  for (int64_t i = 0; i < x.count(); ++i) {
    int64_t rest = i, source = 0;
    for (int axis = x.rank() - 1; axis >= 0; --axis) {
      source += rest % shape[axis] * strides[size_t(axis)];
      rest /= shape[axis];
    }
    index[size_t(i)] = source;
  }
  return take(x, index, shape);
}

std::vector<OpCase>& op_cases() {
  static std::vector<OpCase> cases;
  return cases;
}

namespace {

void make_positive(Inputs& inputs) {
  double* x = inputs[0].mutable_data<double>();
  for (int64_t i = 0; i < inputs[0].count(); ++i) x[i] = 0.5 + std::abs(x[i]);
}

TESSERA_CASES(OpCase{"exp",
                     {"3x5", "1"},
                     [](const Inputs& in) { return exp(in[0]); },
                     [](const Inputs& in) { return pow(exp(scale(in[0], -1)), -1); }});
TESSERA_CASES(OpCase{"log",
                     {"3x5", "1"},
                     [](const Inputs& in) { return log(in[0]); },
                     [](const Inputs& in) { return scale(log(pow(in[0], 2)), 0.5); },
                     make_positive});
TESSERA_CASES(OpCase{"pow",
                     {"3x5", "1"},
                     [](const Inputs& in) { return pow(in[0], -1.5); },
                     [](const Inputs& in) { return exp(scale(log(in[0]), -1.5)); },
                     make_positive});
TESSERA_CASES(OpCase{"erf",
                     {"3x5", "1"},
                     [](const Inputs& in) { return erf(in[0]); },
                     [](const Inputs& in) { return scale(erf(scale(in[0], -1)), -1); }});
TESSERA_CASES(OpCase{"permute_axes",
                     {"2x3x4", "1x1x1"},
                     [](const Inputs& in) {
                       return permute_axes(in[0], {2, 0, 1});
                     },
                     [](const Inputs& in) {
                       return permute_axes(permute_axes(in[0], {0, 2, 1}), {1, 0, 2});
                     }});

}  // namespace
}  // namespace tessera
