// What the op cases do not show of conv2d, batch_norm and max_pool: replicas, any number of threads, running
// statistics, ties and NaN, and errors.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "engine/base/parallel.h"
#include "engine/ops/ops.h"
#include "tests/random_inputs.h"
#include "tests/worst.h"

namespace tessera {
namespace {

// Output and gradients of two convolutions of B images that share x and weight, so that gradients add up.
std::vector<Tensor> convolve(int64_t B, DType dtype) {
  Tensor x = normal({B, 9, 14, 13}, 0, dtype).require_grad();
  Tensor weight = normal({20, 9, 3, 3}, 1, dtype).require_grad();
  Tensor bias = normal({20}, 2, dtype).require_grad();
  Tape tape;
  const Tape::Scope scope(&tape);
  const Tensor y = add(conv2d(x, weight, bias, 1, 1), conv2d(x, weight, {}, 1, 1));
  tape.backward(mean(mul(y, y)));
  return {y.clone(), x.grad(), weight.grad(), bias.grad()};
}

// Sets the number of threads while it lives.
struct Threads {
  int former = thread_count();
  explicit Threads(int count) { set_thread_count(count); }
  ~Threads() { set_thread_count(former); }
};

TEST_CASE("conv2d on replica threads equals conv2d on one thread") {
  // The main thread works first with all threads, so that what it keeps is not what its replica may use.
  const Threads threads(4);
  const std::vector<Tensor> exact = convolve(6, DType::f64), whole = convolve(6, DType::f32);
  for (size_t i = 0; i < exact.size(); ++i) CHECK(difference(exact[i], whole[i]) < 1e-4);
  std::vector<std::vector<Tensor>> of_replica(4);
  for (int round = 0; round < 3; ++round) {
    on_workers(4, [&](int worker) { of_replica[size_t(worker)] = convolve(6, DType::f32); });
    const Threads one(1);
    const std::vector<Tensor> serial = convolve(6, DType::f32);
    for (const auto& result : of_replica) CHECK(same_bits(result, serial));
  }
}

TEST_CASE("conv2d in f64 gives the same bits for any number of threads") {
  const Threads one(1);
  const std::vector<Tensor> serial = convolve(5, DType::f64);
  for (int count : {2, 3, 7}) {
    const Threads threads(count);
    CHECK(same_bits(convolve(5, DType::f64), serial));
  }
}

TEST_CASE("conv2d refuses what has no result") {
  const Tensor x = Tensor::zeros({1, 2, 5, 5}), bias;
  CHECK_THROWS_WITH_AS(conv2d(x, Tensor::zeros({1, 3, 3, 3}), bias, 1, 0),
                       "conv2d: x(1,2,5,5) and weight(1,3,3,3) differ in C: 2 and 3", Error);
  CHECK_THROWS_WITH_AS(conv2d(x, Tensor::zeros({1, 2, 8, 3}), bias, 1, 1),
                       "conv2d: the kernel of weight(1,2,8,3) is larger than x(1,2,5,5) with padding 1",
                       Error);
  CHECK_THROWS_AS(conv2d(x, Tensor::zeros({1, 2, 3, 3}), bias, 0, 1), Error);
  CHECK_THROWS_AS(conv2d(x, Tensor::zeros({1, 2, 3, 3}), bias, 1, -1), Error);
  CHECK_THROWS_AS(conv2d(Tensor::zeros({0, 2, 5, 5}), Tensor::zeros({1, 2, 3, 3}), bias, 1, 1), Error);
  CHECK_THROWS_AS(conv2d(x, Tensor::zeros({4, 2, 3, 3}), Tensor::zeros({3}), 1, 1), Error);
}

TEST_CASE("batch_norm moves its running statistics") {
  // Channel 0 holds 1 2 3 4: mean 2.5, unbiased variance 5/3. Channel 1 is constant.
  const Tensor x = Tensor::of({2, 2, 1, 2}, std::vector<float>{1, 2, 7, 7, 3, 4, 7, 7});
  const Tensor gamma = Tensor::full({2}, 1), beta = Tensor::zeros({2});
  Tensor running_mean = Tensor::zeros({2}), running_var = Tensor::full({2}, 1);
  batch_norm(x, gamma, beta, running_mean, running_var, true, 0.25);
  CHECK(running_mean.at(0) == doctest::Approx(0.625));
  CHECK(running_mean.at(1) == doctest::Approx(1.75));
  CHECK(running_var.at(0) == doctest::Approx(0.75 + 0.25 * 5 / 3));
  CHECK(running_var.at(1) == doctest::Approx(0.75));
  const Tensor y = batch_norm(x, gamma, beta, running_mean, running_var, false, 0.25);
  CHECK(running_mean.at(0) == doctest::Approx(0.625));
  CHECK(y.at(0) == doctest::Approx(0.375 / std::sqrt(0.75 + 0.25 * 5 / 3 + 1e-5)));
}

TEST_CASE("batch_norm twice on the same running statistics, then backward") {
  for (const bool training : {true, false}) {
    Tensor x = normal({3, 2, 2, 2}, 0, DType::f64).require_grad();
    const Tensor gamma = normal({2}, 1, DType::f64), beta = normal({2}, 2, DType::f64);
    Tensor mean_now = Tensor::zeros({2}, DType::f64), var_now = Tensor::full({2}, 1, DType::f64);
    Tape tape;
    const Tape::Scope scope(&tape);
    Tensor y = batch_norm(x, gamma, beta, mean_now, var_now, training);
    y = batch_norm(y, gamma, beta, mean_now, var_now, true);
    CHECK_NOTHROW(tape.backward(mean(mul(y, y))));
  }
}

TEST_CASE("batch_norm refuses what has no variance, and running statistics that want a gradient") {
  const Tensor gamma = Tensor::full({2}, 1), beta = Tensor::zeros({2});
  Tensor running_mean = Tensor::zeros({2}), running_var = Tensor::full({2}, 1);
  const Tensor x = Tensor::zeros({1, 2, 1, 1});
  CHECK_THROWS_AS(batch_norm(x, gamma, beta, running_mean, running_var, true), Error);
  CHECK_NOTHROW(batch_norm(x, gamma, beta, running_mean, running_var, false));
  Tape tape;
  const Tape::Scope scope(&tape);
  running_var.require_grad();
  CHECK_THROWS_AS(batch_norm(x, gamma, beta, running_mean, running_var, false), Error);
}

TEST_CASE("max_pool: the first of equal maxima takes the gradient, and NaN is a maximum") {
  Tensor x = Tensor::of({1, 1, 3, 3}, std::vector<float>{1, 5, 5, 5, 0, 2, 5, 1, 0}).require_grad();
  Tape tape;
  const Tape::Scope scope(&tape);
  tape.backward(mean(max_pool(x, 3, 1, 0)));
  for (int64_t i = 0; i < 9; ++i) CHECK(x.grad().at(i) == (i == 1 ? 1 : 0));

  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  const Tensor y = max_pool(
      Tensor::of({1, 1, 2, 4}, std::vector<float>{1, kNan, kLowest, kLowest, 9, 2, kLowest, kLowest}), 2, 2,
      0);
  CHECK(std::isnan(y.at(0)));
  CHECK(y.at(1) == kLowest);
}

TEST_CASE("max_pool: padding never wins, and what has no result is refused") {
  const Tensor y = max_pool(Tensor::full({1, 1, 3, 3}, -4), 3, 2, 1);
  for (int64_t i = 0; i < 4; ++i) CHECK(y.at(i) == -4);
  const Tensor x = Tensor::zeros({1, 1, 3, 3});
  CHECK_THROWS_AS(max_pool(x, 2, 2, 2), Error);
  CHECK_THROWS_AS(max_pool(x, 4, 1, 0), Error);
  CHECK_THROWS_AS(max_pool(x, 0, 1, 0), Error);
  CHECK_THROWS_AS(max_pool(x, 2, 0, 0), Error);
}

}  // namespace
}  // namespace tessera
