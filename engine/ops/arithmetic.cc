// add, mul, scale. Sizes of 1 and missing leading axes broadcast; the gradient of what was broadcast is
// summed.
#include <array>

#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// How two operands run over the result: strides in elements, 0 along what broadcasts.
struct Broadcast {
  Shape shape;
  std::array<int64_t, Shape::kMaxRank> a{}, b{};

  Broadcast(const char* op, const Shape& left, const Shape& right) {
    const int rank = std::max(left.rank(), right.rank());
    const auto size = [&](const Shape& s, int axis) {
      const int own = axis - (rank - s.rank());
      return own < 0 ? int64_t{1} : s[own];
    };
    for (int axis = 0; axis < rank; ++axis) {
      const int64_t l = size(left, axis), r = size(right, axis);
      TESSERA_CHECK(l == r || l == 1 || r == 1, op, ": ", left, " and ", right, " do not broadcast: ", l,
                    " and ", r);
      shape.push_back(l == 1 ? r : l);
    }
    int64_t stride_a = 1, stride_b = 1;
    for (int axis = rank - 1; axis >= 0; --axis) {
      a[size_t(axis)] = size(left, axis) == 1 ? 0 : stride_a;
      b[size_t(axis)] = size(right, axis) == 1 ? 0 : stride_b;
      stride_a *= size(left, axis);
      stride_b *= size(right, axis);
    }
  }

  // Calls f(offset in the result, in a, in b, length, step of a, step of b) for each row along the last axis.
  template <class F>
  void each_row(F f) const {
    const int rank = shape.rank();
    const int64_t length = rank ? shape[rank - 1] : 1;
    if (shape.count() == 0) return;
    for (int64_t at = 0; at < shape.count(); at += length) {
      int64_t rest = at / length, offset_a = 0, offset_b = 0;
      for (int axis = rank - 2; axis >= 0; --axis) {
        offset_a += rest % shape[axis] * a[size_t(axis)];
        offset_b += rest % shape[axis] * b[size_t(axis)];
        rest /= shape[axis];
      }
      f(at, offset_a, offset_b, length, rank ? a[size_t(rank - 1)] : 0, rank ? b[size_t(rank - 1)] : 0);
    }
  }
};

// dx += term(i of the result, i of the other operand), summed over what broadcast. `own` and `other` are
// strides.
template <class T, class F>
void reduce_into(const Gradient& gx, const Broadcast& way, bool left, F term) {
  const auto dx = gx.target<T>();
  if (!dx) return;
  if (gx.shape().count() == way.shape.count()) {
    way.each_row([&](int64_t at, int64_t oa, int64_t ob, int64_t n, int64_t sa, int64_t sb) {
      const int64_t other = left ? ob : oa, step = left ? sb : sa;
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) dx.put(at + j, term(at + j, other + j * step));
    });
    return;
  }
  if (dx.beta == T(0)) std::fill_n(dx.data, gx.shape().count(), T(0));
  way.each_row([&](int64_t at, int64_t oa, int64_t ob, int64_t n, int64_t sa, int64_t sb) {
    const int64_t own = left ? oa : ob, other = left ? ob : oa;
    const int64_t own_step = left ? sa : sb, step = left ? sb : sa;
    for (int64_t j = 0; j < n; ++j) dx.data[own + j * own_step] += term(at + j, other + j * step);
  });
}

template <class F>
Tensor forward(const char* name, const Tensor& a, const Tensor& b, const Broadcast& way, F f) {
  Tensor y(way.shape, a.dtype());
  for_float(name, a.dtype(), [&]<class T>() {
    const T *left = a.data<T>(), *right = b.data<T>();
    T* out = y.mutable_data<T>();
    if (a.shape() == b.shape()) return elements(y.count(), [=](int64_t i) { out[i] = f(left[i], right[i]); });
    way.each_row([=](int64_t at, int64_t oa, int64_t ob, int64_t n, int64_t sa, int64_t sb) {
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) out[at + j] = f(left[oa + j * sa], right[ob + j * sb]);
    });
  });
  return y;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  const Broadcast way("add", a.shape(), b.shape());
  Tensor y = forward("add", a, b, way, [](auto l, auto r) { return l + r; });
  record("add", {a, b}, y, [way, ga = a.gradient(), gb = b.gradient()](const Gradient& gy) {
    for_float("add", gy.dtype(), [&]<class T>() {
      const T* dy = gy.read<T>();
      reduce_into<T>(ga, way, true, [dy](int64_t i, int64_t) { return dy[i]; });
      reduce_into<T>(gb, way, false, [dy](int64_t i, int64_t) { return dy[i]; });
    });
  });
  return y;
}

Tensor mul(const Tensor& a, const Tensor& b) {
  const Broadcast way("mul", a.shape(), b.shape());
  Tensor y = forward("mul", a, b, way, [](auto l, auto r) { return l * r; });
  record("mul", {a, b}, y, [way, a, b, ga = a.gradient(), gb = b.gradient()](const Gradient& gy) {
    for_float("mul", gy.dtype(), [&]<class T>() {
      const T* dy = gy.read<T>();
      reduce_into<T>(ga, way, true, [dy, v = b.data<T>()](int64_t i, int64_t j) { return dy[i] * v[j]; });
      reduce_into<T>(gb, way, false, [dy, v = a.data<T>()](int64_t i, int64_t j) { return dy[i] * v[j]; });
    });
  });
  return y;
}

Tensor scale(const Tensor& x, double factor) {
  Tensor y = like(x);
  for_float("scale", x.dtype(), [&]<class T>() {
    elements(x.count(), [in = x.data<T>(), out = y.mutable_data<T>(), factor](int64_t i) {
      out[i] = in[i] * T(factor);
    });
  });
  record("scale", {x}, y, [factor, gx = x.gradient()](const Gradient& gy) {
    for_float("scale", gx.dtype(), [&]<class T>() {
      elements(gx.shape().count(),
               [dy = gy.read<T>(), dx = gx.target<T>(), factor](int64_t i) { dx.put(i, dy[i] * T(factor)); });
    });
  });
  return y;
}

namespace {

// The operand spread over the result's shape by index.
Tensor spread(const Tensor& x, const Shape& shape) {
  std::vector<int64_t> index;
  Broadcast("spread", x.shape(), shape)
      .each_row([&](int64_t, int64_t at, int64_t, int64_t n, int64_t step, int64_t) {
        for (int64_t j = 0; j < n; ++j) index.push_back(at + j * step);
      });
  return take(x, index, shape);
}

const std::vector<std::string> kShapes{"3x5 3x5", "2x3x4 4",     "2x3x4 3x1",
                                       "1 2x3",   "1x1x4 2x3x1", "65537x2 2"};

// a + b = log(exp(a) exp(b)); the twin of mul uses (a+b)^2.
TESSERA_CASES(OpCase{"add", kShapes, [](const Inputs& in) { return add(in[0], in[1]); },
                     [](const Inputs& in) {
                       const Shape shape = Broadcast("add", in[0].shape(), in[1].shape()).shape;
                       return log(mul(spread(exp(in[0]), shape), spread(exp(in[1]), shape)));
                     }});
TESSERA_CASES(OpCase{"mul", kShapes, [](const Inputs& in) { return mul(in[0], in[1]); },
                     [](const Inputs& in) {
                       const Shape shape = Broadcast("mul", in[0].shape(), in[1].shape()).shape;
                       const Tensor a = spread(in[0], shape), b = spread(in[1], shape);
                       const Tensor square = pow(add(a, b), 2);
                       return scale(subtract(square, add(pow(a, 2), pow(b, 2))), 0.5);
                     }});
TESSERA_CASES(OpCase{"scale",
                     {"3x5", "1"},
                     [](const Inputs& in) { return scale(in[0], -1.7); },
                     [](const Inputs& in) { return mul(in[0], Tensor::full({1}, -1.7, in[0].dtype())); }});

}  // namespace
}  // namespace tessera
