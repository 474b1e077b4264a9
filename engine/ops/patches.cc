// patches: images(B,C,H,W) cut into P x P squares, each a row of C*P*P numbers in the order of a
// convolution's weight (c, row, column): a patch embedding is then a linear layer.
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// Calls f(offset in the rows, offset in the images) for each run of P neighbours.
template <class F>
void each_run(int64_t B, int64_t C, int64_t H, int64_t W, int64_t P, F f) {
  const int64_t rows_of_image = H / P, columns_of_image = W / P;
  rows(B * rows_of_image, C * P * W, [=](const Row&, int64_t i) {
    const int64_t b = i / rows_of_image, y = i % rows_of_image;
    for (int64_t x = 0; x < columns_of_image; ++x)
      for (int64_t c = 0; c < C; ++c)
        for (int64_t r = 0; r < P; ++r)
          f((((i * columns_of_image + x) * C + c) * P + r) * P, ((b * C + c) * H + y * P + r) * W + x * P);
  });
}

}  // namespace

Tensor patches(const Tensor& images, int64_t P) {
  Dims dim("patches");
  dim(images, "images(B,C,H,W)");
  const int64_t B = dim['B'], C = dim['C'], H = dim['H'], W = dim['W'];
  TESSERA_CHECK(P > 0 && H % P == 0 && W % P == 0, "patches: images", images.shape(),
                " cannot be cut into patches of ", P, " x ", P,
                "; choose a patch size that divides both sides");
  Tensor y({B, (H / P) * (W / P), C * P * P}, images.dtype());
  for_float("patches", images.dtype(), [&]<class T>() {
    each_run(B, C, H, W, P, [=, in = images.data<T>(), out = y.mutable_data<T>()](int64_t to, int64_t from) {
      for (int64_t j = 0; j < P; ++j) out[to + j] = in[from + j];
    });
  });
  record("patches", {images}, y, [=, gx = images.gradient()](const Gradient& gy) {
    for_float("patches", gx.dtype(), [&]<class T>() {
      each_run(B, C, H, W, P, [=, dx = gx.target<T>(), dy = gy.read<T>()](int64_t from, int64_t to) {
        for (int64_t j = 0; j < P; ++j) dx.put(to + j, dy[from + j]);
      });
    });
  });
  return y;
}

namespace {

Tensor composed(const Inputs& in) {  // (B,C,h,P,w,P) to (B,h,w,C,P,P)
  constexpr int64_t P = 2;
  const Shape s = in[0].shape();
  const Tensor cut = in[0].reshape({s[0], s[1], s[2] / P, P, s[3] / P, P});
  return permute_axes(cut, {0, 2, 4, 1, 3, 5}).reshape({s[0], s[2] / P * (s[3] / P), s[1] * P * P});
}

TESSERA_CASES(OpCase{"patches",
                     {"2x3x4x6", "1x1x2x2", "65537x1x2x2"},
                     [](const Inputs& in) { return patches(in[0], 2); },
                     composed});

}  // namespace
}  // namespace tessera
