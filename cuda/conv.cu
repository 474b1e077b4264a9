// Convolution as matrix products over columns (cuda/unfold.h), some images at a time:
//   Y = W X;   dX = W^T dY, folded back;   dW = sum over images of dY X^T, which are added in order.
#include <algorithm>

#include "cuda/programs.cuh"
#include "cuda/unfold.h"
#include "engine/kernels/backends.h"
#include "engine/tensor/tensor.h"

namespace tessera::cuda {
namespace {

// Images whose columns, or whatever takes `elements` numbers an image, fit in some memory.
template <class T>
int64_t images_at_once(const ConvShape& s, int64_t elements) {
  constexpr int64_t kBytes = int64_t{256} << 20;
  return std::clamp<int64_t>(kBytes / (elements * int64_t(sizeof(T))), 1, s.B);
}

// Calls f(first image, how many).
template <class F>
void each_group(const ConvShape& s, int64_t at_once, F f) {
  for (int64_t first = 0; first < s.B; first += at_once) f(first, std::min(at_once, s.B - first));
}

template <class T>
struct Bias {
  int64_t O, area;
  const T* bias;
  T* y;
  TESSERA_FN void operator()(int64_t i) const { y[i] = bias[i / area % O]; }
};

// dW of each image of a group, as the terms of its sum.
template <class T>
struct WeightTerms {
  int64_t count;
  const T* parts;
  TESSERA_FN std::array<T, 1> operator()(int64_t image, int64_t i) const {
    return {parts[image * count + i]};
  }
};

}  // namespace

template <class T>
void conv_forward(const ConvShape& s, const T* x, const T* weight, const T* bias, T* y) {
  const int64_t area = s.out_area(), taps = s.C * s.h * s.w, at_once = images_at_once<T>(s, taps * area);
  Tensor columns({at_once, taps, area}, dtype_of<T>());
  T* const unfolded = columns.mutable_data<T>();
  if (bias) elements(s.B * s.O * area, Bias<T>{s.O, area, bias, y});
  each_group(s, at_once, [&](int64_t first, int64_t n) {
    elements(n * taps * area, Unfold<T>{ConvSizes(s), x + first * s.C * s.H * s.W, unfolded});
    cuda::gemm(Gemm<T>{.m = s.O,
                       .n = area,
                       .k = taps,
                       .a = weight,
                       .b = unfolded,
                       .c = y + first * s.O * area,
                       .lda = taps,
                       .ldb = area,
                       .ldc = area,
                       .beta = bias ? T(1) : T(0)},
               GemmBatch{n, 0, taps * area, s.O * area});
  });
}

template <class T>
void conv_data_gradient(const ConvShape& s, const T* weight, const T* dy, T* dx, T beta) {
  const int64_t area = s.out_area(), taps = s.C * s.h * s.w, at_once = images_at_once<T>(s, taps * area);
  Tensor columns({at_once, taps, area}, dtype_of<T>());
  T* const unfolded = columns.mutable_data<T>();
  each_group(s, at_once, [&](int64_t first, int64_t n) {
    cuda::gemm(Gemm<T>{.transpose_a = true,
                       .m = taps,
                       .n = area,
                       .k = s.O,
                       .a = weight,
                       .b = dy + first * s.O * area,
                       .c = unfolded,
                       .lda = taps,
                       .ldb = area,
                       .ldc = area},
               GemmBatch{n, 0, s.O * area, taps * area});
    elements(n * s.C * s.H * s.W, Fold<T>{ConvSizes(s), unfolded, dx + first * s.C * s.H * s.W, beta});
  });
}

template <class T>
void conv_weight_gradient(const ConvShape& s, const T* x, const T* dy, T* dweight, T beta) {
  const int64_t area = s.out_area(), taps = s.C * s.h * s.w, count = s.O * taps;
  const int64_t at_once = images_at_once<T>(s, taps * area + count);
  Tensor columns({at_once, taps, area}, dtype_of<T>()), parts({at_once, s.O, taps}, dtype_of<T>());
  T *const unfolded = columns.mutable_data<T>(), *const of_image = parts.mutable_data<T>();
  Tensor sums({block_count(at_once), count}, dtype_of<T>());
  each_group(s, at_once, [&](int64_t first, int64_t n) {
    elements(n * taps * area, Unfold<T>{ConvSizes(s), x + first * s.C * s.H * s.W, unfolded});
    cuda::gemm(Gemm<T>{.transpose_b = true,
                       .m = s.O,
                       .n = taps,
                       .k = area,
                       .a = dy + first * s.O * area,
                       .b = unfolded,
                       .c = of_image,
                       .lda = area,
                       .ldb = area,
                       .ldc = taps},
               GemmBatch{n, s.O * area, taps * area, count});
    column_sums<T, 1>(n, count, {dweight}, {first == 0 ? beta : T(1)}, sums.mutable_data<T>(),
                      WeightTerms<T>{count, of_image});
  });
}

#define TESSERA_INSTANTIATE(T)                                                    \
  template void conv_forward(const ConvShape&, const T*, const T*, const T*, T*); \
  template void conv_data_gradient(const ConvShape&, const T*, const T*, T*, T);  \
  template void conv_weight_gradient(const ConvShape&, const T*, const T*, T*, T);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::cuda
