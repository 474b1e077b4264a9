// layer_scale: y = residual + scale * gamma * x, a learned factor for each channel of a residual branch
// (LayerScale; Touvron et al., "Going deeper with Image Transformers", 2021, eq. 1 and 2). dx = scale * gamma
// * dy, dgamma = the sum of scale * x * dy over all rows.
#include "engine/kernels/columns.h"
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/copy.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// One factor for each sample; none: 1.
template <class T>
struct SampleScale {
  const T* scale;
  int64_t per_sample;  // rows
  TESSERA_FN T operator()(int64_t i) const { return scale ? scale[i / per_sample] : T(1); }
};

template <class T>
struct Forward {
  int64_t C;
  SampleScale<T> scale;
  const T *x, *gamma, *residual;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const int64_t at = i * C;
    const T factor = scale(i);
    row.each(C, [=, this](int64_t j) { y[at + j] = residual[at + j] + factor * gamma[j] * x[at + j]; });
  }
};

template <class T>
struct Backward {
  int64_t C;
  SampleScale<T> scale;
  const T *gamma, *dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const int64_t at = i * C;
    const T factor = scale(i);
    row.each(C, [=, this](int64_t j) { dx.put(at + j, factor * gamma[j] * dy[at + j]); });
  }
};

template <class T>
struct GammaTerm {
  int64_t C;
  SampleScale<T> scale;
  const T *x, *dy;
  TESSERA_FN std::array<T, 1> operator()(int64_t i, int64_t j) const {
    return {scale(i) * x[i * C + j] * dy[i * C + j]};
  }
};

}  // namespace

Tensor layer_scale(const Tensor& x, const Tensor& gamma, const Tensor& residual, const Tensor& scale) {
  Dims dim("layer_scale");
  dim(x, "x(*,C)")(gamma, "gamma(C)")(residual, "residual(*,C)");
  const int64_t M = dim['*'], C = dim['C'];
  if (scale) {
    TESSERA_CHECK(scale.rank() == 1 && scale.size(0) == x.size(0), "layer_scale: scale", scale.shape(),
                  " must have one number for each of the ", x.size(0), " samples of x", x.shape());
    refuse_gradient("layer_scale (scale)", {scale});
  }
  const int64_t per_sample = scale ? M / std::max<int64_t>(1, scale.size(0)) : M;
  Tensor y = like(residual);
  for_float("layer_scale", x.dtype(), [&]<class T>() {
    rows(M, C,
         Forward<T>{C,
                    {scale ? scale.data<T>() : nullptr, per_sample},
                    x.data<T>(),
                    gamma.data<T>(),
                    residual.data<T>(),
                    y.mutable_data<T>()});
  });
  record("layer_scale", {x, gamma, residual}, y,
         [M, C, per_sample, x, gamma, scale, gx = x.gradient(), gg = gamma.gradient(),
          gr = residual.gradient()](const Gradient& gy) {
           for_float("layer_scale", x.dtype(), [&]<class T>() {
             const T* dy = gy.read<T>();
             const SampleScale<T> factor{scale ? scale.data<T>() : nullptr, per_sample};
             if (const auto dx = gx.target<T>()) rows(M, C, Backward<T>{C, factor, gamma.data<T>(), dy, dx});
             if (const auto dg = gg.target<T>())
               column_sums<T, 1>(M, C, {dg.data}, {dg.beta}, GammaTerm<T>{C, factor, x.data<T>(), dy});
             pass_on<T>(gy, gr);
           });
         });
  return y;
}

namespace {

Tensor composed(const Inputs& in, const Tensor& scale) {
  Tensor branch = mul(in[0], in[1]);
  if (scale) {
    Shape column = in[0].shape();
    for (int axis = 1; axis < column.rank(); ++axis) column[axis] = 1;
    branch = mul(branch, scale.reshape(column));
  }
  return add(in[2], branch);
}

Tensor sample_scale(const Tensor& x) {
  return drop_path_scale(x.size(0), 0.4, Draw{.seed = 6}, 0, x.dtype());
}

TESSERA_CASES(OpCase{"layer_scale",
                     {"2x3x5 5 2x3x5", "1x1 1 1x1", "65537x2 2 65537x2"},
                     [](const Inputs& in) { return layer_scale(in[0], in[1], in[2]); },
                     [](const Inputs& in) { return composed(in, {}); }});
TESSERA_CASES(OpCase{"layer_scale(scale)",
                     {"7x3x5 5 7x3x5", "4x1x1 1 4x1x1"},
                     [](const Inputs& in) { return layer_scale(in[0], in[1], in[2], sample_scale(in[0])); },
                     [](const Inputs& in) { return composed(in, sample_scale(in[0])); }});

}  // namespace
}  // namespace tessera
