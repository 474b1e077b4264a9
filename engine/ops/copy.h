// Copies that several ops' programs are made of. Where they go may be a gradient, which is then added to.
#pragma once

#include "engine/base/portable.h"
#include "engine/kernels/rows.h"
#include "engine/tensor/tensor.h"

namespace tessera {

template <class T>
struct CopyElements {
  const T* from;
  GradTarget<T> to;
  TESSERA_FN void operator()(int64_t i) const { to.put(i, from[i]); }
};

// dL/dx += dL/dy, without a copy where it is the first to come: what a closure does last, since dL/dy is gone
// after it.
template <class T>
void pass_on(const Gradient& gy, const Gradient& gx) {
  if (!gx || gy.give_to(gx)) return;
  elements(gx.shape().count(), CopyElements<T>{gy.read<T>(), gx.target<T>()});
}

// Rows of `length` elements, each side's rows at a stride of its own.
template <class T>
struct CopyRows {
  int64_t length, from_stride, to_stride;
  const T* from;
  GradTarget<T> to;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    row.each(length, [=, this](int64_t j) { to.put(i * to_stride + j, from[i * from_stride + j]); });
  }
};

}  // namespace tessera
