// Convolution as a matrix product. The columns of an image, X[(c,u,v), (i,j)] = the pixel that
// weight[.,c,u,v] meets at output (i,j), are unfolded for a few output rows at a time, so that they stay in
// cache:
//   Y = W X;   dX = W^T dY, folded back into the image;   dW = sum over images of dY X^T.
#include <algorithm>
#include <memory>

#include "engine/base/parallel.h"
#include "engine/kernels/backends.h"

namespace tessera {
namespace {

// A run of channels and of output rows.
struct Part {
  int64_t c0, c1, i0, i1;
};

// Calls f(column, image, lo, hi) for each (c,u,v) and output row of the part: `column` is the place of the
// row's first element in the columns, `image` that of the pixel it meets, which lies inside the image for lo
// <= j < hi only, at image + j * stride.
template <class F>
void each_span(const ConvShape& s, const Part& part, F f) {
  const int64_t width = s.out_width();
  int64_t column = 0;
  for (int64_t c = part.c0; c < part.c1; ++c)
    for (int64_t u = 0; u < s.h; ++u)
      for (int64_t v = 0; v < s.w; ++v) {
        const int64_t left = v - s.padding;  // of the pixel that j = 0 meets
        const int64_t lo = std::min(width, std::max<int64_t>(0, (s.stride - 1 - left) / s.stride));
        const int64_t hi = left >= s.W ? lo : std::clamp((s.W - 1 - left) / s.stride + 1, lo, width);
        for (int64_t i = part.i0; i < part.i1; ++i, column += width) {
          const int64_t row = i * s.stride + u - s.padding;
          const bool inside = row >= 0 && row < s.H;
          f(column, (c * s.H + row) * s.W + left, inside ? lo : 0, inside ? hi : 0);
        }
      }
}

template <class T>
void unfold(const ConvShape& s, const Part& part, const T* image, T* columns) {
  const int64_t width = s.out_width(), stride = s.stride;
  each_span(s, part, [=](int64_t column, int64_t pixel, int64_t lo, int64_t hi) {
    T* const to = columns + column;
    std::fill(to, to + lo, T(0));
    for (int64_t j = lo; j < hi; ++j) to[j] = image[pixel + j * stride];
    std::fill(to + hi, to + width, T(0));
  });
}

template <class T>
void fold_add(const ConvShape& s, const Part& part, const T* columns, T* image) {
  each_span(s, part, [=, stride = s.stride](int64_t column, int64_t pixel, int64_t lo, int64_t hi) {
    for (int64_t j = lo; j < hi; ++j) image[pixel + j * stride] += columns[column + j];
  });
}

// Calls f(first output row, last, columns) with room for the columns of `channels` channels.
template <class T, class F>
void each_chunk(const ConvShape& s, int64_t channels, F f) {
  constexpr int64_t kBytes = 512 << 10;  // half of a usual L2
  const int64_t row = channels * s.h * s.w * s.out_width(), height = s.out_height();
  const int64_t step = std::clamp<int64_t>(kBytes / int64_t(sizeof(T)) / row, 1, height);
  const auto columns = std::make_unique_for_overwrite<T[]>(size_t(step * row));
  for (int64_t i = 0; i < height; i += step) f(i, std::min(height, i + step), columns.get());
}

// Calls f(b) for each image, the images shared out among the threads.
template <class F>
void each_image(const ConvShape& s, F f) {
  parallel_for(s.B, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) f(b);
  });
}

template <class T>
void forward(const ConvShape& s, const T* x, const T* weight, const T* bias, T* y) {
  const int64_t area = s.out_area(), width = s.out_width(), taps = s.C * s.h * s.w;
  each_image(s, [&](int64_t b) {
    T* const out = y + b * s.O * area;
    for (int64_t o = 0; bias && o < s.O; ++o) std::fill_n(out + o * area, area, bias[o]);
    each_chunk<T>(s, s.C, [&](int64_t i0, int64_t i1, T* columns) {
      unfold(s, {0, s.C, i0, i1}, x + b * s.C * s.H * s.W, columns);
      gemm(Gemm<T>{.m = s.O,
                   .n = (i1 - i0) * width,
                   .k = taps,
                   .a = weight,
                   .b = columns,
                   .c = out + i0 * width,
                   .ldc = area,
                   .beta = bias ? T(1) : T(0)});
    });
  });
}

template <class T>
void data_gradient(const ConvShape& s, const T* weight, const T* dy, T* dx, T beta) {
  const int64_t area = s.out_area(), width = s.out_width(), taps = s.C * s.h * s.w;
  each_image(s, [&](int64_t b) {
    T* const image = dx + b * s.C * s.H * s.W;
    if (beta == T(0)) std::fill_n(image, s.C * s.H * s.W, T(0));
    each_chunk<T>(s, s.C, [&](int64_t i0, int64_t i1, T* columns) {
      gemm(Gemm<T>{.transpose_a = true,
                   .m = taps,
                   .n = (i1 - i0) * width,
                   .k = s.O,
                   .a = weight,
                   .b = dy + b * s.O * area + i0 * width,
                   .c = columns,
                   .ldb = area});
      fold_add(s, {0, s.C, i0, i1}, columns, image);
    });
  });
}

// The threads share out blocks of channels, whose size depends on the shape alone: every sum has one order,
// whatever the number of threads.
template <class T>
void weight_gradient(const ConvShape& s, const T* x, const T* dy, T* dweight, T beta) {
  const int64_t area = s.out_area(), width = s.out_width(), taps = s.h * s.w;
  const int64_t block = std::max<int64_t>(1, 128 / taps);
  parallel_for((s.C + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c0 = begin * block; c0 < std::min(s.C, end * block); c0 += block) {
      const int64_t c1 = std::min(s.C, c0 + block);
      each_chunk<T>(s, c1 - c0, [&](int64_t i0, int64_t i1, T* columns) {
        for (int64_t b = 0; b < s.B; ++b) {
          unfold(s, {c0, c1, i0, i1}, x + b * s.C * s.H * s.W, columns);
          gemm(Gemm<T>{.transpose_b = true,
                       .m = s.O,
                       .n = (c1 - c0) * taps,
                       .k = (i1 - i0) * width,
                       .a = dy + b * s.O * area + i0 * width,
                       .b = columns,
                       .c = dweight + c0 * taps,
                       .lda = area,
                       .ldc = s.C * taps,
                       .beta = b + i0 > 0 ? T(1) : beta});
        }
      });
    }
  });
}

}  // namespace

template <>
void cpu::conv_forward(const ConvShape& s, const double* x, const double* weight, const double* bias,
                       double* y) {
  forward(s, x, weight, bias, y);
}
template <>
void cpu::conv_data_gradient(const ConvShape& s, const double* weight, const double* dy, double* dx,
                             double beta) {
  data_gradient(s, weight, dy, dx, beta);
}
template <>
void cpu::conv_weight_gradient(const ConvShape& s, const double* x, const double* dy, double* dweight,
                               double beta) {
  weight_gradient(s, x, dy, dweight, beta);
}

#if !TESSERA_ONEDNN
template <>
void cpu::conv_forward(const ConvShape& s, const float* x, const float* weight, const float* bias, float* y) {
  forward(s, x, weight, bias, y);
}
template <>
void cpu::conv_data_gradient(const ConvShape& s, const float* weight, const float* dy, float* dx,
                             float beta) {
  data_gradient(s, weight, dy, dx, beta);
}
template <>
void cpu::conv_weight_gradient(const ConvShape& s, const float* x, const float* dy, float* dweight,
                               float beta) {
  weight_gradient(s, x, dy, dweight, beta);
}
#endif

}  // namespace tessera
