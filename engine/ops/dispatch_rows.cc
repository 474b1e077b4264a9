// Rows that a router sends to k experts each, and back (V-MoE, arXiv 2106.05974, eq. 1). slots(M,k) holds for
// every choice of row i its place among the R rows in the experts' order, or -1 where the choice was dropped:
//   dispatch_rows: y_slots(i,j) = x_i;   combine_gated: y_i = residual_i + scale_b sum_j gates_ij
//   x_slots(i,j).
// A slot belongs to one choice, so that neither direction needs atomics.
#include "engine/ops/cases.h"
#include "engine/ops/copy.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// Every row from 0 to R - 1 is the slot of just one choice.
void check_slots(const char* op, const Tensor& slots, int64_t R) {
  if (on_card()) return;  // looking would wait for the card
  std::vector<char> seen(size_t(R), 0);
  const int32_t* slot = slots.data<int32_t>();
  int64_t kept = 0;
  for (int64_t i = 0; i < slots.count(); ++i) {
    if (slot[i] == -1) continue;
    const bool fits = slot[i] >= 0 && slot[i] < R;
    TESSERA_CHECK(fits && !seen[size_t(slot[i])], op, ": slots", slots.shape(), " hold ", slot[i], " at ", i,
                  ", which is ", fits ? "there twice" : text("none of the ", R, " rows"));
    seen[size_t(slot[i])] = 1;
    ++kept;
  }
  TESSERA_CHECK(kept == R, op, ": slots", slots.shape(), " name ", kept, " of the ", R, " rows");
}

// to_slots(i,j) = from_i
template <class T>
struct Spread {
  int64_t k, C;
  const int32_t* slots;
  const T* from;
  GradTarget<T> to;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const T* const source = from + i * C;
    for (int64_t j = 0; j < k; ++j)
      if (const int64_t slot = slots[i * k + j]; slot >= 0)
        row.each(C, [=, to = to, at = slot * C](int64_t c) { to.put(at + c, source[c]); });
  }
};

// to_i = sum_j from_slots(i,j)
template <class T>
struct Collect {
  int64_t k, C;
  const int32_t* slots;
  const T* from;
  GradTarget<T> to;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    row.each(C, [to = to, at = i * C](int64_t c) { to.put(at + c, T(0)); });
    for (int64_t j = 0; j < k; ++j)
      if (const int64_t slot = slots[i * k + j]; slot >= 0)
        row.each(C, [out = to.data + i * C, in = from + slot * C](int64_t c) { out[c] += in[c]; });
  }
};

// The gates of each row with its sample's scale.
template <class T>
struct Gates {
  int64_t k, per_sample;  // rows of a sample
  const T* gates;
  const T* scale;  // may be null
  TESSERA_FN T sample(int64_t i) const { return scale ? scale[i / per_sample] : T(1); }
  TESSERA_FN T at(int64_t i, int64_t j) const { return sample(i) * gates[i * k + j]; }
};

template <class T>
struct Combine {
  int64_t C;
  Gates<T> gates;
  const int32_t* slots;
  const T* x;
  const T* residual;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    T* const out = y + i * C;
    row.each(C, [=, r = residual + i * C](int64_t c) { out[c] = r[c]; });
    for (int64_t j = 0; j < gates.k; ++j)
      if (const int64_t slot = slots[i * gates.k + j]; slot >= 0)
        row.each(C, [=, gate = gates.at(i, j), in = x + slot * C](int64_t c) { out[c] += gate * in[c]; });
  }
};

template <class T>
struct CombineBackward {
  int64_t C;
  Gates<T> gates;
  const int32_t* slots;
  const T* x;
  const T* dy;
  GradTarget<T> dx, dgates;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const T* const slope = dy + i * C;
    for (int64_t j = 0; j < gates.k; ++j) {
      const int64_t choice = i * gates.k + j, slot = slots[choice];
      if (dx && slot >= 0)
        row.each(C, [slope, to = dx, gate = gates.at(i, j), at = slot * C](int64_t c) {
          to.put(at + c, gate * slope[c]);
        });
      if (!dgates) continue;
      const T* const in = x + slot * C;
      const T product = slot < 0 ? T(0) : row.sum(C, [=](int64_t c) { return slope[c] * in[c]; });
      row.once([=, to = dgates, own = gates.sample(i)] { to.put(choice, own * product); });
    }
  }
};

}  // namespace

Tensor dispatch_rows(const Tensor& x, const Tensor& slots, int64_t R) {
  Dims dim("dispatch_rows");
  dim(x, "x(M,C)")(slots, "slots(M,k)");
  check_slots("dispatch_rows", slots, R);
  const int64_t M = dim['M'], C = dim['C'], k = dim['k'];
  Tensor y({R, C}, x.dtype());
  for_float("dispatch_rows", x.dtype(), [&]<class T>() {
    rows(M, k * C, Spread<T>{k, C, slots.data<int32_t>(), x.data<T>(), {y.mutable_data<T>()}});
  });
  record("dispatch_rows", {x}, y, [M, C, k, slots, gx = x.gradient()](const Gradient& gy) {
    for_float("dispatch_rows", gx.dtype(), [&]<class T>() {
      rows(M, k * C, Collect<T>{k, C, slots.data<int32_t>(), gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

Tensor combine_gated(const Tensor& x, const Tensor& gates, const Tensor& slots, const Tensor& residual,
                     const Tensor& scale) {
  Dims dim("combine_gated");
  dim(x, "x(R,C)")(gates, "gates(M,k)")(slots, "slots(M,k)");
  check_slots("combine_gated", slots, dim['R']);
  const int64_t M = dim['M'], C = dim['C'], k = dim['k'];
  TESSERA_CHECK(residual.count() == M * C && residual.size(-1) == C, "combine_gated: residual",
                residual.shape(), " does not have the ", M, " rows of gates", gates.shape(), " and x",
                x.shape());
  if (scale) {
    TESSERA_CHECK(scale.rank() == 1 && scale.size(0) == residual.size(0), "combine_gated: scale",
                  scale.shape(), " must have one number for each of the ", residual.size(0),
                  " samples of residual", residual.shape());
    refuse_gradient("combine_gated (scale)", {scale});
  }
  const int64_t per_sample = M / std::max<int64_t>(1, residual.size(0));
  Tensor y = like(residual);
  for_float("combine_gated", x.dtype(), [&]<class T>() {
    const Gates<T> factors{k, per_sample, gates.data<T>(), scale ? scale.data<T>() : nullptr};
    rows(M, k * C,
         Combine<T>{C, factors, slots.data<int32_t>(), x.data<T>(), residual.data<T>(), y.mutable_data<T>()});
  });
  record("combine_gated", {x, gates, residual}, y,
         [=, gx = x.gradient(), gg = gates.gradient(), gr = residual.gradient()](const Gradient& gy) {
           for_float("combine_gated", gy.dtype(), [&]<class T>() {
             const T* dy = gy.read<T>();
             const Gates<T> factors{k, per_sample, gates.data<T>(), scale ? scale.data<T>() : nullptr};
             rows(M, k * C,
                  CombineBackward<T>{C, factors, slots.data<int32_t>(), x.data<T>(), dy, gx.target<T>(),
                                     gg.target<T>()});
             pass_on<T>(gy, gr);
           });
         });
  return y;
}

namespace {

// Two choices a row, some dropped, the others in no simple order.
struct SomeSlots {
  std::vector<int32_t> slots;
  int64_t kept;

  explicit SomeSlots(const Tensor& x) : slots(size_t(2 * x.size(0)), -1) {
    std::vector<size_t> choices;
    for (size_t i = 0; i < slots.size(); ++i)
      if (i % 5 != 3) choices.push_back(i);
    kept = int64_t(choices.size());
    const Permutation permutation(choices.size(), Draw{.seed = 3});
    for (size_t i = 0; i < choices.size(); ++i) slots[choices[i]] = int32_t(permutation.at(i));
  }
  Tensor tensor() const { return Tensor::of({int64_t(slots.size()) / 2, 2}, slots); }
};

Tensor dispatch(const Inputs& in) {
  const SomeSlots some(in[0]);
  return dispatch_rows(in[0], some.tensor(), some.kept);
}

Tensor composed_dispatch(const Inputs& in) {
  const SomeSlots some(in[0]);
  const int64_t C = in[0].size(1);
  std::vector<int64_t> index(size_t(some.kept * C));
  for (size_t i = 0; i < some.slots.size(); ++i)
    for (int64_t c = 0; c < C; ++c)
      if (some.slots[i] >= 0) index[size_t(some.slots[i] * C + c)] = int64_t(i / 2) * C + c;
  return take(in[0], index, {some.kept, C});
}

// x(M,C) is dispatched before it is combined, so that the shapes of a case need not know the kept rows.
Tensor combine(const Inputs& in, const Tensor& scale) {
  const SomeSlots some(in[0]);
  const Tensor slots = some.tensor();
  return combine_gated(dispatch_rows(in[0], slots, some.kept), in[1], slots, in[2], scale);
}

Tensor composed_combine(const Inputs& in, const Tensor& scale) {
  const SomeSlots some(in[0]);
  const int64_t M = in[0].size(0);
  std::vector<int64_t> kept;
  for (size_t i = 0; i < some.slots.size(); ++i) kept.push_back(some.slots[i] < 0 ? -1 : int64_t(i));
  const Tensor gate = tessera::scale(mean(take(in[1], kept, {M, 2}), 1), 2).reshape({M, 1});
  Tensor branch = mul(in[0], gate).reshape(in[2].shape());
  if (scale) branch = mul(branch, scale.reshape({scale.count(), 1, 1}));
  return add(in[2], branch);
}

Tensor sample_scale(const Tensor& residual) {
  return drop_path_scale(residual.size(0), 0.4, Draw{.seed = 6}, 0, residual.dtype());
}

TESSERA_CASES(OpCase{"dispatch_rows", {"7x3", "1x1", "65537x2"}, dispatch, composed_dispatch});
TESSERA_CASES(OpCase{"combine_gated",
                     {"6x3 6x2 2x3x3", "1x1 1x2 1x1x1", "65537x2 65537x2 65537x1x2"},
                     [](const Inputs& in) { return combine(in, {}); },
                     [](const Inputs& in) { return composed_combine(in, {}); }});
TESSERA_CASES(OpCase{"combine_gated(scale)",
                     {"12x3 12x2 4x3x3"},
                     [](const Inputs& in) { return combine(in, sample_scale(in[2])); },
                     [](const Inputs& in) { return composed_combine(in, sample_scale(in[2])); }});

}  // namespace
}  // namespace tessera
