#include "engine/base/vec_math.h"

#include <doctest/doctest.h>

#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>

using namespace tessera;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Runs f over a block as the engine's loops do, so that the vector code is what is tested.
template <class F>
std::vector<float> mapped(const std::vector<float>& x, F f) {
  std::vector<float> y(x.size());
#pragma omp simd
  for (size_t i = 0; i < x.size(); ++i) y[i] = f(x[i]);
  return y;
}

std::vector<float> sweep(double from, double to, int n) {
  std::vector<float> x(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) x[size_t(i)] = float(from + (to - from) * i / (n - 1));
  return x;
}

}  // namespace

TEST_CASE("vexp in float is within 2 units in the last place") {
  for (const auto& x : {sweep(-87, 88, 3000001), sweep(-1, 1, 1000001), sweep(-1e-3, 1e-3, 100001)}) {
    const auto y = mapped(x, [](float v) { return vexp(v); });
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp(double(x[i]));
      const double ulp = std::ldexp(1.0, std::ilogb(exact) - 23);
      worst = std::max(worst, std::abs(y[i] - exact) / ulp);
    }
    CHECK(worst <= 2.0);
  }
}

TEST_CASE("vexp at the ends and beyond") {
  const std::vector<float> x{-kInf,   -FLT_MAX, -1000, -104, -88,   89,     200,
                             FLT_MAX, kInf,     kNan,  0.0f, -0.0f, FLT_MIN};
  const auto y = mapped(x, [](float v) { return vexp(v); });
  for (int i = 0; i < 5; ++i) CHECK(y[size_t(i)] == 0.0f);
  for (int i = 5; i < 9; ++i) CHECK(y[size_t(i)] == kInf);
  CHECK(std::isnan(y[9]));
  for (int i = 10; i < 13; ++i) CHECK(y[size_t(i)] == 1.0f);
  for (size_t i = 0; i < x.size(); ++i) {  // the scalar code does the same
    const float scalar = vexp(x[i]);
    CHECK((scalar == y[i] || (std::isnan(scalar) && std::isnan(y[i]))));
  }
  // Between the smallest normal result and 0 nothing is far off, and nothing wraps around.
  for (float v : sweep(-88, -87, 100001)) CHECK(std::abs(vexp(v) - std::exp(double(v))) < 1e-38);
}

TEST_CASE("verf in float") {
  double worst = 0, worst_gelu = 0;
  for (const auto& x : {sweep(-6, 6, 3000001), sweep(-1e-2, 1e-2, 100001)}) {
    const auto y = mapped(x, [](float v) { return verf(v); });
    for (size_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, std::abs(y[i] - std::erf(double(x[i]))));
      CHECK_MESSAGE(std::abs(y[i]) <= 1.0f, x[i]);
    }
    const auto gelu = mapped(x, [](float v) { return 0.5f * v * (1.0f + verf(v * 0.70710678f)); });
    for (size_t i = 0; i < x.size(); ++i)
      worst_gelu =
          std::max(worst_gelu, std::abs(gelu[i] - 0.5 * x[i] * (1 + std::erf(x[i] * std::sqrt(0.5)))));
  }
  CHECK(worst <= 3.5e-7);
  CHECK(worst_gelu <=
        1.2e-6);  // |x| / 2 times the error of erf, and rounding, where erf is not yet 1 (|x| < 5.45)
  const auto y = mapped({0.0f, -0.0f, kInf, -kInf, kNan, 1e-30f}, [](float v) { return verf(v); });
  CHECK(y[0] == 0.0f);
  CHECK(y[1] == 0.0f);
  CHECK(y[2] == 1.0f);
  CHECK(y[3] == -1.0f);
  CHECK(std::isnan(y[4]));
  CHECK(y[5] == doctest::Approx(1.1283792e-30f).epsilon(1e-6).scale(0));
}

TEST_CASE("double variants are std's") {
  CHECK(vexp(1.5) == doctest::Approx(std::exp(1.5)).epsilon(1e-15));
  CHECK(verf(0.5) == doctest::Approx(std::erf(0.5)).epsilon(1e-15));
  CHECK(std::isnan(vexp(std::nan(""))));
}
