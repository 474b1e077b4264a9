#include "engine/ops/elementary.h"

#include <cmath>
#include <numbers>

#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"

namespace tessera {
namespace {

template <class F, class T>
struct Value {
  F f;
  const T* x;
  T* y;
  TESSERA_FN void operator()(int64_t i) const { y[i] = f.value(x[i]); }
};

template <class F, class T>
struct Slope {
  F f;
  const T *x, *y, *dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(int64_t i) const { dx.put(i, dy[i] * f.slope(x[i], y[i])); }
};

// y = f.value(x), dx = dy * f.slope(x, y).
template <class F>
Tensor unary(const char* name, const Tensor& x, F f) {
  Tensor y = like(x);
  for_float(name, x.dtype(), [&]<class T>() {
    elements(x.count(), Value<F, T>{f, x.data<T>(), y.mutable_data<T>()});
  });
  record(name, {x}, y, [x, y = y.detach(), gx = x.gradient(), f](const Gradient& gy) {
    for_float("unary", x.dtype(), [&]<class T>() {
      elements(x.count(), Slope<F, T>{f, x.data<T>(), y.data<T>(), gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

struct Exp {
  template <class T>
  TESSERA_FN T value(T x) const {
    return std::exp(x);
  }
  template <class T>
  TESSERA_FN T slope(T, T y) const {
    return y;
  }
};
struct Log {
  template <class T>
  TESSERA_FN T value(T x) const {
    return std::log(x);
  }
  template <class T>
  TESSERA_FN T slope(T x, T) const {
    return 1 / x;
  }
};
struct Erf {
  template <class T>
  TESSERA_FN T value(T x) const {
    return std::erf(x);
  }
  template <class T>
  TESSERA_FN T slope(T x, T) const {
    return T(2 * std::numbers::inv_sqrtpi) * std::exp(-x * x);
  }
};
struct Pow {
  double exponent;
  template <class T>
  TESSERA_FN T value(T x) const {
    return T(std::pow(double(x), exponent));
  }
  template <class T>
  TESSERA_FN T slope(T x, T) const {
    return T(exponent * std::pow(double(x), exponent - 1));
  }
};

}  // namespace

Tensor exp(const Tensor& x) { return unary("exp", x, Exp{}); }
Tensor log(const Tensor& x) { return unary("log", x, Log{}); }
Tensor erf(const Tensor& x) { return unary("erf", x, Erf{}); }
Tensor pow(const Tensor& x, double exponent) { return unary("pow", x, Pow{exponent}); }

Tensor take(const Tensor& x, const std::vector<int64_t>& index, const Shape& shape) {
  if (on_card()) refuse_card("take");
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

RegisterCase::RegisterCase(OpCase op_case) { op_cases().push_back(std::move(op_case)); }

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
