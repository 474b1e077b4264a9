// GELU and its slope for one number: one formula for the op and for the linear layer's epilogue.
#pragma once

#include "engine/base/vec_math.h"

namespace tessera {

template <class T>
TESSERA_INLINE T gelu_value(T x) {
  return T(0.5) * x * (T(1) + verf(x * T(0.70710678118654752)));
}

// d/dx x Phi(x) = Phi(x) + x phi(x)
template <class T>
TESSERA_INLINE T gelu_slope(T x) {
  const T density = T(0.39894228040143268) * vexp(T(-0.5) * x * x);
  return T(0.5) * (T(1) + verf(x * T(0.70710678118654752))) + x * density;
}

}  // namespace tessera
