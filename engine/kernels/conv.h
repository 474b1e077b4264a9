// Convolution of images, y = x * weight with zero padding:
//   y[b,o,i,j] = bias[o] + sum_{c,u,v} weight[o,c,u,v] x[b,c, i stride + u - padding, j stride + v -
//   padding].
// Letters: B batch, C channels, H x W image, O outputs, h x w kernel. Arrays are dense, last index fastest.
#pragma once

#include <compare>
#include <cstdint>

#include "engine/base/portable.h"

namespace tessera {

// Places that a window of `kernel` takes along an axis.
TESSERA_INLINE int64_t window_count(int64_t size, int64_t kernel, int64_t stride, int64_t padding) {
  return (size + 2 * padding - kernel) / stride + 1;
}

struct ConvShape {
  int64_t B, C, H, W, O, h, w, stride, padding;

  int64_t out_height() const { return window_count(H, h, stride, padding); }
  int64_t out_width() const { return window_count(W, w, stride, padding); }
  int64_t out_area() const { return out_height() * out_width(); }
  auto operator<=>(const ConvShape&) const = default;
};

// x(B,C,H,W), weight(O,C,h,w), bias(O) or null -> y(B,O,H',W'), overwritten.
template <class T>
void conv_forward(const ConvShape& shape, const T* x, const T* weight, const T* bias, T* y);

// dx(B,C,H,W) = gradient + beta * dx. Here and below beta is 0 (the array is not read) or 1.
template <class T>
void conv_data_gradient(const ConvShape& shape, const T* weight, const T* dy, T* dx, T beta);

// dweight(O,C,h,w) = gradient + beta * dweight.
template <class T>
void conv_weight_gradient(const ConvShape& shape, const T* x, const T* dy, T* dweight, T beta);

}  // namespace tessera
