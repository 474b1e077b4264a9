// Structural re-parameterisation: what is merged is the same function in eval mode, to rounding.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "nn/rep_conv.h"

namespace tessera {
namespace {

Tensor random(const Shape& shape, DType dtype, uint32_t site) {
  Tensor x(shape, DType::f64);
  const Draw draw{.seed = 5, .stream = Stream::test, .site = site};
  for (int64_t i = 0; i < x.count(); ++i) x.mutable_data<double>()[i] = draw.normal(uint64_t(i));
  return x.to(dtype);
}

// Allocates the store and fills it so that nothing is 0 or 1 and variances are above 0.
void fill(ParameterStore& store) {
  store.allocate(0);
  for (const auto& p : store.parameters()) {
    Tensor value = p.value;
    const Tensor drawn = random(value.shape(), DType::f64, uint32_t(p.offset));
    for_float("fill", value.dtype(), [&]<class T>() {
      for (int64_t i = 0; i < value.count(); ++i)
        value.mutable_data<T>()[i] =
            T(p.name.ends_with("running_var") ? 0.5 + std::abs(drawn.at(i)) : 0.7 * drawn.at(i));
    });
  }
}

// Largest |difference| over the largest |a|.
double difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  double most = 0, largest = 0;
  for (int64_t i = 0; i < a.count(); ++i) {
    most = std::max(most, std::abs(a.at(i) - b.at(i)));
    largest = std::max(largest, std::abs(a.at(i)));
  }
  REQUIRE(std::isfinite(most));
  return most / largest;
}

Tensor convolve(const Tensor& x, const MergedConv& conv, int64_t stride, int64_t padding) {
  return conv2d(x, conv.weight.to(x.dtype()), conv.bias.to(x.dtype()), stride, padding);
}

double bound(DType dtype) { return dtype == DType::f64 ? 1e-12 : 1e-5; }

TEST_CASE("a batch norm folds into the convolution before it, whatever its kernel, stride and padding") {
  struct Form {
    int64_t kernel, stride, padding;
  };
  for (const DType dtype : {DType::f64, DType::f32})
    for (const Form& form : {Form{1, 1, 0}, {3, 1, 1}, {7, 2, 3}, {4, 4, 0}, {1, 1, 1}})
      for (const bool norm : {true, false}) {
        CAPTURE(form.kernel);
        ParameterStore store(dtype);
        const Scope scope(store);
        const ConvNorm conv(scope / "conv", scope / "bn",
                            {.in = 3,
                             .out = 5,
                             .kernel = form.kernel,
                             .stride = form.stride,
                             .padding = form.padding,
                             .norm = norm});
        fill(store);
        const Tensor x = random({2, 3, 12, 8}, dtype, 1);
        CHECK(difference(conv.forward(x, {}), convolve(x, fold(conv), form.stride, form.padding)) <=
              bound(dtype));
      }
}

TEST_CASE("a bias before the batch norm folds too") {
  ParameterStore store(DType::f64);
  const BatchNorm norm(Scope(store) / "bn", 5);
  fill(store);
  const Tensor weight = random({5, 3, 3, 3}, DType::f64, 2), bias = random({5}, DType::f64, 3);
  const Tensor x = random({2, 3, 6, 5}, DType::f64, 1);
  CHECK(difference(norm.forward(conv2d(x, weight, bias, 1, 1), {}),
                   convolve(x, fold(weight, bias, norm), 1, 1)) <= 1e-12);
}

TEST_CASE("a kernel in the middle of a larger one is the same convolution with more padding") {
  const MergedConv strip{random({4, 3, 1, 3}, DType::f64, 1), random({4}, DType::f64, 2)};
  const Tensor x = random({2, 3, 6, 5}, DType::f64, 3);
  // With a padding of 1 in both directions, the strip has a row above and below that only meets zeros.
  CHECK(difference(slice(convolve(x, strip, 1, 1), 2, 1, 7), convolve(x, pad(strip, 3, 3), 1, 1)) <= 1e-12);
  CHECK(difference(convolve(x, strip, 1, 0), slice(convolve(x, pad(strip, 5, 3), 1, 2), 3, 2, 5)) <= 1e-12);
  CHECK_THROWS_AS(pad(strip, 2, 3), Error);
  CHECK_THROWS_AS(pad(strip, 3, 1), Error);
}

TEST_CASE("1x1 followed by 3x3 is one convolution, its border too where the first one pads") {
  const MergedConv first{random({6, 3, 1, 1}, DType::f64, 1), random({6}, DType::f64, 2)};
  const MergedConv second{random({4, 6, 3, 3}, DType::f64, 3), random({4}, DType::f64, 4)};
  const Tensor x = random({2, 3, 6, 5}, DType::f64, 5);
  const MergedConv both = in_sequence(first, second);
  for (const int64_t stride : {1, 2}) {
    CHECK(difference(convolve(convolve(x, first, 1, 1), second, stride, 0), convolve(x, both, stride, 1)) <=
          1e-12);
    // Zeros around the second's input are another function, but only at the border.
    const Tensor zeros = convolve(convolve(x, first, 1, 0), second, stride, 1);
    const Tensor merged = convolve(x, both, stride, 1);
    CHECK(difference(zeros, merged) > 1e-2);
    const int64_t inner = stride == 1 ? 4 : 2;
    CHECK(difference(slice(slice(zeros, 2, 1, inner), 3, 1, 2), slice(slice(merged, 2, 1, inner), 3, 1, 2)) <=
          1e-12);
  }
}

TEST_CASE("branches that map other channels cannot be added") {
  const MergedConv a{random({4, 3, 3, 3}, DType::f64, 1), random({4}, DType::f64, 2)};
  const MergedConv b{random({1, 3, 3, 3}, DType::f64, 1), random({1}, DType::f64, 2)};
  CHECK_THROWS_WITH_AS(add_branches({a, b}),
                       "add_branches: kernels (4,3,3,3) and (1,3,3,3) map other channels", Error);
}

TEST_CASE("every set of branches becomes one 3x3 convolution") {
  struct Form {
    int64_t in, out, stride;
  };
  for (const DType dtype : {DType::f64, DType::f32})
    for (const Form& form : {Form{6, 6, 1}, {6, 6, 2}, {3, 8, 1}, {3, 8, 2}})
      for (const std::vector<std::string>& branches : {std::vector<std::string>{"3x3"},
                                                       {"3x3", "1x1", "identity"},
                                                       {"3x3", "1x3", "3x1"},
                                                       {"1x1-3x3"},
                                                       {"1x1"},
                                                       {"3x3", "1x1", "identity", "1x3", "3x1", "1x1-3x3"},
                                                       {"merged"}}) {
        CAPTURE(branches.back());
        ParameterStore store(dtype);
        const RepConv block(Scope(store) / "block", {form.in, form.out, form.stride, branches});
        fill(store);
        const MergedConv merged = block.merged();
        CHECK(merged.weight.shape() == Shape{form.out, form.in, 3, 3});
        const Tensor x = random({2, form.in, 7, 8}, dtype, 1);
        CHECK(difference(block.forward(x, {}), convolve(x, merged, form.stride, 1)) <= bound(dtype));
      }
}

}  // namespace
}  // namespace tessera
