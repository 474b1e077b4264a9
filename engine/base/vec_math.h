// exp and erf without branches, so that a plain loop under `#pragma omp simd` becomes vector code (std::exp
// and std::erf stay scalar calls unless -ffast-math is on, which we never want). The coefficients are minimax
// fits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine/base/portable.h"

namespace tessera {

namespace detail {

// The same text serves float with int32_t and a vector of floats with a vector of int32_t.
//
// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2) / 2. Adding 1.5 * 2^23 rounds to an integer and
// leaves it in the low bits of the sum. The clamps bound n to [-127, 128], whose exponent fields are those of
// 0 and of infinity; a comparison with NaN is false, so NaN passes through them.
template <class Float, class Int>
TESSERA_INLINE Float exp32(Float x) {
  const Float lowest = Float{} - 88.0f, highest = Float{} + 89.0f;
  x = lowest > x ? lowest : x;
  x = highest < x ? highest : x;
  const Float shifted = x * 1.44269504f + 12582912.0f;
  const Float n = shifted - 12582912.0f;
  const Float r =
      (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts: n times the first is exact
  Float p = r * 0.001381453517f + 0.008368745581f;
  p = p * r + 0.04166839089f;
  p = p * r + 0.1666652039f;
  p = p * r + 0.4999999343f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  Int exponent;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  exponent = (exponent << 23) + (127 << 23);
  Float power;
  std::memcpy(&power, &exponent, sizeof power);
  return p * power;
}

}  // namespace detail

// e^x to 2 units in the last place; 0 below -87.7, infinity above 88.4 (a little before FLT_MAX), NaN stays
// NaN. A card's own takes far fewer instructions, is right to some 2 + 1.2 |x| units, and ends where floats
// do.
TESSERA_INLINE float vexp(float x) {
#ifdef __CUDA_ARCH__
  return __expf(x);
#else
  return detail::exp32<float, int32_t>(x);
#endif
}
TESSERA_INLINE double vexp(double x) { return std::exp(x); }

// erf(x), absolute error below 3.5e-7: x times a polynomial in x^2, mapped to t in [-1, 1], where the
// coefficients fall off so that nothing cancels. Beyond the edge the line x * p(1) is above 1 and clamped.
// NaN stays NaN.
TESSERA_INLINE float verf(float x) {
  constexpr float kEdge = 3.85f * 3.85f;
  const float square = x * x;
  const float t = (square > kEdge ? kEdge : square) * (2.0f / kEdge) - 1.0f;
  float p = t * 0.00129584510335f - 0.00332146271058f;
  p = p * t + 0.00261701422416f;
  p = p * t - 0.00339702522573f;
  p = p * t + 0.0111125428509f;
  p = p * t - 0.0202093579198f;
  p = p * t + 0.0283061747718f;
  p = p * t - 0.0403979547828f;
  p = p * t + 0.0564134518132f;
  p = p * t - 0.073317457928f;
  p = p * t + 0.0908180493154f;
  p = p * t - 0.1103742018f;
  p = p * t + 0.136211589616f;
  p = p * t - 0.183301762039f;
  p = p * t + 0.367284818539f;
  const float y = x * p;
  const float below = y < -1.0f ? -1.0f : y;
  return below > 1.0f ? 1.0f : below;
}
TESSERA_INLINE double verf(double x) { return std::erf(x); }

}  // namespace tessera
