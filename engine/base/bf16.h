// bfloat16: the upper half of a float, with all of its exponent and 7 bits of its mantissa. Numbers are
// stored in it and computed with as floats: it turns into one by itself, and is only made where that is said.
#pragma once

#include <bit>
#include <cstdint>

#include "engine/base/portable.h"

namespace tessera {

// To nearest, ties to even; NaN stays NaN.
TESSERA_INLINE uint16_t bf16_bits(float x) {
#ifdef __CUDA_ARCH__
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#else
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return uint16_t(bits >> 16 | 0x40u);
  return uint16_t((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
#endif
}

struct bf16 {
  uint16_t bits;

  bf16() = default;
  TESSERA_INLINE explicit bf16(float x) : bits(bf16_bits(x)) {}
  TESSERA_INLINE bf16& operator=(float x) {
    bits = bf16_bits(x);
    return *this;
  }
  TESSERA_INLINE operator float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }
};

namespace detail {
template <class T>
struct Wide {
  using type = T;
};
template <>
struct Wide<bf16> {
  using type = float;
};
}  // namespace detail

// What numbers stored as T are computed in: float for bf16, and otherwise T.
template <class T>
using Wide = typename detail::Wide<T>::type;

}  // namespace tessera
