// bf16 as far as no card is needed: its rounding, ops and a model by way of f32, and the weights' copies.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "engine/kernels/gemm.h"
#include "tests/model_step.h"
#include "tests/op_run.h"
#include "tests/small_models.h"

namespace tessera {
namespace {

bf16 of_bits(uint32_t bits) {
  bf16 x;
  x.bits = uint16_t(bits);
  return x;
}

TEST_CASE("bf16: rounds to the nearest, ties to even, and keeps what it has") {
  constexpr float inf = std::numeric_limits<float>::infinity();
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float x = of_bits(bits);
    if (std::isnan(x))
      CHECK(std::isnan(float(bf16(x))));
    else
      REQUIRE(bf16(x).bits == bits);
  }
  for (const uint32_t sign : {0u, 0x8000u})
    for (uint32_t bits = 0; bits < 0x7F80; ++bits) {
      const float x = of_bits(sign | bits), outer = sign ? -inf : inf;
      const float next = bits == 0x7F7F ? outer : float(of_bits(sign | (bits + 1)));
      const float half = bits == 0x7F7F ? std::copysign(0x1.FFp127f, outer) : x + (next - x) / 2;
      REQUIRE(float(bf16(half)) == (bits % 2 == 0 ? x : next));
      REQUIRE(float(bf16(std::nextafter(half, 0.0f))) == x);
      REQUIRE(float(bf16(std::nextafter(half, outer))) == next);
    }
  const float tiny_nan = std::bit_cast<float>(0x7F800001u);  // whose upper half alone would be infinity
  CHECK(std::isnan(float(bf16(tiny_nan))));
}

template <class Out>
void check_product(bool transpose_a, bool transpose_b, float beta, bool with_bias) {
  constexpr int64_t m = 5, n = 7, k = 9, gap = 3;
  const int64_t lda = (transpose_a ? m : k) + gap, ldb = (transpose_b ? k : n) + gap, ldc = n + gap;
  const auto numbers = [](int64_t size, uint32_t site) {
    std::vector<bf16> all;
    for (int64_t i = 0; i < size; ++i) all.push_back(bf16(float(Draw{.site = site}.normal(uint64_t(i)))));
    return all;
  };
  const std::vector<bf16> a = numbers(lda * 9, 1), b = numbers(ldb * 9, 2), before = numbers(ldc * m, 3);
  const std::vector<Out> bias{Out(1), Out(-2), Out(3), Out(-4), Out(5), Out(-6), Out(7)};
  std::vector<Out> c;
  for (const bf16 x : before) c.push_back(Out(beta == 0 ? std::nanf("") : float(x)));
  gemm(Gemm<bf16, Out>{transpose_a, transpose_b, m, n, k, a.data(), b.data(), c.data(), lda, ldb, ldc, beta,
                       with_bias ? bias.data() : nullptr});
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = (with_bias ? double(bias[size_t(j)]) : 0) + beta * double(before[size_t(i * ldc + j)]);
      for (int64_t l = 0; l < k; ++l)
        sum += double(a[size_t(transpose_a ? l * lda + i : i * lda + l)]) *
               double(b[size_t(transpose_b ? j * ldb + l : l * ldb + j)]);
      const double rounding = std::is_same_v<Out, bf16> ? 0x1p-8 : 0;
      CHECK(std::abs(double(c[size_t(i * ldc + j)]) - sum) <= rounding * std::abs(sum) + 1e-5);
    }
}

TEST_CASE("bf16: products of either result") {
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const float beta : {0.0f, 1.0f})
        for (const bool bias : {false, true}) {
          check_product<bf16>(transpose_a, transpose_b, beta, bias);
          check_product<float>(transpose_a, transpose_b, beta, bias);
        }
}

TEST_CASE("bf16: every op that takes it, against f64") {
  std::set<std::string> missing = bf16_ops();
  for (const OpCase& c : op_cases())
    for (const char* shapes : c.shapes) {
      if (!bf16_ops().count(c.op)) continue;
      missing.erase(c.op);
      CAPTURE(c.op);
      CAPTURE(shapes);
      const Inputs inputs = rounded(random_inputs(shapes));
      const Run exact = run(c, inputs, Device(), DType::f64), half = run(c, inputs, Device(), DType::bf16);
      CHECK(difference(half.y, exact.y) <= kRoundedResult * magnitude(exact.y));
      for (size_t k = 0; k < exact.grads.size(); ++k)
        if (exact.grads[k])
          CHECK(difference(half.grads[k], exact.grads[k]) <= kRoundedGradient * magnitude_of(exact.grads));
      const Run overwritten = run(c, inputs, Device(), DType::bf16, Before::nan);
      for (size_t k = 0; k < exact.grads.size(); ++k)
        if (exact.grads[k]) CHECK(difference(overwritten.grads[k], half.grads[k]) == 0);
      CHECK(worst_added(run(c, inputs, Device(), DType::bf16, Before::ones), exact) <=
            kRoundedGradient * std::max(1.0, magnitude_of(exact.grads)));
    }
  CHECK(missing.empty());
}

TEST_CASE("bf16: which tensors are, around a linear layer") {
  const Inputs in = random_inputs("2x3x5 4x5 4 2x3x4");
  Tensor weight = in[1].to(DType::f32), bias = in[2].to(DType::f32);
  const Tensor x = in[0].to(DType::f32), residual = in[3].to(DType::f32);
  CHECK(linear(x, weight, bias).dtype() == DType::f32);
  const Tensor copy = narrow(weight), bias_copy = narrow(bias);
  weight.place_copy(const_cast<bf16*>(copy.data<bf16>()), copy);
  bias.place_copy(const_cast<bf16*>(bias_copy.data<bf16>()), bias_copy);
  CHECK(weight.dtype() == DType::f32);
  CHECK(weight.data<float>()[3] == float(in[1].at(3)));
  CHECK(weight.reshape({2, 2, 5}).data<bf16>()[3].bits == bf16(float(in[1].at(3))).bits);
  CHECK_THROWS_WITH_AS(weight.mutable_data<bf16>(), doctest::Contains("holds f32, not bf16"), Error);
  CHECK(linear(x, weight, bias).dtype() == DType::f32);
  CHECK(linear(narrow(x), weight, bias).dtype() == DType::bf16);
  CHECK(linear_gelu(narrow(x), weight, bias).dtype() == DType::bf16);
  CHECK(linear_residual(narrow(x), weight, bias, residual).dtype() == DType::f32);
  CHECK_THROWS_WITH_AS(softmax(narrow(x)), doctest::Contains("needs f32 or f64, got bf16"), Error);
}

TEST_CASE("bf16: a model with experts, dropout and drop-path, and copies that follow its weights") {
  const ModelConfig config = testing::drawing_model();
  const testing::SomeBatch batch(config, 23);
  const auto wide = make_model(config, 5), half = make_model(config, 6);
  half->parameters().keep_copies();
  testing::ModelStep(*half, batch);  // with other weights, whose copies must not stay
  half->parameters().flat().assign<float>(wide->parameters().flat().values<float>());
  testing::near_in_bf16({*half, batch}, {*wide, batch});
}

TEST_CASE("bf16: routed models") {
  for (const ModelConfig& config : testing::routed_models()) {
    CAPTURE(config.name);
    const testing::SomeBatch batch(config, 23);
    const auto wide = make_model(config, 5), half = make_model(config, 5);
    half->parameters().keep_copies();
    const testing::ModelStep exact(*wide, batch), rounded(*half, batch);  // in which a near choice may differ
    CHECK(rounded.result.loss != exact.result.loss);
    CHECK(rounded.result.loss == doctest::Approx(exact.result.loss).epsilon(0.02));
    CHECK(rounded.result.gradient_norm == doctest::Approx(exact.result.gradient_norm).epsilon(0.1));
  }
}

TEST_CASE("bf16: copies are made anew when a value may have been written, and only then") {
  const auto model = make_model(testing::drawing_model(), 5);
  ParameterStore& store = model->parameters();
  CHECK(store.copies() == nullptr);
  store.keep_copies();
  const float first = store.flat().values<float>()[0];
  const auto refreshed = [&] {
    store.copies()[0] = 100.0f;
    store.refresh_copies();
    return store.copies()[0] == float(bf16(first));
  };
  CHECK(refreshed());
  CHECK(!refreshed());
  Tensor parameter = store.parameters()[0].value;
  parameter.mutable_data<float>();
  CHECK(refreshed());
  store.flat().mutable_data<float>();
  store.copies_written();  // by whoever wrote the values
  CHECK(!refreshed());
  store.flat().mutable_data<float>();
  CHECK(refreshed());
  store.keep_copies();
  CHECK(refreshed());
}

}  // namespace
}  // namespace tessera
