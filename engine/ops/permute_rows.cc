// permute_rows: y_i = x_order(i); unpermute_rows: y_order(i) = x_i. Each is the other's backward, so
// dispatching tokens to experts and combining them needs no atomics.
#include "engine/ops/cases.h"
#include "engine/ops/copy.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

void check_order(const char* op, const Tensor& x, const Tensor& order) {
  Dims dim(op);
  dim(x, "x(M,C)")(order, "order(M)");
  if (on_card()) return;  // looking would wait for the card
  const int32_t* index = order.data<int32_t>();
  std::vector<char> seen(size_t(order.count()), 0);
  for (int64_t i = 0; i < order.count(); ++i) {
    const bool fits = index[i] >= 0 && index[i] < order.count();
    TESSERA_CHECK(fits && !seen[size_t(index[i])], op, ": order holds ", index[i], " at ", i, ", which is ",
                  fits ? "there twice" : "no row", " of x", x.shape());
    seen[size_t(index[i])] = 1;
  }
}

// to_i = from_order(i)
template <class T, int n>
struct Gather {
  int64_t C;
  const int32_t* order;
  const T* from;
  GradTarget<T> to;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const T* const source = from + order[i] * C;
    row.each_vec<n>(C, [=, this](int64_t j) { to.put(i * C + j, load_wide<n>(source + j)); });
  }
};

// to_order(i) = from_i
template <class T, int n>
struct Scatter {
  int64_t C;
  const int32_t* order;
  const T* from;
  GradTarget<T> to;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const T* const source = from + i * C;
    const int64_t target = order[i] * C;
    row.each_vec<n>(C, [=, this](int64_t j) { to.put(target + j, load_wide<n>(source + j)); });
  }
};

template <class T>
void gather(int64_t M, int64_t C, const Tensor& order, const T* from, const GradTarget<T>& to) {
  with_vec<T>(
      C,
      [&]<int n>() {
        rows(M, C, Gather<T, n>{C, order.data<int32_t>(), from, to});
      },
      from, to.data);
}

template <class T>
void scatter(int64_t M, int64_t C, const Tensor& order, const T* from, const GradTarget<T>& to) {
  with_vec<T>(
      C,
      [&]<int n>() {
        rows(M, C, Scatter<T, n>{C, order.data<int32_t>(), from, to});
      },
      from, to.data);
}

// y_order(i) = residual_order(i) + scale x_i, the scale that of the row's sample.
template <class T, int n>
struct Combine {
  int64_t C, per_sample;  // rows
  const int32_t* order;
  const T* x;
  const Wide<T>* residual;
  const Wide<T>* scale;  // none: null
  Wide<T>* y;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const int64_t target = order[i] * C;
    const Wide<T> factor = scale ? scale[order[i] / per_sample] : Wide<T>(1);
    row.each_vec<n>(C, [=, this](int64_t j) {
      auto sums = load_wide<n>(x + i * C + j);
      const auto before = load_vec<n>(residual + target + j);
      for (int k = 0; k < n; ++k) sums.v[k] = before.v[k] + factor * sums.v[k];
      store_vec(y + target + j, sums);
    });
  }
};

template <class T, int n>
struct CombineBackward {
  int64_t C, per_sample;
  const int32_t* order;
  const Wide<T>* dy;
  const Wide<T>* scale;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const Wide<T>* const source = dy + order[i] * C;
    const Wide<T> factor = scale ? scale[order[i] / per_sample] : Wide<T>(1);
    row.each_vec<n>(C, [=, this](int64_t j) {
      auto terms = load_vec<n>(source + j);
      for (int k = 0; k < n; ++k) terms.v[k] *= factor;
      dx.put(i * C + j, terms);
    });
  }
};

}  // namespace

Tensor permute_rows(const Tensor& x, const Tensor& order) {
  check_order("permute_rows", x, order);
  const int64_t M = x.size(0), C = x.size(1);
  Tensor y = like(x);
  for_activation("permute_rows", x.dtype(),
                 [&]<class T>() { gather<T>(M, C, order, x.data<T>(), {y.mutable_data<T>()}); });
  record("permute_rows", {x}, y, [M, C, order, gx = x.gradient()](const Gradient& gy) {
    for_activation("permute_rows", gx.dtype(),
                   [&]<class T>() { scatter<T>(M, C, order, gy.read<T>(), gx.target<T>()); });
  });
  return y;
}

Tensor unpermute_rows(const Tensor& x, const Tensor& order) {
  check_order("unpermute_rows", x, order);
  const int64_t M = x.size(0), C = x.size(1);
  Tensor y = like(x);
  for_activation("unpermute_rows", x.dtype(),
                 [&]<class T>() { scatter<T>(M, C, order, x.data<T>(), {y.mutable_data<T>()}); });
  record("unpermute_rows", {x}, y, [M, C, order, gx = x.gradient()](const Gradient& gy) {
    for_activation("unpermute_rows", gx.dtype(),
                   [&]<class T>() { gather<T>(M, C, order, gy.read<T>(), gx.target<T>()); });
  });
  return y;
}

Tensor combine_rows(const Tensor& x, const Tensor& order, const Tensor& residual, const Tensor& scale) {
  check_order("combine_rows", x, order);
  const int64_t M = x.size(0), C = x.size(1);
  TESSERA_CHECK(residual.count() == M * C && residual.size(-1) == C, "combine_rows: residual",
                residual.shape(), " does not have the rows of x", x.shape());
  if (scale) {
    TESSERA_CHECK(scale.rank() == 1 && scale.size(0) == residual.size(0), "combine_rows: scale",
                  scale.shape(), " must have one number for each of the ", residual.size(0),
                  " samples of residual", residual.shape());
    refuse_gradient("combine_rows (scale)", {scale});
  }
  const int64_t per_sample = M / std::max<int64_t>(1, residual.size(0));  // rows
  Tensor y = like(residual);
  for_activation("combine_rows", x.dtype(), [&]<class T>() {
    using Out = Wide<T>;
    const T* const from = x.data<T>();
    const Out *const before = residual.data<Out>(), *const factors = scale ? scale.data<Out>() : nullptr;
    Out* const to = y.mutable_data<Out>();
    with_vec<T>(
        C,
        [&]<int n>() {
          rows(M, C, Combine<T, n>{C, per_sample, order.data<int32_t>(), from, before, factors, to});
        },
        from, before, to);
  });
  record("combine_rows", {x, residual}, y,
         [=, type = x.dtype(), gx = x.gradient(), gr = residual.gradient()](const Gradient& gy) {
           for_activation("combine_rows", type, [&]<class T>() {
             using Out = Wide<T>;
             const Out *const dy = gy.read<Out>(), *const factors = scale ? scale.data<Out>() : nullptr;
             if (const auto dx = gx.target<T>())
               with_vec<T>(
                   C,
                   [&]<int n>() {
                     rows(M, C, CombineBackward<T, n>{C, per_sample, order.data<int32_t>(), dy, factors, dx});
                   },
                   dy, dx.data);
             pass_on<Out>(gy, gr);
           });
         });
  return y;
}

namespace {

std::vector<int32_t> some_order(const Tensor& x) {
  std::vector<int32_t> order(size_t(x.size(0)));
  const Permutation permutation(uint64_t(x.size(0)), Draw{.seed = 3});
  for (size_t i = 0; i < order.size(); ++i) order[i] = int32_t(permutation.at(i));
  return order;
}

Tensor composed(const Tensor& x, bool inverse) {
  const auto order = some_order(x);
  const int64_t C = x.size(1);
  std::vector<int64_t> index(size_t(x.count()));
  for (int64_t i = 0; i < x.size(0); ++i)
    for (int64_t j = 0; j < C; ++j) {
      const int64_t other = order[size_t(i)];
      index[size_t(inverse ? other * C + j : i * C + j)] = inverse ? i * C + j : other * C + j;
    }
  return take(x, index, x.shape());
}

Tensor order_of(const Tensor& x) { return Tensor::of({x.size(0)}, some_order(x)); }

TESSERA_CASES(OpCase{"permute_rows",
                     {"7x3", "1x1", "65537x2", "7x16"},
                     [](const Inputs& in) { return permute_rows(in[0], order_of(in[0])); },
                     [](const Inputs& in) { return composed(in[0], false); }});
TESSERA_CASES(OpCase{"unpermute_rows",
                     {"7x3", "1x1", "65537x2", "7x16"},
                     [](const Inputs& in) { return unpermute_rows(in[0], order_of(in[0])); },
                     [](const Inputs& in) { return composed(in[0], true); }});

Tensor composed_combine(const Inputs& in, const Tensor& scale) {
  Tensor rows = composed(in[0], true).reshape(in[1].shape());
  if (scale) rows = mul(rows, scale.reshape({in[1].size(0), 1, 1}));
  return add(in[1], rows);
}

Tensor sample_scale(const Tensor& residual) {
  return drop_path_scale(residual.size(0), 0.4, Draw{.seed = 6}, 0, residual.dtype());
}

TESSERA_CASES(OpCase{"combine_rows",
                     {"6x3 2x3x3", "1x1 1x1x1", "65537x2 65537x1x2", "6x16 2x3x16"},
                     [](const Inputs& in) { return combine_rows(in[0], order_of(in[0]), in[1]); },
                     [](const Inputs& in) { return composed_combine(in, {}); }});
TESSERA_CASES(OpCase{
    "combine_rows(scale)",
    {"12x3 4x3x3", "12x16 4x3x16"},
    [](const Inputs& in) { return combine_rows(in[0], order_of(in[0]), in[1], sample_scale(in[1])); },
    [](const Inputs& in) { return composed_combine(in, sample_scale(in[1])); }});

}  // namespace
}  // namespace tessera
