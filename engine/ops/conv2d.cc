// conv2d: y[b,o,i,j] = bias[o] + sum_{c,u,v} weight[o,c,u,v] x[b,c, i stride + u - padding, j stride + v -
// padding], x zero outside. dx and dweight are the transposed sums (kernels/conv.h), dbias[o] = sum_{b,i,j}
// dy[b,o,i,j].
#include "engine/kernels/channels.h"
#include "engine/kernels/conv.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

template <class T>
struct BiasGradient {
  const T* dy;
  GradTarget<T> db;
  TESSERA_FN void operator()(const Channel& channel) const {
    const T sum = channel.sum([=, this](int64_t i) { return dy[i]; });
    channel.once([=, this] { db.put(channel.c, sum); });
  }
};

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride, int64_t padding) {
  Dims dim("conv2d");
  dim(x, "x(B,C,H,W)")(weight, "weight(O,C,h,w)");
  if (bias) dim(bias, "bias(O)");
  const ConvShape shape{dim['B'], dim['C'], dim['H'], dim['W'], dim['O'],
                        dim['h'], dim['w'], stride,   padding};
  TESSERA_CHECK(stride >= 1 && padding >= 0, "conv2d: stride ", stride, " must be at least 1 and padding ",
                padding, " at least 0");
  TESSERA_CHECK(x.count() > 0 && weight.count() > 0, "conv2d: x", x.shape(), " or weight", weight.shape(),
                " is empty");
  TESSERA_CHECK(shape.h <= shape.H + 2 * padding && shape.w <= shape.W + 2 * padding,
                "conv2d: the kernel of weight", weight.shape(), " is larger than x", x.shape(),
                " with padding ", padding);
  Tensor y({shape.B, shape.O, shape.out_height(), shape.out_width()}, x.dtype());
  for_float("conv2d", x.dtype(), [&]<class T>() {
    conv_forward(shape, x.data<T>(), weight.data<T>(), bias ? bias.data<T>() : nullptr, y.mutable_data<T>());
  });
  record("conv2d", {x, weight, bias}, y,
         [shape, x, weight, gx = x.gradient(), gw = weight.gradient(),
          gb = bias.gradient()](const Gradient& gy) {
           for_float("conv2d", x.dtype(), [&]<class T>() {
             const T* dy = gy.read<T>();
             if (const auto dx = gx.target<T>())
               conv_data_gradient(shape, weight.data<T>(), dy, dx.data, dx.beta);
             if (const auto dw = gw.target<T>())
               conv_weight_gradient(shape, x.data<T>(), dy, dw.data, dw.beta);
             if (const auto db = gb.target<T>())
               channels(shape.B, shape.O, shape.out_area(), BiasGradient<T>{dy, db});
           });
         });
  return y;
}

namespace {

// The columns of all images, (C h w, B H' W'), by index; then one matrix product.
Tensor composed(const Inputs& in, int64_t stride, int64_t padding) {
  const Tensor &x = in[0], &weight = in[1];
  const int64_t B = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3);
  const int64_t O = weight.size(0), h = weight.size(2), w = weight.size(3);
  const int64_t height = window_count(H, h, stride, padding), width = window_count(W, w, stride, padding);
  std::vector<int64_t> index;
  for (int64_t c = 0; c < C; ++c)
    for (int64_t u = 0; u < h; ++u)
      for (int64_t v = 0; v < w; ++v)
        for (int64_t b = 0; b < B; ++b)
          for (int64_t i = 0; i < height; ++i)
            for (int64_t j = 0; j < width; ++j) {
              const int64_t row = i * stride + u - padding, column = j * stride + v - padding;
              const bool inside = row >= 0 && row < H && column >= 0 && column < W;
              index.push_back(inside ? ((b * C + c) * H + row) * W + column : -1);
            }
  const Tensor columns = take(x, index, {C * h * w, B * height * width});
  const Tensor product = matmul(weight.reshape({O, C * h * w}), columns).reshape({O, B, height, width});
  const Tensor y = permute_axes(product, {1, 0, 2, 3});
  return in.size() > 2 ? add(y, in[2].reshape({O, 1, 1})) : y;
}

OpCase convolution(const char* name, int64_t stride, int64_t padding, std::vector<const char*> shapes) {
  return {name, std::move(shapes),
          [=](const Inputs& in) {
            return conv2d(in[0], in[1], in.size() > 2 ? in[2] : Tensor(), stride, padding);
          },
          [=](const Inputs& in) { return composed(in, stride, padding); }};
}

TESSERA_CASES(convolution("conv2d(1,0)", 1, 0,
                          {"2x3x5x7 4x3x1x1 4", "1x1x1x1 1x1x1x1 1", "3x5x7x6 2x5x3x2",
                           "1x1x257x258 1x1x1x3 1"}));
TESSERA_CASES(convolution("conv2d(1,1)", 1, 1,
                          {"2x3x8x8 16x3x3x3 16", "2x17x9x11 19x17x3x3 19", "1x16x1x2 3x16x3x3"}));
TESSERA_CASES(convolution("conv2d(2,1)", 2, 1,
                          {"2x3x9x7 5x3x3x3 5", "1x32x8x8 16x32x3x3 16", "2x6x5x4 7x6x1x1"}));
TESSERA_CASES(convolution("conv2d(2,3)", 2, 3, {"2x3x15x13 8x3x7x7 8", "1x1x1x1 1x1x7x7 1"}));
TESSERA_CASES(convolution("conv2d(4,0)", 4, 0, {"2x3x16x12 6x3x4x4 6", "3x1x7x6 2x1x4x4"}));

}  // namespace
}  // namespace tessera
