// What a card's step is made of where nobody waits for it: programs that leave what they find in memory, run
// on the host.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "optim/clip.h"
#include "optim/experts_averaging.h"
#include "optim/step_numbers.h"
#include "tests/random_inputs.h"

namespace tessera {
namespace {

TEST_CASE("step numbers: the norm, left in memory") {
  for (const int64_t count : {0, 1, 2048, 65537}) {
    std::vector<double> values = normal_values<double>(count, 1);
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
  for (int64_t i = 0; i < 170; ++i) {
    parameters.push_back({end + i % 3, i == 20 ? 1 : 2 + i % 4, i == 5 ? 5000 : i * 7 % 40});
    end = parameters.back().offset + parameters.back().experts * parameters.back().count;
  }
  return parameters;
}

TEST_CASE("step numbers: all experts are averaged at once, and their deviation is found so") {
  const std::vector<StackedParameter> parameters = some_parameters();
  const StackedParameter& last = parameters.back();
  std::vector<double> together = normal_values<double>(last.offset + last.experts * last.count + 3, 2),
                      apart = together;
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

TEST_CASE("step numbers: averaging writes the copies of the experts, and no others") {
  const std::vector<StackedParameter> parameters = some_parameters();
  const StackedParameter& last = parameters.back();
  const std::vector<double> start = normal_values<double>(last.offset + last.experts * last.count + 3, 2);
  std::vector<float> values(start.begin(), start.end());
  const std::vector<float> before = values;
  std::vector<bf16> copies(values.size(), bf16(100));
  const StepNumbers numbers{.share_rate = 0.3};
  average_experts<float>(values.data(), parameters, &numbers, copies.data());
  std::vector<bool> averaged(values.size());
  for (const StackedParameter& p : parameters)
    if (p.experts > 1) std::fill_n(averaged.begin() + p.offset, p.experts * p.count, true);
  for (size_t i = 0; i < values.size(); ++i) {
    CHECK(copies[i].bits == bf16(averaged[i] ? values[i] : 100).bits);
    CHECK((values[i] == before[i]) == !averaged[i]);
  }
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
  StepNumbers numbers;
  std::vector<StepFindings> found{{.loss = 2, .gradient_norm = 8}, {.loss = 3, .gradient_norm = 16}};
  judge(1, 2, found.data(), &numbers);
  CHECK(numbers.gradient_scale == 0.25);
  CHECK(numbers.stopped == 0);
  judge(1, 0, found.data(), &numbers);
  CHECK(numbers.gradient_scale == 1);
  judge(2, 2, found.data(), &numbers);  // the second pass's gradient is taken
  CHECK(numbers.gradient_scale == 0.125);
  CHECK(numbers.stopped == 0);
  CHECK(found[0].loss == 2);
  CHECK(found[0].gradient_norm == 16);
  for (const double bad : {std::numeric_limits<double>::infinity(), std::nan("")})
    for (const int64_t passes : {1, 2})
      for (int64_t pass = 0; pass < passes; ++pass)
        for (double StepFindings::*const number :
             {&StepFindings::loss, &StepFindings::auxiliary, &StepFindings::gradient_norm}) {
          found = {{.loss = 2, .gradient_norm = 8}, {.loss = 3, .gradient_norm = 16}};
          found[size_t(pass)].*number = bad;
          const double loss = found[size_t(pass)].loss;
          numbers = {};
          judge(passes, 2, found.data(), &numbers);
          CHECK(numbers.stopped == 1);
          CHECK(!found[0].finite());  // which is what the host looks at
          CHECK((std::isnan(loss) ? std::isnan(found[0].loss) : found[0].loss == loss));
          numbers = {};
          found[0].loss = found[0].auxiliary = found[0].gradient_norm = 1;
          found[1] = found[0];
          judge(passes, 2, found.data(), &numbers);  // a later step
          CHECK(numbers.stopped == 1);
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
