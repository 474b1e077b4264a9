// depthwise_conv: each channel c of a grid of tokens has m = O / C kernels of its own,
//   y[b,i,j,o] = bias[o] + sum_{u,v} weight[o,0,u,v] x[b, i stride + u - padding, j stride + v - padding, c]
// with c = floor(o / m), x zero outside: a convolution in C groups. dx sums over the windows that a point
// lies in, dweight and dbias over all windows.
#include "engine/kernels/columns.h"
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"
#include "engine/ops/windows.h"

namespace tessera {
namespace {

template <class T>
struct Forward {
  GridWindows windows;
  int64_t C, m;
  const T *x, *weight, *bias;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t n) const {  // one window
    const int64_t taps = windows.taps();
    T* const out = y + n * C * m;
    row.each(C, [=, this](int64_t c) {
      for (int64_t o = c * m; o < (c + 1) * m; ++o) out[o] = bias ? bias[o] : T(0);
    });
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t point = windows.point(n, t);
      if (point < 0) continue;
      row.each(C, [=, this](int64_t c) {
        for (int64_t o = c * m; o < (c + 1) * m; ++o) out[o] += weight[o * taps + t] * x[point * C + c];
      });
    }
  }
};

template <class T>
struct DataGradient {
  GridWindows windows;
  int64_t C, m;
  const T *weight, *dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t n) const {  // one point
    const int64_t taps = windows.taps();
    row.each(C, [=, this](int64_t c) { dx.put(n * C + c, T(0)); });
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t window = windows.window(n, t);
      if (window < 0) continue;
      row.each(C, [=, this](int64_t c) {
        for (int64_t o = c * m; o < (c + 1) * m; ++o)
          dx.data[n * C + c] += weight[o * taps + t] * dy[window * C * m + o];
      });
    }
  }
};

// What window n adds to tap t of each channel's kernel number r.
template <class T>
struct WeightTerm {
  GridWindows windows;
  int64_t C, m, t, r;
  const T *x, *dy;
  TESSERA_FN std::array<T, 1> operator()(int64_t n, int64_t c) const {
    const int64_t point = windows.point(n, t);
    return {point < 0 ? T(0) : dy[(n * C + c) * m + r] * x[point * C + c]};
  }
};

template <class T>
struct BiasTerm {
  int64_t O;
  const T* dy;
  TESSERA_FN std::array<T, 1> operator()(int64_t n, int64_t o) const { return {dy[n * O + o]}; }
};

// dweight(C,m,taps) from sums(taps,m,C).
template <class T>
struct PutByKernel {
  int64_t C, m, taps;
  const T* sums;
  GradTarget<T> dweight;
  TESSERA_FN void operator()(int64_t i) const {
    const int64_t t = i % taps, o = i / taps;
    dweight.put(i, sums[(t * m + o % m) * C + o / m]);
  }
};

}  // namespace

Tensor depthwise_conv(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride,
                      int64_t padding) {
  Dims dim("depthwise_conv");
  dim(x, "x(B,H,W,C)")(weight, "weight(O,1,h,w)");
  if (bias) dim(bias, "bias(O)");
  const int64_t B = dim['B'], C = dim['C'], O = dim['O'];
  TESSERA_CHECK(C > 0 && O % C == 0, "depthwise_conv: weight", weight.shape(), " has ", O,
                " kernels, which is no multiple of the ", C, " channels of x", x.shape());
  const GridWindows windows{{dim['H'], dim['h'], stride, padding}, {dim['W'], dim['w'], stride, padding}};
  windows.check("depthwise_conv");
  const int64_t N = B * windows.count(), taps = windows.taps(), m = O / C;
  Tensor y({B, windows.down.count(), windows.across.count(), O}, x.dtype());
  for_float("depthwise_conv", x.dtype(), [&]<class T>() {
    rows(N, O * taps,
         Forward<T>{windows, C, m, x.data<T>(), weight.data<T>(), bias ? bias.data<T>() : nullptr,
                    y.mutable_data<T>()});
  });
  record("depthwise_conv", {x, weight, bias}, y,
         [=, gx = x.gradient(), gw = weight.gradient(), gb = bias.gradient()](const Gradient& gy) {
           for_float("depthwise_conv", x.dtype(), [&]<class T>() {
             const T* dy = gy.read<T>();
             if (const auto dx = gx.target<T>())
               rows(B * windows.points(), O * taps, DataGradient<T>{windows, C, m, weight.data<T>(), dy, dx});
             if (const auto dw = gw.target<T>()) {
               Tensor by_tap({taps, m, C}, x.dtype());
               T* const sums = by_tap.mutable_data<T>();
               for (int64_t i = 0; i < taps * m; ++i)
                 column_sums<T, 1>(N, C, {sums + i * C}, {T(0)},
                                   WeightTerm<T>{windows, C, m, i / m, i % m, x.data<T>(), dy});
               elements(O * taps, PutByKernel<T>{C, m, taps, sums, dw});
             }
             if (const auto db = gb.target<T>())
               column_sums<T, 1>(N, O, {db.data}, {db.beta}, BiasTerm<T>{O, dy});
           });
         });
  return y;
}

namespace {

// As a convolution whose kernels are zero but for their own channel.
Tensor composed(const Inputs& in, int64_t stride, int64_t padding) {
  const int64_t C = in[0].size(3), O = in[1].size(0), taps = in[1].size(2) * in[1].size(3);
  std::vector<int64_t> index;
  for (int64_t o = 0; o < O; ++o)
    for (int64_t c = 0; c < C; ++c)
      for (int64_t t = 0; t < taps; ++t) index.push_back(o / (O / C) == c ? o * taps + t : -1);
  const Tensor weight = take(in[1], index, {O, C, in[1].size(2), in[1].size(3)});
  const Tensor y =
      conv2d(permute_axes(in[0], {0, 3, 1, 2}), weight, in.size() > 2 ? in[2] : Tensor(), stride, padding);
  return permute_axes(y, {0, 2, 3, 1});
}

OpCase convolution(const char* name, int64_t stride, int64_t padding, std::vector<const char*> shapes) {
  return {name, std::move(shapes),
          [=](const Inputs& in) {
            return depthwise_conv(in[0], in[1], in.size() > 2 ? in[2] : Tensor(), stride, padding);
          },
          [=](const Inputs& in) { return composed(in, stride, padding); }};
}

TESSERA_CASES(convolution("depthwise_conv(2,1)", 2, 1,
                          {"2x8x8x3 6x1x3x3 6", "3x5x7x2 2x1x3x3 2", "1x1x1x1 1x1x3x3 1",
                           "1x4x3x17 51x1x3x3"}));
TESSERA_CASES(convolution("depthwise_conv(1,0)", 1, 0, {"2x4x5x3 3x1x2x3 3", "1x257x256x1 1x1x1x1 1"}));

}  // namespace
}  // namespace tessera
