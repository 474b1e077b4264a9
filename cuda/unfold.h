// The columns of convolution, X[(c,u,v), (i,j)] = the pixel that weight[.,c,u,v] meets at output (i,j), as
// programs over elements: written from an image, and added back into one. They run on the host too, where
// they are tested.
#pragma once

#include "engine/base/portable.h"
#include "engine/kernels/conv.h"

namespace tessera::cuda {

// Plain numbers of the shape, for a kernel.
struct ConvSizes {
  int64_t C, H, W, h, w, stride, padding, out_height, out_width;

  explicit ConvSizes(const ConvShape& s)
      : C(s.C),
        H(s.H),
        W(s.W),
        h(s.h),
        w(s.w),
        stride(s.stride),
        padding(s.padding),
        out_height(s.out_height()),
        out_width(s.out_width()) {}
  TESSERA_FN int64_t taps() const { return C * h * w; }
  TESSERA_FN int64_t area() const { return out_height * out_width; }
};

// columns(n, taps, area) from images(n, C, H, W), an element of the columns at a time.
template <class T>
struct Unfold {
  ConvSizes s;
  const T* images;
  T* columns;
  TESSERA_FN void operator()(int64_t at) const {
    const int64_t j = at % s.out_width, i = at / s.out_width % s.out_height;
    const int64_t tap = at / s.area() % s.taps(), image = at / (s.area() * s.taps());
    const int64_t v = tap % s.w, u = tap / s.w % s.h, c = tap / (s.w * s.h);
    const int64_t row = i * s.stride + u - s.padding, column = j * s.stride + v - s.padding;
    const bool inside = row >= 0 && row < s.H && column >= 0 && column < s.W;
    columns[at] = inside ? images[((image * s.C + c) * s.H + row) * s.W + column] : T(0);
  }
};

// images = the sum of what `columns` hold of each pixel + beta * images, a pixel at a time.
template <class T>
struct Fold {
  ConvSizes s;
  const T* columns;
  T* images;
  T beta;
  TESSERA_FN void operator()(int64_t at) const {
    const int64_t column = at % s.W, row = at / s.W % s.H, c = at / (s.W * s.H) % s.C;
    const int64_t image = at / (s.W * s.H * s.C);
    T sum = 0;
    for (int64_t u = 0; u < s.h; ++u) {
      const int64_t down = row + s.padding - u;
      if (down < 0 || down % s.stride != 0 || down / s.stride >= s.out_height) continue;
      for (int64_t v = 0; v < s.w; ++v) {
        const int64_t across = column + s.padding - v;
        if (across < 0 || across % s.stride != 0 || across / s.stride >= s.out_width) continue;
        const int64_t tap = (c * s.h + u) * s.w + v;
        sum +=
            columns[(image * s.taps() + tap) * s.area() + down / s.stride * s.out_width + across / s.stride];
      }
    }
    images[at] = beta == T(0) ? sum : images[at] + sum;
  }
};

}  // namespace tessera::cuda
