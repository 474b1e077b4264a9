// linear and its fused forms, dense and for experts, which are the same over groups of rows:
//   z = x W^T + b;   y = z | gelu(z) | residual + scale z.
//   dz = dy | dy gelu'(z) | scale dy;   dx = dz W,  dW = dz^T x,  db = column sums of dz.
// Where the weight has a bf16 copy, x, W and dz are bf16, and the residual, dW and db are f32.
#include "engine/base/vec.h"
#include "engine/kernels/columns.h"
#include "engine/kernels/gemm.h"
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/copy.h"
#include "engine/ops/elementary.h"
#include "engine/ops/gelu.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

using Offsets = std::vector<int64_t>;

// The terms of db, those of dz = dy | dy gelu'(z) | scale dy, which is left in memory where it is not dy
// itself.
template <class T, class Dy, bool kSloped = false, bool kScaled = false>
struct BiasTerms {
  static constexpr int kVec = 4;
  static constexpr bool kWrites = kSloped || kScaled || !std::is_same_v<T, Dy>;
  int64_t O, first = 0, per_sample = 0;  // of the rows from `first` on; rows of a sample
  const Dy* dy;
  const T* slope = nullptr;
  const Wide<T>* scale = nullptr;
  T* dz = nullptr;

  bool aligned() const { return aligned_to<kVec>(dy) && aligned_to<kVec>(slope, dz); }
  template <int n>
  TESSERA_FN std::array<Vec<Wide<T>, n>, 1> vec(int64_t i, int64_t j) const {
    const int64_t at = (first + i) * O + j;
    std::array<Vec<Wide<T>, n>, 1> terms;
    Wide<T>* const term = terms[0].v;
    const auto own = load_vec<n>(dy + at);
    for (int k = 0; k < n; ++k) term[k] = own.v[k];
    if constexpr (kSloped) {
      const auto factors = load_vec<n>(slope + at);
      for (int k = 0; k < n; ++k) term[k] *= factors.v[k];
    }
    if constexpr (kScaled)
      for (int k = 0; k < n; ++k) term[k] *= scale[(first + i) / per_sample];
    if constexpr (kWrites) {
      Vec<T, n> rounded;
      for (int k = 0; k < n; ++k) rounded.v[k] = term[k];
      store_vec(dz + at, rounded);
    }
    return terms;
  }
};

// Calls f(first, count, M) for the runs of neighbouring groups of as many rows, M, whose products are one
// batch: one or two for groups as equal as can be.
template <class F>
void each_run(const Offsets& offsets, F f) {
  const int64_t groups = int64_t(offsets.size()) - 1;
  const auto rows_of = [&](int64_t e) { return offsets[size_t(e) + 1] - offsets[size_t(e)]; };
  for (int64_t first = 0, end; first < groups; first = end) {
    for (end = first + 1; end < groups && rows_of(end) == rows_of(first);) ++end;
    f(first, end - first, rows_of(first));
  }
}

// dx, dW, db from dz, group by group; for a dense layer there is one group.
template <class T>
struct LinearBackward {
  Offsets offsets;
  int64_t O, C;
  Tensor x, weight;
  Gradient gx, gweight, gbias;

  // `terms`: of all rows.
  template <class Terms>
  void operator()(const T* dz, Terms terms) const {
    const auto dx = gx.target<T>();
    const auto dw = gweight.target<Wide<T>>(), db = gbias.target<Wide<T>>();
    each_run(offsets, [&](int64_t e, int64_t count, int64_t M) {
      const int64_t first = offsets[size_t(e)];
      terms.first = first;
      if (db || Terms::kWrites)
        column_sums<Wide<T>, 1>(M, O, {db ? db.data + e * O : nullptr}, {db.beta}, terms, count);
      const T* const dz_e = dz + first * O;
      if (dx)
        gemm(Gemm<T>{.m = M,
                     .n = C,
                     .k = O,
                     .a = dz_e,
                     .b = weight.data<T>() + e * O * C,
                     .c = dx.data + first * C,
                     .beta = dx.beta},
             GemmBatch{count, M * O, O * C, M * C});
      if (dw)
        gemm(Gemm<T, Wide<T>>{.transpose_a = true,
                              .m = O,
                              .n = C,
                              .k = M,
                              .a = dz_e,
                              .b = x.data<T>() + first * C,
                              .c = dw.data + e * O * C,
                              .beta = dw.beta},
             GemmBatch{count, M * O, M * C, O * C});
    });
  }
};

template <class T, class Out>
void linear_forward(const Offsets& offsets, int64_t O, int64_t C, const Tensor& x, const Tensor& weight,
                    const Tensor& bias, Out* z, const Out* addend = nullptr) {
  each_run(offsets, [&](int64_t e, int64_t count, int64_t M) {
    const int64_t first = offsets[size_t(e)];
    gemm(Gemm<T, Out>{.transpose_b = true,
                      .m = M,
                      .n = O,
                      .k = C,
                      .a = x.data<T>() + first * C,
                      .b = weight.data<T>() + e * O * C,
                      .c = z + first * O,
                      .bias = bias ? bias.data<Out>() + e * O : nullptr,
                      .addend = addend},
         GemmBatch{count, M * C, O * C, M * O, O});
  });
}

// Whether x is narrowed for the product with the weight.
bool narrows(const Tensor& x, const Tensor& weight) {
  return x.dtype() == DType::f32 && weight.product_dtype() == DType::bf16;
}

Shape with_last(Shape shape, int64_t size) {
  shape[-1] = size;
  return shape;
}

// Binds the letters of either form and gives the groups of rows.
Dims checked(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  Dims dim(op);
  const bool grouped = weight.rank() == 3;
  dim(x, "x(*,C)")(weight, grouped ? "weight(E,O,C)" : "weight(O,C)");
  if (bias) dim(bias, grouped ? "bias(E,O)" : "bias(O)");
  return dim;
}

Tensor plain(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias,
             const Offsets& offsets) {
  if (narrows(x, weight)) return widen(plain(op, narrow(x), weight, bias, offsets));
  const Dims dim = checked(op, x, weight, bias);
  const int64_t O = dim['O'], C = dim['C'];
  Tensor y(with_last(x.shape(), O), x.dtype());
  for_activation(op, x.dtype(),
                 [&]<class T>() { linear_forward<T>(offsets, O, C, x, weight, bias, y.mutable_data<T>()); });
  record(op, {x, weight, bias}, y,
         [offsets, O, C, x, weight, gx = x.gradient(), gw = weight.gradient(),
          gb = bias.gradient()](const Gradient& gy) {
           for_activation("linear", x.dtype(), [&]<class T>() {
             const T* const dy = gy.read<T>();
             LinearBackward<T>{offsets, O, C, x, weight, gx, gw, gb}(dy, BiasTerms<T, T>{.O = O, .dy = dy});
           });
         });
  return y;
}

// y from z to gelu(z) in place, and d, where it is wanted, to gelu'(z).
template <class T, bool kSlope>
struct GeluInPlace {
  static constexpr int kVec = int(16 / sizeof(T));
  T *y, *d;

  bool aligned() const { return aligned_to<kVec>(y, d); }
  template <int n>
  TESSERA_FN void vec(int64_t i) const {
    auto own = load_vec<n>(y + i);
    if constexpr (kSlope) {
      Vec<T, n> slope;
      for (int k = 0; k < n; ++k) slope.v[k] = gelu_slope(Wide<T>(own.v[k]));
      store_vec(d + i, slope);
    }
    for (int k = 0; k < n; ++k) own.v[k] = gelu_value(Wide<T>(own.v[k]));
    store_vec(y + i, own);
  }
};

// While a tape records, the slope gelu'(z) replaces z in memory: backward is then one multiplication.
Tensor with_gelu(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias,
                 const Offsets& offsets) {
  if (narrows(x, weight)) return widen(with_gelu(op, narrow(x), weight, bias, offsets));
  const Dims dim = checked(op, x, weight, bias);
  const int64_t O = dim['O'], C = dim['C'];
  Tensor y(with_last(x.shape(), O), x.dtype());
  Tensor slope = Tape::current() ? like(y) : Tensor();
  for_activation(op, x.dtype(), [&]<class T>() {
    T* const out = y.mutable_data<T>();
    linear_forward<T>(offsets, O, C, x, weight, bias, out);
    if (slope)
      elements(y.count(), GeluInPlace<T, true>{out, slope.mutable_data<T>()});
    else
      elements(y.count(), GeluInPlace<T, false>{out, nullptr});
  });
  record(op, {x, weight, bias}, y,
         [offsets, O, C, x, weight, slope, gx = x.gradient(), gw = weight.gradient(),
          gb = bias.gradient()](const Gradient& gy) {
           for_activation("linear_gelu", x.dtype(), [&]<class T>() {
             Tensor dz = like(slope);
             const BiasTerms<T, T, true> terms{
                 .O = O, .dy = gy.read<T>(), .slope = slope.data<T>(), .dz = dz.mutable_data<T>()};
             LinearBackward<T>{offsets, O, C, x, weight, gx, gw, gb}(terms.dz, terms);
           });
         });
  return y;
}

Offsets one_group(const Tensor& x) { return {0, x.shape().count(0, x.rank() - 1)}; }

Offsets checked_offsets(const char* op, const Tensor& x, const Tensor& weight,
                        std::span<const int64_t> offsets) {
  TESSERA_CHECK(x.rank() == 2 && weight.rank() == 3, op, ": x", x.shape(), " and weight", weight.shape(),
                " do not have the forms x(M,C) and weight(E,O,C)");
  bool rising =
      int64_t(offsets.size()) == weight.size(0) + 1 && offsets.front() == 0 && offsets.back() == x.size(0);
  for (size_t e = 0; rising && e + 1 < offsets.size(); ++e) rising = offsets[e] <= offsets[e + 1];
  TESSERA_CHECK(rising, op, ": the ", offsets.size(), " offsets must rise from 0 to M=", x.size(0),
                " with one entry more than the E=", weight.size(0), " experts");
  return {offsets.begin(), offsets.end()};
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return plain("linear", x, weight, bias, one_group(x));
}

Tensor linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return with_gelu("linear_gelu", x, weight, bias, one_group(x));
}

Tensor grouped_linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      std::span<const int64_t> offsets) {
  return plain("grouped_linear", x, weight, bias, checked_offsets("grouped_linear", x, weight, offsets));
}

Tensor grouped_linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           std::span<const int64_t> offsets) {
  return with_gelu("grouped_linear_gelu", x, weight, bias,
                   checked_offsets("grouped_linear_gelu", x, weight, offsets));
}

namespace {

// y = residual + scale z over the rows of samples, in place of z.
template <class T>
struct AddResidual {
  int64_t O, per_sample;      // per_sample: rows
  const T *residual, *scale;  // no scale: null
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const T factor = scale ? scale[i / per_sample] : T(1);
    row.each(O, [=, this](int64_t j) { y[i * O + j] = residual[i * O + j] + factor * y[i * O + j]; });
  }
};

}  // namespace

Tensor linear_residual(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual,
                       const Tensor& scale) {
  if (narrows(x, weight)) return linear_residual(narrow(x), weight, bias, residual, scale);
  Dims dim = checked("linear_residual", x, weight, bias);
  dim(residual, "residual(*,O)");
  const int64_t M = dim['*'], O = dim['O'], C = dim['C'];
  if (scale) {
    TESSERA_CHECK(scale.rank() == 1 && scale.size(0) == x.size(0), "linear_residual: scale", scale.shape(),
                  " must have one number for each of the ", x.size(0), " samples of x", x.shape());
    refuse_gradient("linear_residual (scale)", {scale});
  }
  const int64_t per_sample = scale ? M / std::max<int64_t>(1, scale.size(0)) : M;  // rows
  const Offsets offsets{0, M};
  Tensor y = like(residual);
  for_activation("linear_residual", x.dtype(), [&]<class T>() {
    using Out = Wide<T>;
    Out* const out = y.mutable_data<Out>();
    if (on_card() && !scale)
      return linear_forward<T>(offsets, O, C, x, weight, bias, out, residual.data<Out>());
    linear_forward<T>(offsets, O, C, x, weight, bias, out);
    rows(M, O,
         AddResidual<Out>{O, per_sample, residual.data<Out>(), scale ? scale.data<Out>() : nullptr, out});
  });
  record("linear_residual", {x, weight, bias, residual}, y,
         [offsets, M, O, C, per_sample, x, weight, scale, gx = x.gradient(), gw = weight.gradient(),
          gb = bias.gradient(), gr = residual.gradient()](const Gradient& gy) {
           for_activation("linear_residual", x.dtype(), [&]<class T>() {
             using Out = Wide<T>;
             const Out* const dy = gy.read<Out>();
             const LinearBackward<T> backward{offsets, O, C, x, weight, gx, gw, gb};
             const auto by_way_of = [&](auto terms) {
               Tensor dz({M, O}, dtype_of<T>());
               terms.dz = dz.mutable_data<T>();
               backward(terms.dz, terms);
             };
             if (scale)
               by_way_of(BiasTerms<T, Out, false, true>{
                   .O = O, .per_sample = per_sample, .dy = dy, .scale = scale.data<Out>()});
             else if constexpr (std::is_same_v<T, Out>)
               backward(dy, BiasTerms<T, T>{.O = O, .dy = dy});
             else
               by_way_of(BiasTerms<T, Out>{.O = O, .dy = dy});
             pass_on<Out>(gy, gr);
           });
         });
  return y;
}

namespace {

Tensor composed(const Inputs& in) {
  const Tensor rows = in[0].reshape({in[0].shape().count(0, in[0].rank() - 1), in[0].size(-1)});
  Tensor y = matmul(rows, in[1], false, true);
  if (in.size() > 2) y = add(y, in[2]);
  return y.reshape(with_last(in[0].shape(), in[1].size(0)));
}

// Rows shared out unevenly, with one empty expert where there are three.
Offsets some_offsets(const Tensor& x, const Tensor& weight) {
  const int64_t M = x.size(0), E = weight.size(0);
  Offsets offsets(size_t(E) + 1, 0);
  for (int64_t e = 1; e <= E; ++e) offsets[size_t(e)] = e == 2 ? offsets[1] : M * e * e / (E * E);
  offsets.back() = M;
  return offsets;
}

// As evenly as can be.
Offsets equal_offsets(const Tensor& x, const Tensor& weight) {
  const int64_t M = x.size(0), E = weight.size(0);
  Offsets offsets;
  for (int64_t e = 0; e <= E; ++e) offsets.push_back(e * (M / E) + std::min(e, M % E));
  return offsets;
}

Tensor composed_groups(const Inputs& in, const Offsets& offsets) {
  std::vector<Tensor> parts;
  for (int64_t e = 0; e < in[1].size(0); ++e) {
    const int64_t O = in[1].size(1), C = in[1].size(2);
    parts.push_back(
        composed({slice(in[0], 0, offsets[size_t(e)], offsets[size_t(e) + 1]),
                  slice(in[1], 0, e, e + 1).reshape({O, C}), slice(in[2], 0, e, e + 1).reshape({O})}));
  }
  return concat(parts, 0);
}

Tensor sample_scale(const Tensor& x) {
  std::vector<double> scale(size_t(x.size(0)), 1.25);
  scale[0] = 0;
  return Tensor::of({x.size(0)}, scale).to(wide(x.dtype()));
}

const std::vector<const char*> kShapes{"3x5 7x5 7", "1x1 1x1 1", "2x3x5 4x5 4", "65537x2 3x2 3",
                                       "1030x5 8x5 8"};

TESSERA_CASES(OpCase{"linear", kShapes, [](const Inputs& in) { return linear(in[0], in[1], in[2]); },
                     composed});
TESSERA_CASES(OpCase{
    "linear(no bias)", {"3x5 7x5"}, [](const Inputs& in) { return linear(in[0], in[1]); }, composed});
TESSERA_CASES(OpCase{"linear_gelu", kShapes,
                     [](const Inputs& in) { return linear_gelu(in[0], in[1], in[2]); },
                     [](const Inputs& in) { return gelu(composed(in)); }});
TESSERA_CASES(OpCase{
    "grouped_linear",
    {"11x5 3x7x5 3x7", "1x1 1x1x1 1x1", "65537x2 2x3x2 2x3"},
    [](const Inputs& in) { return grouped_linear(in[0], in[1], in[2], some_offsets(in[0], in[1])); },
    [](const Inputs& in) { return composed_groups(in, some_offsets(in[0], in[1])); }});
TESSERA_CASES(OpCase{
    "grouped_linear(equal)",
    {"11x5 3x7x5 3x7", "12x5 3x7x5 3x7", "65537x2 4x3x2 4x3", "2050x5 3x8x5 3x8"},
    [](const Inputs& in) { return grouped_linear(in[0], in[1], in[2], equal_offsets(in[0], in[1])); },
    [](const Inputs& in) { return composed_groups(in, equal_offsets(in[0], in[1])); }});
TESSERA_CASES(OpCase{
    "grouped_linear_gelu",
    {"11x5 3x7x5 3x7", "1x1 1x1x1 1x1", "300x5 3x8x5 3x8"},
    [](const Inputs& in) { return grouped_linear_gelu(in[0], in[1], in[2], some_offsets(in[0], in[1])); },
    [](const Inputs& in) { return gelu(composed_groups(in, some_offsets(in[0], in[1]))); }});
TESSERA_CASES(OpCase{"linear_residual",
                     {"2x3x5 4x5 4 2x3x4", "1x1 1x1 1 1x1", "65537x2 3x2 3 65537x3"},
                     [](const Inputs& in) { return linear_residual(in[0], in[1], in[2], in[3]); },
                     [](const Inputs& in) {
                       return add(in[3], composed({in[0], in[1], in[2]}));
                     }});
TESSERA_CASES(OpCase{
    "linear_residual(scale)",
    {"2x3x5 4x5 4 2x3x4", "3x1x2 1x2 1 3x1x1", "5x30x3 8x3 8 5x30x8"},
    [](const Inputs& in) { return linear_residual(in[0], in[1], in[2], in[3], sample_scale(in[0])); },
    [](const Inputs& in) {
      const Tensor s = sample_scale(in[0]).reshape({in[0].size(0), 1, 1});
      return add(in[3], mul(composed({in[0], in[1], in[2]}), s));
    }});

}  // namespace
}  // namespace tessera
