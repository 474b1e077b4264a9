#include "engine/kernels/gemm.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/parallel.h"
#include "engine/base/rng.h"

using namespace tessera;

namespace {

template <class T>
std::vector<T> uniform_values(int64_t count, uint64_t seed, uint32_t site) {
  const Draw draw{.seed = seed, .site = site};
  std::vector<T> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[size_t(i)] = T(draw.uniform(uint64_t(i)) * 2 - 1);
  return values;
}

struct Form {
  int64_t m, n, k;
  bool transpose_a = false, transpose_b = false;
  int64_t padding = 0;  // elements after each row
  double beta = 0;
  bool bias = false;
};

// A product with its operands. C starts as NaN where it is to be overwritten.
template <class T>
struct Product {
  explicit Product(const Form& form)
      : f(form),
        a(uniform_values<T>((f.transpose_a ? f.k : f.m) * lda(), seed(), 1)),
        b(uniform_values<T>((f.transpose_b ? f.n : f.k) * ldb(), seed(), 2)),
        before(uniform_values<T>(f.m * ldc(), seed(), 3)),
        bias(uniform_values<T>(f.n, seed(), 4)) {
    if (f.beta == 0)
      for (int64_t i = 0; i < f.m * f.n; ++i)
        before[size_t(i / f.n * ldc() + i % f.n)] = std::numeric_limits<T>::quiet_NaN();
    c = before;
  }

  // Products of other sizes have other operands.
  uint64_t seed() const { return uint64_t((f.m * 1009 + f.n) * 1009 + f.k); }
  int64_t lda() const { return (f.transpose_a ? f.m : f.k) + f.padding; }
  int64_t ldb() const { return (f.transpose_b ? f.k : f.n) + f.padding; }
  int64_t ldc() const { return f.n + f.padding; }

  const std::vector<T>& run() {
    c = before;
    gemm(Gemm<T>{.transpose_a = f.transpose_a,
                 .transpose_b = f.transpose_b,
                 .m = f.m,
                 .n = f.n,
                 .k = f.k,
                 .a = a.data(),
                 .b = b.data(),
                 .c = c.data(),
                 .lda = f.padding ? lda() : 0,
                 .ldb = f.padding ? ldb() : 0,
                 .ldc = f.padding ? ldc() : 0,
                 .beta = T(f.beta),
                 .bias = f.bias ? bias.data() : nullptr});
    return c;
  }

  // The largest error in units of epsilon times the sum of the magnitudes added; infinite if not finite, or
  // if the padding of C was touched. `step` checks every step-th row.
  double error(int64_t step = 1) const {
    double worst = 0;
    const auto take = [&](double e) { worst = e <= worst ? worst : std::isnan(e) ? INFINITY : e; };
    for (int64_t i = 0; i < f.m; i += step) {
      for (int64_t j = 0; j < f.n; ++j) {
        double sum = f.bias ? double(bias[size_t(j)]) : 0, size = std::abs(sum);
        const auto add = [&](double term) { sum += term, size += std::abs(term); };
        if (f.beta != 0) add(f.beta * double(before[size_t(i * ldc() + j)]));
        for (int64_t p = 0; p < f.k; ++p)
          add(double(a[size_t(f.transpose_a ? p * lda() + i : i * lda() + p)]) *
              double(b[size_t(f.transpose_b ? j * ldb() + p : p * ldb() + j)]));
        const double got = double(c[size_t(i * ldc() + j)]);
        take(got == sum ? 0 : std::abs(got - sum) / (size * double(std::numeric_limits<T>::epsilon())));
      }
      for (int64_t j = f.n; j < ldc(); ++j)
        if (c[size_t(i * ldc() + j)] != before[size_t(i * ldc() + j)]) take(INFINITY);
    }
    return worst;
  }

  Form f;
  std::vector<T> a, b, before, bias, c;
};

// The sums below err by at most 3; one dropped term of 768 errs by thousands.
constexpr double kTolerance = 8;

template <class T>
void check_form(const Form& f, int64_t step = 1) {
  CAPTURE(f.m);
  CAPTURE(f.n);
  CAPTURE(f.k);
  CAPTURE(f.transpose_a);
  CAPTURE(f.transpose_b);
  CAPTURE(f.padding);
  CAPTURE(f.beta);
  CAPTURE(f.bias);
  Product<T> product(f);
  product.run();
  CHECK(product.error(step) < kTolerance);
}

template <class T>
void check_all_forms() {
  for (const auto& [m, n, k] :
       {std::array<int64_t, 3>{1, 1, 1}, {3, 5, 7}, {17, 1, 33}, {1, 40, 19}, {65, 192, 96}})
    for (const int form : {0, 1, 2, 3})
      for (const int64_t padding : {0, 3})
        for (const double beta : {0.0, 1.0, 0.5})
          for (const bool bias : {false, true})
            check_form<T>({m, n, k, bool(form & 1), bool(form & 2), padding, beta, bias});
}

}  // namespace

TEST_CASE("gemm: every transpose, ld, beta and bias against a plain sum") {
  check_all_forms<float>();
  check_all_forms<double>();
}

TEST_CASE("gemm: layer shapes and more than 65535 rows") {
  check_form<float>({.m = 65, .n = 576, .k = 192, .transpose_b = true, .bias = true});
  check_form<float>({.m = 65, .n = 192, .k = 768});
  check_form<float>({.m = 576, .n = 192, .k = 260, .transpose_a = true, .beta = 1});
  check_form<float>({.m = 70001, .n = 3, .k = 5, .transpose_b = true}, 7);
  check_form<float>({.m = 3, .n = 5, .k = 70001, .transpose_a = true, .beta = 1});
  check_form<double>({.m = 70001, .n = 3, .k = 5, .transpose_b = true}, 7);
}

TEST_CASE("gemm: empty sizes") {
  for (const double beta : {0.0, 1.0, 0.5})
    for (const bool bias : {false, true}) {
      check_form<float>({.m = 3, .n = 5, .k = 0, .padding = 2, .beta = beta, .bias = bias});
      check_form<double>({.m = 3, .n = 5, .k = 0, .padding = 2, .beta = beta, .bias = bias});
    }
  check_form<float>({.m = 0, .n = 5, .k = 7});
  check_form<float>({.m = 3, .n = 0, .k = 7, .padding = 2});
  gemm(Gemm<double>{});
}

TEST_CASE("gemm: sizes that cannot be are refused") {
  std::vector<float> x(64, 1.0f);
  Gemm<float> g{.m = 4, .n = 4, .k = 4, .a = x.data(), .b = x.data() + 16, .c = x.data() + 32};
  const auto refused = [](const Gemm<float>& bad) { CHECK_THROWS_AS(gemm(bad), Error); };
  for (auto size : {&Gemm<float>::m, &Gemm<float>::n, &Gemm<float>::k}) {
    Gemm<float> bad = g;
    bad.*size = -1;
    refused(bad);
  }
  for (auto ld : {&Gemm<float>::lda, &Gemm<float>::ldb, &Gemm<float>::ldc}) {
    Gemm<float> bad = g;
    bad.*ld = 3;
    refused(bad);
  }
}

TEST_CASE("gemm: replicas at once give the bits of each alone") {
  const std::vector<Form> forms{{.m = 130, .n = 192, .k = 96, .transpose_b = true, .bias = true},
                                {.m = 130, .n = 96, .k = 192},
                                {.m = 192, .n = 96, .k = 130, .transpose_a = true, .beta = 1},
                                {.m = 7, .n = 5, .k = 3}};
  const auto run_all = [&](size_t first) {
    std::vector<std::vector<float>> results(forms.size());
    for (size_t i = 0; i < forms.size(); ++i) {
      const size_t at = (first + i) % forms.size();  // replicas run different products at the same time
      results[at] = Product<float>(forms[at]).run();
    }
    return results;
  };
  // The other replica is idle.
  std::vector<std::vector<float>> alone;
  on_workers(2, [&](int worker) {
    if (worker == 0) alone = run_all(0);
  });
  constexpr int kWorkers = 4, kRounds = 20;
  std::vector<int> same(kWorkers, 0);
  on_workers(kWorkers, [&](int worker) {
    for (int round = 0; round < kRounds; ++round)
      same[size_t(worker)] += run_all(size_t(worker + round)) == alone;
  });
  for (const int count : same) CHECK(count == kRounds);
}

TEST_CASE("gemm: threads inside, twice the same bits") {
  Product<float> product({.m = 197, .n = 384, .k = 192, .transpose_b = true, .bias = true});
  const std::vector<float> first = product.run();
  CHECK(product.error() < kTolerance);
  CHECK(product.run() == first);
}
