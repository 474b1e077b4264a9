// What a card's step is made of where nobody waits for it: programs that leave what they find in memory, run
// on the host.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "engine/base/rng.h"
#include "optim/clip.h"
#include "optim/experts_averaging.h"
#include "optim/step_numbers.h"

namespace tessera {
namespace {

std::vector<double> normal(int64_t count, uint32_t site) {
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(Draw{.seed = 3, .site = site}.normal(uint64_t(i)));
  return values;
}

TEST_CASE("step numbers: the norm, left in memory") {
  for (const int64_t count : {0, 1, 2048, 65537}) {
    std::vector<double> values = normal(count, 1);
    double* const replica = values.data();
    Tensor sums;
    double norm = -1;
    for (int turn = 0; turn < 2; ++turn) {  // the room is made once
      put_norm(values.data(), count, sums, &norm);
      CHECK(norm == doctest::Approx(reduce_gradients<double>({&replica, 1}, count)).epsilon(1e-13));
    }
  }
}

// More parameters than one launch takes, of all sizes, with gaps between them and one of a single expert.
std::vector<StackedParameter> some_parameters() {
  std::vector<StackedParameter> parameters;
  int64_t end = 0;
  for (int64_t i = 0; i < 70; ++i) {
    parameters.push_back({end + i % 3, i == 20 ? 1 : 2 + i % 4, i == 5 ? 5000 : i * 7 % 40});
    end = parameters.back().offset + parameters.back().experts * parameters.back().count;
  }
  return parameters;
}

TEST_CASE("step numbers: all experts are averaged at once, and their deviation is found so") {
  const std::vector<StackedParameter> parameters = some_parameters();
  const StackedParameter& last = parameters.back();
  std::vector<double> together = normal(last.offset + last.experts * last.count + 3, 2), apart = together;
  Tensor sums;
  double deviation = -1;
  put_deviation<double>(together.data(), parameters, sums, &deviation);
  CHECK(deviation == doctest::Approx(expert_deviation<double>(apart.data(), parameters)).epsilon(1e-12));

  StepNumbers numbers{.share_rate = 0.3};
  average_at_once<double>(together.data(), parameters, &numbers);
  average_experts<double>(apart.data(), parameters, 0.3);
  for (size_t i = 0; i < apart.size(); ++i) CHECK(together[i] == doctest::Approx(apart[i]).epsilon(1e-12));
  put_deviation<double>(together.data(), parameters, sums, &deviation);
  CHECK(deviation == doctest::Approx(expert_deviation<double>(apart.data(), parameters)).epsilon(1e-9));

  const std::vector<double> before = together;
  numbers.share_rate = 0;
  average_at_once<double>(together.data(), parameters, &numbers);
  numbers = {.stopped = 1, .share_rate = 0.3};
  average_at_once<double>(together.data(), parameters, &numbers);
  CHECK(together == before);
}

TEST_CASE("step numbers: losses and hits of a batch in pieces") {
  double loss = 7, count = 7;  // what a former step left
  put_loss(Tensor::full({}, 3), 0.25, false, &loss);
  put_loss(Tensor::full({1}, 5), 0.75, true, &loss);
  CHECK(loss == 4.5);
  const Tensor logits = Tensor::of({3, 3}, std::vector<float>{0, 2, 2, -1, -3, -2, 1, 0, 4});
  put_correct(logits, Tensor::of({3}, std::vector<int32_t>{1, 0, 2}), false, &count);
  CHECK(count == 3);  // of equal logits the first
  put_correct(logits, Tensor::of({3}, std::vector<int32_t>{2, 0, 1}), true, &count);
  CHECK(count == 4);
}

TEST_CASE("step numbers: from the first that is not finite on nothing is updated") {
  StepFindings found{.loss = 2};
  StepNumbers numbers;
  double norm = 8;
  judge(&norm, 2, &found, &numbers);
  CHECK(numbers.gradient_scale == 0.25);
  CHECK(found.gradient_norm == 8);
  CHECK(numbers.stopped == 0);
  judge(&norm, 0, &found, &numbers);
  CHECK(numbers.gradient_scale == 1);
  for (const double bad : {std::numeric_limits<double>::infinity(), std::nan("")}) {
    found = {.loss = 2};
    norm = bad;
    judge(&norm, 2, &found, &numbers);
    CHECK(numbers.stopped == 1);
    norm = 8;
    numbers = {};
    judge(&norm, 2, &found, &numbers);  // a later step
    CHECK(numbers.stopped == 1);
    found = {.loss = bad};
    judge(&norm, 2, &found, &numbers);
    CHECK(found.stopped == 1);
  }
}

TEST_CASE("step numbers: an update that is stopped changes nothing") {
  struct Rule {
    double* values;
    struct Add {
      double by;
      double* values;
      void operator()(int64_t i) const { values[i] += by; }
    };
    Add at(const StepNumbers& numbers) const { return {numbers.lr, values}; }
  };
  std::vector<double> values{1, 2, 3};
  StepNumbers numbers{.lr = 0.5};
  const Late<Rule> late{{values.data()}, &numbers};
  elements(3, late);
  CHECK(values == std::vector<double>{1.5, 2.5, 3.5});
  numbers.lr = 1;  // read when it runs
  elements(3, late);
  CHECK(values == std::vector<double>{2.5, 3.5, 4.5});
  numbers.stopped = 1;
  elements(3, late);
  CHECK(values == std::vector<double>{2.5, 3.5, 4.5});
}

}  // namespace
}  // namespace tessera
