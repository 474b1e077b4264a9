// mix_heads: y_g = sum_h weight_gh x_h + bias_g, a linear layer over the heads of x(B,H,N,M), which
// talking-heads attention (Shazeer et al., 2020) has before and after its softmax. dx_h = sum_g weight_gh
// dy_g,  dweight_gh = sum dy_g x_h,  dbias_g = sum dy_g.
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// A plane is what x holds of one sample and one head.
template <class T>
struct Forward {
  int64_t H, area;
  const T *x, *weight, *bias;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t plane) const {
    const int64_t g = plane % H;
    const T* const in = x + (plane - g) * area;
    T* const out = y + plane * area;
    row.each(area, [=, this](int64_t j) {
      T sum = bias[g];
      for (int64_t h = 0; h < H; ++h) sum += weight[g * H + h] * in[h * area + j];
      out[j] = sum;
    });
  }
};

template <class T>
struct Backward {
  int64_t H, area;
  const T *dy, *weight;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t plane) const {
    const int64_t h = plane % H;
    const T* const in = dy + (plane - h) * area;
    row.each(area, [=, this](int64_t j) {
      T sum = 0;
      for (int64_t g = 0; g < H; ++g) sum += weight[g * H + h] * in[g * area + j];
      dx.put(plane * area + j, sum);
    });
  }
};

// Row i is (g, h), and for every g one more, the bias's.
template <class T>
struct WeightBackward {
  int64_t B, H, area;
  const T *x, *dy;
  GradTarget<T> dweight, dbias;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const int64_t g = i / (H + 1), h = i % (H + 1);
    T total = 0;
    for (int64_t b = 0; b < B; ++b) {
      const T* const slope = dy + (b * H + g) * area;
      const T* const in = x + (b * H + h) * area;
      total += h < H ? row.sum(area, [=](int64_t j) { return slope[j] * in[j]; })
                     : row.sum(area, [=](int64_t j) { return slope[j]; });
    }
    if (h < H && dweight) row.once([=, this] { dweight.put(g * H + h, total); });
    if (h == H && dbias) row.once([=, this] { dbias.put(g, total); });
  }
};

}  // namespace

Tensor mix_heads(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  Dims dim("mix_heads");
  dim(x, "x(B,H,N,M)")(weight, "weight(H,H)")(bias, "bias(H)");
  const int64_t B = dim['B'], H = dim['H'], area = dim['N'] * dim['M'];
  Tensor y = like(x);
  for_float("mix_heads", x.dtype(), [&]<class T>() {
    rows(B * H, area,
         Forward<T>{H, area, x.data<T>(), weight.data<T>(), bias.data<T>(), y.mutable_data<T>()});
  });
  record("mix_heads", {x, weight, bias}, y,
         [B, H, area, x, weight, gx = x.gradient(), gw = weight.gradient(),
          gb = bias.gradient()](const Gradient& gy) {
           for_float("mix_heads", x.dtype(), [&]<class T>() {
             const T* dy = gy.read<T>();
             if (const auto dx = gx.target<T>())
               rows(B * H, area, Backward<T>{H, area, dy, weight.data<T>(), dx});
             const auto dw = gw.target<T>(), db = gb.target<T>();
             if (dw || db)
               rows(H * (H + 1), B * area, WeightBackward<T>{B, H, area, x.data<T>(), dy, dw, db});
           });
         });
  return y;
}

namespace {

Tensor composed(const Inputs& in) {  // heads last, and a product
  const Tensor last = permute_axes(in[0], {0, 2, 3, 1});
  const Tensor rows = last.reshape({last.count() / last.size(3), last.size(3)});
  const Tensor y = add(matmul(rows, in[1], false, true), in[2]);
  return permute_axes(y.reshape(last.shape()), {0, 3, 1, 2});
}

TESSERA_CASES(OpCase{"mix_heads",
                     {"2x3x5x4 3x3 3", "1x1x1x1 1x1 1", "65537x2x1x1 2x2 2"},
                     [](const Inputs& in) { return mix_heads(in[0], in[1], in[2]); },
                     composed});

}  // namespace
}  // namespace tessera
