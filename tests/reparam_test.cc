// Structural re-parameterisation: what is merged is the same function in eval mode, to rounding.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "nn/rep_conv.h"
#include "tests/random_inputs.h"
#include "tests/worst.h"

namespace tessera {
namespace {

// Allocates the store and fills it so that nothing is 0 or 1 and variances are above 0.
void draw_values(ParameterStore& store) {
  store.allocate(0);
  for (const auto& p : store.parameters()) {
    Tensor value = p.value;
    const Tensor drawn = normal(value.shape(), uint32_t(p.offset));
    for_float("fill", value.dtype(), [&]<class T>() {
      for (int64_t i = 0; i < value.count(); ++i)
        value.mutable_data<T>()[i] =
            T(p.name.ends_with("running_var") ? 0.5 + std::abs(drawn.at(i)) : 0.7 * drawn.at(i));
    });
  }
}

Tensor merged_conv(const Tensor& x, const MergedConv& conv, int64_t stride, int64_t padding) {
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
        draw_values(store);
        const Tensor x = normal({2, 3, 12, 8}, 1, dtype);
        CHECK(relative_difference(conv.forward(x, {}),
                                  merged_conv(x, fold(conv), form.stride, form.padding)) <= bound(dtype));
      }
}

TEST_CASE("a bias before the batch norm folds too") {
  ParameterStore store(DType::f64);
  const BatchNorm norm(Scope(store) / "bn", 5);
  draw_values(store);
  const Tensor weight = normal({5, 3, 3, 3}, 2), bias = normal({5}, 3);
  const Tensor x = normal({2, 3, 6, 5}, 1);
  CHECK(relative_difference(norm.forward(conv2d(x, weight, bias, 1, 1), {}),
                            merged_conv(x, fold(weight, bias, norm), 1, 1)) <= 1e-12);
}

TEST_CASE("a kernel in the middle of a larger one is the same convolution with more padding") {
  const MergedConv strip{normal({4, 3, 1, 3}, 1), normal({4}, 2)};
  const Tensor x = normal({2, 3, 6, 5}, 3);
  // With a padding of 1 in both directions, the strip has a row above and below that only meets zeros.
  CHECK(relative_difference(slice(merged_conv(x, strip, 1, 1), 2, 1, 7),
                            merged_conv(x, pad(strip, 3, 3), 1, 1)) <= 1e-12);
  CHECK(relative_difference(merged_conv(x, strip, 1, 0),
                            slice(merged_conv(x, pad(strip, 5, 3), 1, 2), 3, 2, 5)) <= 1e-12);
  CHECK_THROWS_AS(pad(strip, 2, 3), Error);
  CHECK_THROWS_AS(pad(strip, 3, 1), Error);
}

TEST_CASE("1x1 followed by 3x3 is one convolution, its border too where the first one pads") {
  const MergedConv first{normal({6, 3, 1, 1}, 1), normal({6}, 2)};
  const MergedConv second{normal({4, 6, 3, 3}, 3), normal({4}, 4)};
  const Tensor x = normal({2, 3, 6, 5}, 5);
  const MergedConv both = in_sequence(first, second);
  for (const int64_t stride : {1, 2}) {
    CHECK(relative_difference(merged_conv(merged_conv(x, first, 1, 1), second, stride, 0),
                              merged_conv(x, both, stride, 1)) <= 1e-12);
    // Zeros around the second's input are another function, but only at the border.
    const Tensor zeros = merged_conv(merged_conv(x, first, 1, 0), second, stride, 1);
    const Tensor merged = merged_conv(x, both, stride, 1);
    const double at_border = relative_difference(zeros, merged);
    CHECK((at_border > 1e-2 && at_border < 2));
    const int64_t inner = stride == 1 ? 4 : 2;
    CHECK(relative_difference(slice(slice(zeros, 2, 1, inner), 3, 1, 2),
                              slice(slice(merged, 2, 1, inner), 3, 1, 2)) <= 1e-12);
  }
}

TEST_CASE("branches that map other channels cannot be added") {
  const MergedConv a{normal({4, 3, 3, 3}, 1), normal({4}, 2)};
  const MergedConv b{normal({1, 3, 3, 3}, 1), normal({1}, 2)};
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
        draw_values(store);
        const MergedConv merged = block.merged();
        CHECK(merged.weight.shape() == Shape{form.out, form.in, 3, 3});
        const Tensor x = normal({2, form.in, 7, 8}, 1, dtype);
        CHECK(relative_difference(block.forward(x, {}), merged_conv(x, merged, form.stride, 1)) <=
              bound(dtype));
      }
}

}  // namespace
}  // namespace tessera
