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
  int rank = 0;
  std::array<int64_t, Shape::kMaxRank> sizes{}, a{}, b{};

  Broadcast(const char* op, const Shape& left, const Shape& right)
      : rank(std::max(left.rank(), right.rank())) {
    const auto size = [&](const Shape& s, int axis) {
      const int own = axis - (rank - s.rank());
      return own < 0 ? int64_t{1} : s[own];
    };
    int64_t stride_a = 1, stride_b = 1;
    for (int axis = rank - 1; axis >= 0; --axis) {
      const int64_t l = size(left, axis), r = size(right, axis);
      TESSERA_CHECK(l == r || l == 1 || r == 1, op, ": ", left, " and ", right, " do not broadcast: ", l,
                    " and ", r);
      sizes[size_t(axis)] = l == 1 ? r : l;
      a[size_t(axis)] = l == 1 ? 0 : stride_a;
      b[size_t(axis)] = r == 1 ? 0 : stride_b;
      stride_a *= l;
      stride_b *= r;
    }
  }

  Shape shape() const { return Shape(sizes.begin(), sizes.begin() + rank); }
  int64_t row_length() const { return rank ? sizes[size_t(rank - 1)] : 1; }
  int64_t row_count() const {
    int64_t count = 1;
    for (int axis = 0; axis + 1 < rank; ++axis) count *= sizes[size_t(axis)];
    return count;
  }
  // Steps from element to element along the last axis.
  int64_t step_a() const { return rank ? a[size_t(rank - 1)] : 0; }
  int64_t step_b() const { return rank ? b[size_t(rank - 1)] : 0; }

  // Where in each operand the row (along the last axis) of the result starts.
  TESSERA_FN void row_start(int64_t row, int64_t& at_a, int64_t& at_b) const {
    at_a = at_b = 0;
    for (int axis = rank - 2; axis >= 0; --axis) {
      const int64_t place = row % sizes[size_t(axis)];
      row /= sizes[size_t(axis)];
      at_a += place * a[size_t(axis)];
      at_b += place * b[size_t(axis)];
    }
  }

  // The same with the operands exchanged.
  Broadcast swapped() const {
    Broadcast other = *this;
    std::swap(other.a, other.b);
    return other;
  }
};

struct Plus {
  template <class T>
  TESSERA_FN T operator()(T l, T r) const {
    return l + r;
  }
};
struct Times {
  template <class T>
  TESSERA_FN T operator()(T l, T r) const {
    return l * r;
  }
};

template <class F, class T>
struct Flat {
  const T *left, *right;
  T* out;
  TESSERA_FN void operator()(int64_t i) const { out[i] = F()(left[i], right[i]); }
};

template <class F, class T>
struct Rows {
  Broadcast way;
  int64_t length, step_a, step_b;
  const T *left, *right;
  T* out;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    int64_t at_a, at_b;
    way.row_start(i, at_a, at_b);
    row.each(length, [=, this](int64_t j) {
      out[i * length + j] = F()(left[at_a + j * step_a], right[at_b + j * step_b]);
    });
  }
};

template <class F>
Tensor forward(const char* name, const Tensor& a, const Tensor& b, const Broadcast& way) {
  Tensor y(way.shape(), a.dtype());
  for_float(name, a.dtype(), [&]<class T>() {
    const T *left = a.data<T>(), *right = b.data<T>();
    T* out = y.mutable_data<T>();
    if (a.shape() == b.shape()) return elements(y.count(), Flat<F, T>{left, right, out});
    rows(way.row_count(), way.row_length(),
         Rows<F, T>{way, way.row_length(), way.step_a(), way.step_b(), left, right, out});
  });
  return y;
}

// dx = dy, or dy times the other operand, for an operand of the result's own shape.
template <class T>
struct Unreduced {
  Broadcast way;
  int64_t length, step;
  const T *dy, *factor;  // no factor: null
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    int64_t own, other;
    way.row_start(i, own, other);
    row.each(length, [=, this](int64_t j) {
      const int64_t at = i * length + j;
      dx.put(at, factor ? dy[at] * factor[other + j * step] : dy[at]);
    });
  }
};

// Axes of the result, the innermost first, with the strides of a step along each: in the result and in the
// other operand. Neighbours that are walked like one axis are one.
struct Axes {
  int rank = 0;
  std::array<int64_t, Shape::kMaxRank> sizes{}, result{}, other{};
  int64_t count = 1;

  void add(int64_t size, int64_t in_result, int64_t in_other) {
    count *= size;
    if (rank > 0) {
      const size_t last = size_t(rank - 1);
      if (in_result == sizes[last] * result[last] && in_other == sizes[last] * other[last]) {
        sizes[last] *= size;
        return;
      }
    }
    sizes[size_t(rank)] = size;
    result[size_t(rank)] = in_result;
    other[size_t(rank++)] = in_other;
  }
  // Without the innermost.
  Axes outer() const {
    Axes rest;
    for (size_t axis = 1; axis < size_t(rank); ++axis) rest.add(sizes[axis], result[axis], other[axis]);
    return rest;
  }
  TESSERA_FN void find(int64_t i, int64_t& at, int64_t& at_other) const {
    for (int axis = 0; axis < rank; ++axis) {
      const int64_t place = i % sizes[size_t(axis)];
      i /= sizes[size_t(axis)];
      at += place * result[size_t(axis)];
      at_other += place * other[size_t(axis)];
    }
  }
};

// For an operand that was broadcast: each of its elements sums over the places of the result that it met.
// `own` are the axes that it has, `spread` those along which it was repeated.
template <class T>
struct Reduced {
  Axes own, spread;
  const T *dy, *factor;
  GradTarget<T> dx;

  Reduced(const Broadcast& way, const T* dy, const T* factor, const GradTarget<T>& dx)
      : dy(dy), factor(factor), dx(dx) {
    int64_t stride = 1;
    for (int axis = way.rank - 1; axis >= 0; --axis) {
      const size_t k = size_t(axis);
      if (way.sizes[k] != 1) (way.a[k] ? own : spread).add(way.sizes[k], stride, factor ? way.b[k] : stride);
      stride *= way.sizes[k];
    }
  }
  // On a card, a team sums one element.
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    int64_t at = 0, at_other = 0;
    own.find(i, at, at_other);
    const T total = row.sum(spread.count, [=, this](int64_t j) {
      int64_t place = at, other = at_other;
      spread.find(j, place, other);
      return factor ? dy[place] * factor[other] : dy[place];
    });
    row.once([=, this] { dx.put(i, total); });
  }

  // On the CPU the result is read in runs along its innermost axis, each element of dx in the order of its
  // places: the same bits for any number of threads.
  void stream() const { own.rank > 0 && own.result[0] == 1 ? add_runs() : sum_runs(); }

 private:
  // The innermost axis is the operand's own: runs of dy are added up, in strips that stay in the cache.
  void add_runs() const {
    constexpr int64_t kStrip = 1024;
    const int64_t length = own.sizes[0], step = own.other[0], strips = (length + kStrip - 1) / kStrip;
    const Axes outer = own.outer();
    each(outer.count * strips, std::min(length, kStrip) * spread.count, [&](int64_t i) {
      const int64_t first = i % strips * kStrip, n = std::min(kStrip, length - first);
      int64_t at = first, at_other = first * step;
      outer.find(i / strips, at, at_other);
      T* const to = dx.data + i / strips * length + first;
      if (dx.beta == T(0)) std::fill_n(to, n, T(0));
      for (int64_t j = 0; j < spread.count; ++j) {
        int64_t place = at, other = at_other;
        spread.find(j, place, other);
        Row().each(n, [=, this](int64_t k) {
          to[k] += factor ? dy[place + k] * factor[other + k * step] : dy[place + k];
        });
      }
    });
  }
  // It is one that it was spread along: each run has one sum.
  void sum_runs() const {
    const int64_t length = spread.sizes[0], step = spread.other[0];
    const Axes outer = spread.outer();
    each(own.count, spread.count, [&](int64_t i) {
      int64_t at = 0, at_other = 0;
      own.find(i, at, at_other);
      T total = 0;
      for (int64_t j = 0; j < outer.count; ++j) {
        int64_t place = at, other = at_other;
        outer.find(j, place, other);
        total += Row().sum(length, [=, this](int64_t k) {
          return factor ? dy[place + k] * factor[other + k * step] : dy[place + k];
        });
      }
      dx.put(i, total);
    });
  }
  // f(i) for i < count, each on some thread; `width` elements are read for each.
  template <class F>
  static void each(int64_t count, int64_t width, F f) {
    constexpr int64_t kElementsPerTask = 16384;
    parallel_for(count, std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, width)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) f(i);
                 });
  }
};

// The gradient of the left operand of `way`; `factor` is the other one in a product, else null.
template <class T>
void backward(const Gradient& gx, const Broadcast& way, const T* dy, const T* factor) {
  const auto dx = gx.target<T>();
  if (!dx) return;
  if (gx.shape().count() == way.shape().count())
    return rows(way.row_count(), way.row_length(),
                Unreduced<T>{way, way.row_length(), way.step_b(), dy, factor, dx});
  const Reduced<T> program(way, dy, factor, dx);
  if (on_card()) return rows(program.own.count, program.spread.count, program);
  program.stream();
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  const Broadcast way("add", a.shape(), b.shape());
  Tensor y = forward<Plus>("add", a, b, way);
  record("add", {a, b}, y, [way, ga = a.gradient(), gb = b.gradient()](const Gradient& gy) {
    for_float("add", gy.dtype(), [&]<class T>() {
      backward<T>(ga, way, gy.read<T>(), nullptr);
      backward<T>(gb, way.swapped(), gy.read<T>(), nullptr);
    });
  });
  return y;
}

Tensor mul(const Tensor& a, const Tensor& b) {
  const Broadcast way("mul", a.shape(), b.shape());
  Tensor y = forward<Times>("mul", a, b, way);
  record("mul", {a, b}, y, [way, a, b, ga = a.gradient(), gb = b.gradient()](const Gradient& gy) {
    for_float("mul", gy.dtype(), [&]<class T>() {
      backward<T>(ga, way, gy.read<T>(), b.data<T>());
      backward<T>(gb, way.swapped(), gy.read<T>(), a.data<T>());
    });
  });
  return y;
}

namespace {

template <class T>
struct Scale {
  T factor;
  const T* from;
  GradTarget<T> to;
  TESSERA_FN void operator()(int64_t i) const { to.put(i, factor * from[i]); }
};

}  // namespace

Tensor scale(const Tensor& x, double factor) {
  Tensor y = like(x);
  for_float("scale", x.dtype(), [&]<class T>() {
    elements(x.count(), Scale<T>{T(factor), x.data<T>(), {y.mutable_data<T>()}});
  });
  record("scale", {x}, y, [factor, gx = x.gradient()](const Gradient& gy) {
    for_float("scale", gx.dtype(), [&]<class T>() {
      elements(gx.shape().count(), Scale<T>{T(factor), gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

namespace {

// The operand spread over the result's shape by index.
Tensor spread(const Tensor& x, const Shape& shape) {
  const Broadcast way("spread", x.shape(), shape);
  std::vector<int64_t> index;
  for (int64_t row = 0, at = 0, own = 0; row < way.row_count(); ++row) {
    way.row_start(row, at, own);
    for (int64_t j = 0; j < way.row_length(); ++j) index.push_back(at + j * way.step_a());
  }
  return take(x, index, shape);
}

const std::vector<const char*> kShapes{"3x5 3x5",       "2x3x4 4",       "2x3x4 3x1",
                                       "1 2x3",         "1x1x4 2x3x1",   "65537x2 2",
                                       "2x3x4x5 3x1x5", "2x3x1x5 3x4x1", "2x2100 2100"};

// a + b = log(exp(a) exp(b)); the twin of mul uses (a+b)^2.
TESSERA_CASES(OpCase{"add", kShapes, [](const Inputs& in) { return add(in[0], in[1]); },
                     [](const Inputs& in) {
                       const Shape shape = Broadcast("add", in[0].shape(), in[1].shape()).shape();
                       return log(mul(spread(exp(in[0]), shape), spread(exp(in[1]), shape)));
                     }});
TESSERA_CASES(OpCase{"mul", kShapes, [](const Inputs& in) { return mul(in[0], in[1]); },
                     [](const Inputs& in) {
                       const Shape shape = Broadcast("mul", in[0].shape(), in[1].shape()).shape();
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
