// dropout and drop_path (stochastic depth): multiplication by a mask of 0 and 1/(1-rate). Backward draws the
// same mask again.
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

void check_rate(const char* op, double rate) {
  TESSERA_CHECK(rate >= 0 && rate < 1, op, ": rate ", rate, " is not in [0,1)");
}

// to_i = factor_i * from_i, the element counted from the batch's first, `first` of this tensor. One Philox
// block serves four elements, which are aligned in the whole batch.
template <class T>
struct ApplyMask {
  int64_t n, first;
  Wide<T> keep;
  float rate;
  Draw draw;
  const T* from;
  GradTarget<T> to;
  TESSERA_FN void operator()(int64_t block) const {
    const int64_t start = (first / 4 + block) * 4;
    const auto words = draw.block(uint64_t(start / 4));
    for (int64_t k = 0; k < 4; ++k) {
      const int64_t i = start + k - first;
      if (i >= 0 && i < n) to.put(i, Draw::to_unit(words[size_t(k)]) < rate ? Wide<T>(0) : keep * from[i]);
    }
  }
};

template <class T>
void apply_mask(int64_t n, int64_t first, double rate, const Draw& draw, const T* from, GradTarget<T> to) {
  elements((first + n + 3) / 4 - first / 4,
           ApplyMask<T>{n, first, Wide<T>(1 / (1 - rate)), float(rate), draw, from, to});
}

template <class T>
struct SampleScale {
  int64_t first;
  T keep;
  float rate;
  Draw draw;
  T* scale;
  TESSERA_FN void operator()(int64_t b) const {
    scale[b] = draw.uniform(uint64_t(first + b)) < rate ? T(0) : keep;
  }
};

}  // namespace

Tensor dropout(const Tensor& x, double rate, const Draw& draw, int64_t first_sample) {
  check_rate("dropout", rate);
  if (rate == 0) return x;
  const int64_t n = x.count(), first = first_sample * x.shape().count(1, x.rank());
  Tensor y = like(x);
  for_activation("dropout", x.dtype(),
                 [&]<class T>() { apply_mask<T>(n, first, rate, draw, x.data<T>(), {y.mutable_data<T>()}); });
  record("dropout", {x}, y, [=, gx = x.gradient()](const Gradient& gy) {
    for_activation("dropout", gx.dtype(),
                   [&]<class T>() { apply_mask<T>(n, first, rate, draw, gy.read<T>(), gx.target<T>()); });
  });
  return y;
}

Tensor drop_path_scale(int64_t B, double rate, const Draw& draw, int64_t first_sample, DType dtype) {
  check_rate("drop_path", rate);
  Tensor scale({B}, dtype);
  for_float("drop_path", dtype, [&]<class T>() {
    elements(B, SampleScale<T>{first_sample, T(1 / (1 - rate)), float(rate), draw, scale.mutable_data<T>()});
  });
  return scale;
}

Tensor drop_path(const Tensor& x, double rate, const Draw& draw, int64_t first_sample) {
  if (rate == 0) return x;
  Shape shape{x.size(0)};
  while (shape.rank() < x.rank()) shape.push_back(1);
  return mul(x, drop_path_scale(x.size(0), rate, draw, first_sample, x.dtype()).reshape(shape));
}

namespace {

const Draw kDraw{.seed = 11, .stream = Stream::dropout, .step = 5, .site = 2};

Tensor composed(const Inputs& in) {  // the mask as a constant, one element at a time
  std::vector<double> mask;
  for (int64_t i = 0, first = 3 * in[0].shape().count(1, in[0].rank()); i < in[0].count(); ++i) {
    const uint64_t at = uint64_t(first + i);
    mask.push_back(Draw::to_unit(kDraw.block(at / 4)[at % 4]) < 0.3f ? 0 : 1 / 0.7);
  }
  return mul(in[0], Tensor::of(in[0].shape(), mask).to(in[0].dtype()));
}

TESSERA_CASES(OpCase{"dropout",
                     {"5x7", "1x1", "2x3x3", "65537x2"},
                     [](const Inputs& in) { return dropout(in[0], 0.3, kDraw, 3); },
                     composed});
TESSERA_CASES(OpCase{"drop_path",
                     {"5x7", "1x1", "9x2x3", "65537x1"},
                     [](const Inputs& in) { return drop_path(in[0], 0.3, kDraw, 3); },
                     [](const Inputs& in) {
                       Tensor scale = drop_path_scale(in[0].size(0), 0.3, kDraw, 3, in[0].dtype());
                       Tensor rows = in[0].reshape({in[0].size(0), in[0].shape().count(1, in[0].rank())});
                       std::vector<int64_t> index;
                       for (int64_t i = 0; i < rows.count(); ++i) index.push_back(i / rows.size(1));
                       return mul(rows, take(scale, index, rows.shape())).reshape(in[0].shape());
                     }});

}  // namespace
}  // namespace tessera
