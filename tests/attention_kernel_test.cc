#include "engine/kernels/attention.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "engine/base/parallel.h"
#include "engine/base/rng.h"
#include "tests/attention_reference.h"

using namespace tessera;
using testing::AttentionReference;

namespace {

constexpr AttentionShape kShapes[] = {{1, 1, 1, 1},    {2, 5, 3, 7},    {2, 65, 12, 16}, {3, 65, 3, 64},
                                      {1, 197, 3, 64}, {1, 577, 2, 32}, {2, 17, 2, 48},  {1, 33, 1, 100}};

template <class T>
struct KernelCase {
  explicit KernelCase(const AttentionShape& shape, uint32_t site = 0)
      : shape(shape), scale(T(1.3 / std::sqrt(double(shape.D)))) {
    const auto fill = [&](std::vector<T>& to, int64_t size, uint32_t step) {
      to.resize(size_t(size));
      for (size_t i = 0; i < to.size(); ++i) to[i] = T(Draw{7, Stream::test, step, site}.normal(i));
    };
    const int64_t tokens = shape.B * shape.N * shape.H * shape.D;
    fill(qkv, 3 * tokens, 0);
    fill(dout, tokens, 1);
    fill(before, 3 * tokens, 2);
    out.assign(size_t(tokens), std::numeric_limits<T>::quiet_NaN());
    lse.assign(size_t(shape.B * shape.H * shape.N), std::numeric_limits<T>::quiet_NaN());
    dqkv.assign(size_t(3 * tokens), std::numeric_limits<T>::quiet_NaN());
  }
  void forward() { attention_forward<T>(shape, qkv.data(), scale, out.data(), lse.data()); }
  void backward(T beta) {
    attention_backward<T>(shape, qkv.data(), scale, out.data(), lse.data(), dout.data(), dqkv.data(), beta);
  }
  AttentionReference reference() const { return {shape, double(scale), qkv, dout}; }

  AttentionShape shape;
  T scale;
  std::vector<T> qkv, out, lse, dout, dqkv, before;
};

// Largest difference; NaN where there is one.
template <class T>
double distance(const std::vector<T>& is, const std::vector<double>& should) {
  double worst = 0;
  for (size_t i = 0; i < is.size(); ++i) {
    const double d = std::abs(double(is[i]) - should[i]);
    if (!(d <= worst)) worst = d;
    if (std::isnan(d)) break;
  }
  return worst;
}

template <class T>
void check_against_reference(double tolerance) {
  for (const auto& shape : kShapes) {
    CAPTURE(shape.N);
    CAPTURE(shape.D);
    KernelCase<T> c(shape);
    AttentionReference reference = c.reference();
    c.forward();
    CHECK(distance(c.out, reference.out) <= tolerance);
    CHECK(distance(c.lse, reference.lse) <= tolerance);
    c.backward(0);  // over NaN
    CHECK(distance(c.dqkv, reference.dqkv) <= tolerance);
    c.dqkv = c.before;
    c.backward(1);
    for (size_t i = 0; i < reference.dqkv.size(); ++i) reference.dqkv[i] += double(c.before[i]);
    CHECK(distance(c.dqkv, reference.dqkv) <= tolerance);

    auto with_lse = c.out;
    attention_forward<T>(shape, c.qkv.data(), c.scale, c.out.data(), nullptr);
    CHECK(c.out == with_lse);
  }
}

}  // namespace

TEST_CASE("attention matches its definition, forward and backward") {
  check_against_reference<float>(1e-5);
  check_against_reference<double>(1e-13);
}

TEST_CASE("attention's gradient is the slope of its forward pass") {
  KernelCase<double> c({2, 19, 2, 7});
  const auto loss = [&] {
    c.forward();
    double sum = 0;
    for (size_t i = 0; i < c.out.size(); ++i) sum += c.out[i] * c.dout[i];
    return sum;
  };
  c.forward();
  c.backward(0);
  const double step = 1e-5;
  for (size_t i = 0; i < c.qkv.size(); i += 11) {
    const double kept = c.qkv[i];
    c.qkv[i] = kept + step;
    const double up = loss();
    c.qkv[i] = kept - step;
    const double down = loss();
    c.qkv[i] = kept;
    CHECK(c.dqkv[i] == doctest::Approx((up - down) / (2 * step)).epsilon(1e-7));
  }
}

TEST_CASE("attention with large scores neither overflows nor loses its sums") {
  KernelCase<float> c({1, 65, 2, 16});
  for (float& x : c.qkv) x *= 12;
  const AttentionReference reference = c.reference();
  c.forward();
  CHECK(distance(c.out, reference.out) <= 3e-3);
  CHECK(distance(c.lse, reference.lse) <= 1e-3);
}

TEST_CASE("attention gives the same bits on any number of threads, and twice") {
  const int before = thread_count();
  for (const auto& shape : {AttentionShape{1, 197, 3, 64}, AttentionShape{3, 65, 3, 16}}) {
    std::vector<KernelCase<float>> runs;
    for (int threads : {1, 2, 3, 2}) {
      set_thread_count(threads);
      auto& c = runs.emplace_back(shape);
      c.forward();
      c.backward(0);
      CHECK(c.out == runs[0].out);
      CHECK(c.lse == runs[0].lse);
      CHECK(c.dqkv == runs[0].dqkv);
    }
  }
  set_thread_count(before);
}

TEST_CASE("attention hides no NaN or infinity, and spreads none to other heads") {
  const AttentionShape shape{2, 65, 3, 16};
  const size_t row = size_t(shape.H * shape.D);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (size_t which = 0; which < 3; ++which)
      for (size_t token : {size_t{0}, size_t{31}, size_t{64}}) {
        CAPTURE(which);
        CAPTURE(token);
        KernelCase<float> c(shape);
        c.qkv[(token * 3 + which) * row + 16 + 5] = bad;  // image 0, head 1, d = 5
        c.forward();
        c.backward(0);
        const auto finite = [&](size_t image, size_t n, size_t head, size_t d) {
          return std::isfinite(c.out[(image * 65 + n) * row + head * 16 + d]);
        };
        for (size_t n = 0; n < 65; ++n) {
          // A query spoils its own row, a value its own column. A key spoils every row by NaN; by infinity
          // only the rows whose query is positive there (the others give it no weight).
          if (which == 0) CHECK(finite(0, n, 1, 0) == (n != token));
          if (which == 1 && std::isnan(bad)) CHECK(!finite(0, n, 1, 0));
          if (which == 1 && std::isinf(bad)) CHECK(finite(0, n, 1, 0) == (c.qkv[n * 3 * row + 16 + 5] < 0));
          if (which == 2) CHECK(!finite(0, n, 1, 5));
          if (which == 2) CHECK(finite(0, n, 1, 4));
          CHECK(finite(0, n, 0, 5));
          CHECK(finite(0, n, 2, 5));
          CHECK(finite(1, n, 1, 5));
        }
        CHECK(!std::isfinite(c.dqkv[16 + row + 5]));  // the gradient of the keys of that head
      }
  KernelCase<float> c(shape);
  c.forward();
  c.dout[5] = std::numeric_limits<float>::quiet_NaN();
  c.backward(0);
  for (size_t n = 0; n < 65; ++n) CHECK(std::isnan(c.dqkv[(n * 3 + 2) * row + 5]));  // every value of head 0
}

TEST_CASE("attention of nothing, and a beta that is neither 0 nor 1") {
  KernelCase<float> c({0, 65, 3, 16});
  c.forward();
  c.backward(0);
  KernelCase<float> d({1, 2, 1, 2});
  d.forward();
  CHECK_THROWS(d.backward(0.5f));
}
