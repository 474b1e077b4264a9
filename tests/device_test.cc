// Devices as far as no card is needed: names, tensors that keep to their device, programs that have no
// kernel, and the index maths of the card's convolution, run on the host.
#include <doctest/doctest.h>

#include "cuda/devices.h"
#include "cuda/unfold.h"
#include "engine/kernels/gemm.h"
#include "engine/kernels/rows.h"
#include "engine/ops/ops.h"
#include "tests/card.h"
#include "tests/messages.h"
#include "tests/random_inputs.h"
#include "tests/worst.h"

namespace tessera {
namespace {

using testing::Caught;
using testing::error_of;

TEST_CASE("devices: names and what is wrong with them") {
  CHECK(device_by_name("cpu") == Device());
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda:99999999999"}) {
    CAPTURE(name);
    const Caught error = error_of([&] { device_by_name(name); });
    CHECK(error.code == Exit::usage);
    CHECK(error.has("auto, cpu, cuda and cuda:I"));
  }
  if (!cuda_devices().empty()) {
    CHECK(device_by_name("auto") == kCard);
    CHECK(error_of([] { device_by_name("cuda:4096"); }).code == Exit::device);
    return;
  }
  CHECK(device_by_name("auto") == Device());
  const Caught error = error_of([] { device_by_name("cuda"); });
  CHECK(error.code == Exit::device);
  CHECK(error.has("--device cpu"));
}

TEST_CASE("devices: a tensor gives its data out on its own device alone") {
  const Tensor x = Tensor::full({2, 3}, 7), w = Tensor::full({4, 3}, 1);
  const Device::Scope there(kCard);
  const Caught error = error_of([&] { linear(x, w); });
  CHECK(error.code == Exit::device);
  if (cuda_devices().empty()) return;  // the op's own tensors could not be made
  CHECK(error.has("(2,3) is on cpu and was asked for on cuda:0"));
}

TEST_CASE("devices: data is read from anywhere") {
  const Tensor x = Tensor::of({3}, std::vector<float>{1, 2, 3});
  const Device::Scope there(kCard);
  CHECK(error_of([&] { x.data<float>(); }).code == Exit::device);
  CHECK(x.values<float>() == std::vector<float>{1, 2, 3});
  CHECK(x.at(1) == 2);
}

TEST_CASE("devices: a program that was not compiled for cards refuses them") {
  const Device::Scope there(kCard);
  int runs = 0;
  const Caught error = error_of([&] { elements(3, [&](int64_t) { ++runs; }); });
  CHECK(error.code == Exit::device);
  CHECK(error.has("no CUDA kernel"));
  CHECK(error_of([&] { rows(3, 1, [&](const Row&, int64_t) { ++runs; }); }).code == Exit::device);
  CHECK(runs == 0);
}

// What conv.cu does, with the host's loops.
TEST_CASE("cuda: columns and back give the convolution and its data gradient") {
  for (const ConvShape& s : {ConvShape{2, 3, 7, 6, 4, 3, 3, 1, 1}, ConvShape{3, 2, 9, 8, 5, 3, 2, 2, 1},
                             ConvShape{1, 1, 5, 5, 2, 5, 5, 1, 3}, ConvShape{2, 2, 8, 8, 3, 2, 2, 3, 0},
                             ConvShape{2, 3, 4, 5, 2, 1, 1, 1, 0}}) {
    CAPTURE(s.h);
    CAPTURE(s.stride);
    const int64_t area = s.out_area(), taps = s.C * s.h * s.w;
    const Inputs in = random_inputs(text(s.B, 'x', s.C, 'x', s.H, 'x', s.W, ' ', s.O, 'x', s.C, 'x', s.h, 'x',
                                         s.w, ' ', s.B, 'x', s.O, 'x', area));
    const double *x = in[0].data<double>(), *weight = in[1].data<double>(), *dy = in[2].data<double>();
    std::vector<double> columns(size_t(s.B * taps * area), std::nan("")), y(size_t(s.B * s.O * area)),
        expected = y;
    std::vector<double> dx(size_t(s.B * s.C * s.H * s.W), std::nan("")), dx_expected = dx;
    elements(int64_t(columns.size()), cuda::Unfold<double>{cuda::ConvSizes(s), x, columns.data()});
    for (int64_t b = 0; b < s.B; ++b)
      gemm(Gemm<double>{.m = s.O,
                        .n = area,
                        .k = taps,
                        .a = weight,
                        .b = columns.data() + b * taps * area,
                        .c = y.data() + b * s.O * area});
    conv_forward<double>(s, x, weight, nullptr, expected.data());
    for (int64_t b = 0; b < s.B; ++b)
      gemm(Gemm<double>{.transpose_a = true,
                        .m = taps,
                        .n = area,
                        .k = s.O,
                        .a = weight,
                        .b = dy + b * s.O * area,
                        .c = columns.data() + b * taps * area});
    elements(int64_t(dx.size()), cuda::Fold<double>{cuda::ConvSizes(s), columns.data(), dx.data(), 0});
    conv_data_gradient<double>(s, weight, dy, dx_expected.data(), 0);
    double most = 0;
    for (size_t i = 0; i < y.size(); ++i) most = worst(most, std::abs(y[i] - expected[i]));
    for (size_t i = 0; i < dx.size(); ++i) most = worst(most, std::abs(dx[i] - dx_expected[i]));
    CHECK(most < 1e-12);
  }
}

}  // namespace
}  // namespace tessera
