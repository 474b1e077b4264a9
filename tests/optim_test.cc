#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/parallel.h"
#include "optim/clip.h"
#include "optim/experts_averaging.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "tests/messages.h"
#include "tests/random_inputs.h"
#include "tests/worst.h"

namespace tessera {
namespace {

using testing::Caught;
using testing::error_of;

// Runs f() with 1 and with 2 threads.
template <class F>
auto with_threads(int threads, F&& f) {
  const int before = thread_count();
  set_thread_count(threads);
  auto result = f();
  set_thread_count(before);
  return result;
}

// Few enough operations a step that rounding stays near a unit in the last place of the largest value.
template <class T>
double tolerance(double scale) {
  return scale * 16 * double(std::numeric_limits<T>::epsilon());
}

template <class T>
void check_close(const std::vector<T>& got, const std::vector<T>& want, double scale) {
  REQUIRE(got.size() == want.size());
  double most = 0;
  for (size_t i = 0; i < got.size(); ++i) most = worst(most, std::abs(double(got[i]) - double(want[i])));
  CHECK(most <= tolerance<T>(scale));
}

// The published updates of one element, written out in double and without folding anything.
struct OneWeight {
  OptimizerConfig config;
  double m = 0, v = 0, b = 0;
  int t = 0;

  void step(double& w, double g, double lr, bool decayed) {
    const double decay = decayed ? config.weight_decay : 0;
    ++t;
    if (config.name == "adamw") {
      w -= lr * decay * w;
      m = config.beta1 * m + (1 - config.beta1) * g;
      v = config.beta2 * v + (1 - config.beta2) * g * g;
      const double m_hat = m / (1 - std::pow(config.beta1, t)), v_hat = v / (1 - std::pow(config.beta2, t));
      w -= lr * m_hat / (std::sqrt(v_hat) + config.eps);
    } else {
      g += decay * w;
      b = t == 1 ? g : config.momentum * b + g;
      w -= lr * (config.nesterov ? g + config.momentum * b : b);
    }
  }
};

template <class T>
void follows_reference(const OptimizerConfig& config, int64_t count) {
  constexpr int kSteps = 50;
  constexpr double kScale = 0.37;
  const int64_t decayed = count * 2 / 3;
  auto values = normal_values<T>(count, 1);
  std::vector<double> expected(values.begin(), values.end());
  std::vector<OneWeight> references(static_cast<size_t>(count), OneWeight{.config = config});
  const auto optimizer = make_optimizer<T>(config, count);
  for (int step = 0; step < kSteps; ++step) {
    const auto gradients = normal_values<T>(count, uint32_t(100 + step));
    const double lr = 0.01 * (1 + step % 5);
    optimizer->step({values.data(), gradients.data(), count, decayed}, lr, kScale);
    for (size_t i = 0; i < references.size(); ++i)
      references[i].step(expected[i], kScale * double(gradients[i]), lr, int64_t(i) < decayed);
  }
  CHECK(optimizer->steps() == kSteps);
  check_close(values, std::vector<T>(expected.begin(), expected.end()), 3);
}

const std::vector<OptimizerConfig> kConfigs = {
    {.name = "adamw"},
    {.name = "adamw", .weight_decay = 0.3, .beta1 = 0.8, .beta2 = 0.95, .eps = 0.01},
    {.name = "sgd"},
    {.name = "sgd", .weight_decay = 0, .momentum = 0},
    {.name = "sgd", .weight_decay = 0.1, .momentum = 0.5, .nesterov = true},
};

TEST_CASE("optim: 50 steps follow the published updates") {
  for (const OptimizerConfig& config : kConfigs)
    for (const int64_t count : {1, 17, 1003}) {
      CAPTURE(config.name);
      CAPTURE(count);
      follows_reference<float>(config, count);
      follows_reference<double>(config, count);
    }
}

TEST_CASE("optim: one step in closed form") {
  // The first step of Adam is lr * sign(g), whatever the gradient's size, after the decay.
  std::vector<double> w = {2, 2, -3}, g = {1e-3, 50, -4};
  const auto adamw = make_optimizer<double>({.weight_decay = 0.5, .eps = 0}, 3);
  adamw->step({w.data(), g.data(), 3, 2}, 0.1, 1);
  CHECK(w[0] == doctest::Approx(2 * 0.95 - 0.1).epsilon(1e-14));
  CHECK(w[1] == doctest::Approx(2 * 0.95 - 0.1).epsilon(1e-14));
  CHECK(w[2] == doctest::Approx(-3 + 0.1).epsilon(1e-14));

  std::vector<double> s = {2, 2};
  const auto sgd = make_optimizer<double>({.name = "sgd", .weight_decay = 0.5}, 2);
  sgd->step({s.data(), g.data(), 2, 1}, 0.1, 0.5);
  CHECK(s[0] == doctest::Approx(2 - 0.1 * (0.5e-3 + 1)).epsilon(1e-14));
  CHECK(s[1] == doctest::Approx(2 - 0.1 * 25).epsilon(1e-14));
}

TEST_CASE("optim: a restored state continues to the bit, on any number of threads") {
  constexpr int64_t kCount = 65537;
  for (const OptimizerConfig& config : kConfigs) {
    CAPTURE(config.name);
    const auto advance = [&](Optimizer<float>& optimizer, std::vector<float>& w, int first, int last) {
      for (int step = first; step < last; ++step) {
        const auto g = normal_values<float>(kCount, uint32_t(step));
        optimizer.step({w.data(), g.data(), kCount, kCount / 3}, 0.01, 0.9);
      }
    };
    const auto start = normal_values<float>(kCount, 50);
    const auto whole = with_threads(1, [&] {
      auto w = start;
      advance(*make_optimizer<float>(config, kCount), w, 0, 4);
      return w;
    });
    const auto resumed = with_threads(2, [&] {
      auto w = start;
      const auto before = make_optimizer<float>(config, kCount);
      advance(*before, w, 0, 2);
      const auto after = make_optimizer<float>(config, kCount);
      const auto from = before->state(), to = after->state();
      REQUIRE(from.size() == to.size());
      for (size_t i = 0; i < from.size(); ++i) {
        CHECK(from[i].name == to[i].name);
        *to[i].values = from[i].values->clone();
      }
      after->set_steps(before->steps());
      advance(*after, w, 2, 4);
      return w;
    });
    CHECK((whole == resumed));
  }
}

TEST_CASE("optim: bad settings say what is wrong") {
  const Caught error = error_of(Exit::usage, [] { make_optimizer<float>({.name = "adam"}, 1); });
  CHECK(error.has("'adam'"));
  CHECK(error.has("mean 'adamw'"));
  CHECK(error_of(Exit::usage, [] { make_optimizer<float>({.name = "SGD2d"}, 1); }).has("mean 'sgd'"));
  CHECK(error_of(Exit::usage, [] { make_optimizer<float>({.beta2 = 1}, 1); }).has("beta2 1"));
  error_of(Exit::usage, [] { make_optimizer<float>({.name = "sgd", .momentum = 0, .nesterov = true}, 1); });

  float w = 1, g = 1;
  const auto optimizer = make_optimizer<float>({}, 2);
  CHECK_THROWS_AS(optimizer->step({&w, &g, 1, 1}, 0.1), Error);
  CHECK_THROWS_AS(optimizer->step({&w, &g, 2, 3}, 0.1), Error);
  CHECK(optimizer->steps() == 0);
}

TEST_CASE("schedule: warm-up, cosine and their ends") {
  const ScheduleConfig config{
      .lr = 0.5, .warmup_lr = 0.1, .min_lr = 0.02, .warmup_steps = 10, .total_steps = 110};
  CHECK(learning_rate(config, 0) == 0.1);
  CHECK(learning_rate(config, 5) == doctest::Approx(0.3).epsilon(1e-14));
  CHECK(learning_rate(config, 10) == 0.5);
  CHECK(learning_rate(config, 60) == doctest::Approx(0.26).epsilon(1e-14));
  CHECK(learning_rate(config, 35) ==
        doctest::Approx(0.02 + 0.48 * (1 + std::sqrt(0.5)) / 2).epsilon(1e-14));  // cos(pi / 4)
  CHECK(learning_rate(config, 109) > 0.02);
  CHECK(learning_rate(config, 110) == 0.02);
  CHECK(learning_rate(config, 111) == 0.02);
  for (int64_t step = 1; step < 110; ++step)
    CHECK((learning_rate(config, step) > learning_rate(config, step - 1)) == (step <= 10));

  auto constant = config;
  constant.kind = ScheduleConfig::Kind::constant;
  constant.total_steps = 0;
  CHECK(learning_rate(constant, 5) == doctest::Approx(0.3).epsilon(1e-14));
  CHECK(learning_rate(constant, 10) == 0.5);
  CHECK(learning_rate(constant, 1000) == 0.5);

  CHECK(learning_rate({.lr = 0.5, .total_steps = 4}, 0) == 0.5);  // no warm-up
  const Caught error = error_of(Exit::usage, [] { learning_rate({.warmup_steps = 5, .total_steps = 4}, 0); });
  CHECK(error.has("5 steps"));
  CHECK(error.has("4 steps"));
}

template <class T>
void reduces(int64_t count) {
  CAPTURE(count);
  const std::vector<std::vector<T>> inputs = {normal_values<T>(count, 1), normal_values<T>(count, 2),
                                              normal_values<T>(count, 3)};
  std::vector<std::vector<T>> sums;
  std::vector<double> norms;
  for (const int threads : {1, 2}) {
    auto buffers = inputs;
    const std::vector<T*> replicas = {buffers[0].data(), buffers[1].data(), buffers[2].data()};
    norms.push_back(with_threads(threads, [&] { return reduce_gradients<T>(replicas, count); }));
    sums.push_back(buffers[0]);
    CHECK((buffers[1] == inputs[1]));
    CHECK((buffers[2] == inputs[2]));
  }
  CHECK((sums[0] == sums[1]));
  CHECK(norms[0] == norms[1]);
  double square = 0;
  std::vector<T> expected(inputs[0]);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] = expected[i] + inputs[1][i] + inputs[2][i];
    square += double(expected[i]) * double(expected[i]);
  }
  CHECK((sums[0] == expected));
  CHECK(norms[0] == doctest::Approx(std::sqrt(square)).epsilon(1e-13));
}

TEST_CASE("clip: replicas are added in order, with the norm, on any number of threads") {
  for (const int64_t count : {0, 1, 17, 65537}) {
    reduces<float>(count);
    reduces<double>(count);
  }
  std::vector<float> alone = {3, 4};
  float* const replica = alone.data();
  CHECK(reduce_gradients<float>({&replica, 1}, 2) == 5);
}

TEST_CASE("clip: the factor") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  CHECK(clip_factor(10, 0) == 1);
  CHECK(clip_factor(1, 1) == 1);
  CHECK(clip_factor(0, 1) == 1);
  CHECK(clip_factor(4, 1) == 0.25);
  CHECK(clip_factor(kInfinity, 1) == 1);
  CHECK(clip_factor(std::nan(""), 1) == 1);
  error_of(Exit::usage, [] { clip_factor(1, -1); });
}

// ---- experts averaging

constexpr int64_t kElements = 4099;  // over two blocks, odd

template <class T>
std::vector<T> mean_of(const std::vector<T>& stacked, int64_t experts, int64_t offset = 0) {
  std::vector<T> mean(size_t(kElements), T(-1));
  mean_experts(stacked.data() + offset, experts, kElements, mean.data());
  return mean;
}

template <class T>
void averages(int64_t experts, double rate) {
  CAPTURE(experts);
  CAPTURE(rate);
  constexpr int64_t kOffset = 5;  // what stands before and after must not change
  const auto old = normal_values<T>(kOffset + experts * kElements + 3, 1);
  const StackedParameter parameter{kOffset, experts, kElements};
  auto now = old;
  average_experts(now.data(), std::span(&parameter, 1), rate);

  // The definition, from the old values: also shows that no expert saw a new one.
  std::vector<T> expected = old;
  for (int64_t i = 0; i < experts; ++i)
    for (int64_t k = 0; k < kElements; ++k) {
      double others = 0;
      for (int64_t j = 0; j < experts; ++j)
        if (j != i) others += double(old[size_t(kOffset + j * kElements + k)]);
      T& w = expected[size_t(kOffset + i * kElements + k)];
      w = T((1 - rate) * double(w) + rate / double(experts - 1) * others);
    }
  check_close(now, expected, 1);

  const auto mean = mean_of(old, experts, kOffset);
  check_close(mean_of(now, experts, kOffset), mean, 1);
  for (int64_t k = 0; k < kElements; ++k) {
    double sum = 0;
    for (int64_t i = 0; i < experts; ++i) sum += double(old[size_t(kOffset + i * kElements + k)]);
    REQUIRE(std::abs(double(mean[size_t(k)]) - sum / double(experts)) <= tolerance<T>(1));
  }
  const double gamma = rate * double(experts) / double(experts - 1);
  const double ratio = expert_deviation(now.data(), std::span(&parameter, 1)) /
                       expert_deviation(old.data(), std::span(&parameter, 1));
  CHECK(std::abs(ratio - std::abs(1 - gamma)) <= tolerance<T>(1));
}

TEST_CASE("experts averaging: the mean stays and deviations shrink by 1 - gamma") {
  for (const int64_t experts : {2, 3, 4, 7})
    for (const double rate : {0.01, 0.3, 0.5}) {
      averages<float>(experts, rate);
      averages<double>(experts, rate);
    }
}

TEST_CASE("experts averaging: the ends of the share rate") {
  for (const int64_t experts : {2, 3, 4, 5, 7, 16}) {
    CAPTURE(experts);
    const StackedParameter parameter{0, experts, kElements};
    const auto old = normal_values<float>(experts * kElements, 1);
    auto now = old;
    average_experts(now.data(), std::span(&parameter, 1), 0.0);
    CHECK((now == old));

    average_experts(now.data(), std::span(&parameter, 1), double(experts - 1) / double(experts));
    const auto mean = mean_of(old, experts);
    for (int64_t e = 0; e < experts; ++e)
      CHECK(std::equal(mean.begin(), mean.end(), now.begin() + e * kElements));
    CHECK(expert_deviation(now.data(), std::span(&parameter, 1)) == 0);

    // Equal experts are a fixed point, to the bit.
    const auto equal = now;
    average_experts(now.data(), std::span(&parameter, 1), 0.3);
    CHECK((now == equal));
    CHECK((mean_of(now, experts) == mean));
  }
  const StackedParameter one{0, 1, kElements};
  const auto old = normal_values<float>(kElements, 1);
  auto now = old;
  average_experts(now.data(), std::span(&one, 1), 0.3);
  CHECK((now == old));
  CHECK((mean_of(now, 1) == old));
  CHECK(expert_deviation(now.data(), std::span(&one, 1)) == 0);
}

TEST_CASE("experts averaging: a share rate out of range changes nothing") {
  const std::vector<StackedParameter> parameters = {{0, 4, 3}, {12, 2, 3}};
  const auto old = normal_values<float>(18, 1);
  auto now = old;
  for (const double rate : {0.6, -0.1, std::nan("")}) {
    const Caught error = error_of(Exit::usage, [&] { average_experts<float>(now.data(), parameters, rate); });
    CHECK(error.has(text(rate)));
    CHECK((now == old));
  }
  CHECK(error_of(Exit::usage, [&] {
          average_experts<float>(now.data(), parameters, 0.6);
        }).has("[0, 0.5], the range for 2 experts"));
  average_experts<float>(now.data(), parameters, 0.5);
  CHECK((now != old));
}

TEST_CASE("experts averaging: the experts' order does not matter") {
  constexpr int64_t kExperts = 4;
  const StackedParameter parameter{0, kExperts, kElements};
  auto forward = normal_values<double>(kExperts * kElements, 1);
  std::vector<double> backward;
  for (int64_t e = kExperts; e-- > 0;)
    backward.insert(backward.end(), forward.begin() + e * kElements, forward.begin() + (e + 1) * kElements);
  average_experts(forward.data(), std::span(&parameter, 1), 0.3);
  average_experts(backward.data(), std::span(&parameter, 1), 0.3);
  for (int64_t e = 0; e < kExperts; ++e) {
    const auto at = backward.begin() + (kExperts - 1 - e) * kElements;
    check_close(std::vector<double>(forward.begin() + e * kElements, forward.begin() + (e + 1) * kElements),
                std::vector<double>(at, at + kElements), 1);
  }
}

TEST_CASE("experts averaging: with SGD, deviations are a fading memory of past gradients") {
  constexpr int64_t kExperts = 4, kCount = kExperts * kElements;
  constexpr int kSteps = 6;
  constexpr double kRate = 0.3, kLr = 0.05, kGamma = kRate * kExperts / (kExperts - 1);
  const StackedParameter parameter{0, kExperts, kElements};
  // Subtracts the mean over the experts.
  const auto deviations = [](std::vector<double> stacked) {
    const auto mean = mean_of(stacked, kExperts);
    for (size_t i = 0; i < stacked.size(); ++i) stacked[i] -= mean[i % size_t(kElements)];
    return stacked;
  };
  auto w = normal_values<double>(kCount, 1);
  auto expected = deviations(w);
  auto expected_mean = mean_of(w, kExperts);
  for (double& d : expected) d *= std::pow(1 - kGamma, kSteps);

  const auto sgd = make_optimizer<double>({.name = "sgd", .weight_decay = 0, .momentum = 0}, kCount);
  for (int t = 0; t < kSteps; ++t) {
    const auto g = normal_values<double>(kCount, uint32_t(10 + t));
    sgd->step({w.data(), g.data(), kCount, kCount}, kLr);
    average_experts(w.data(), std::span(&parameter, 1), kRate);
    const auto apart = deviations(g);
    for (size_t i = 0; i < apart.size(); ++i)
      expected[i] -= kLr * std::pow(1 - kGamma, kSteps - t) * apart[i];
    const auto mean = mean_of(g, kExperts);
    for (size_t i = 0; i < mean.size(); ++i) expected_mean[i] -= kLr * mean[i];
  }
  check_close(deviations(w), expected, 1);
  check_close(mean_of(w, kExperts), expected_mean, 1);
}

TEST_CASE("experts averaging: the same bits on any number of threads") {
  constexpr int64_t kExperts = 3, kCount = 65537;
  const StackedParameter parameter{0, kExperts, kCount};
  const auto start = normal_values<float>(kExperts * kCount, 1);
  const auto run = [&] {
    auto now = start;
    average_experts(now.data(), std::span(&parameter, 1), 0.3);
    now.push_back(float(expert_deviation(now.data(), std::span(&parameter, 1))));
    return now;
  };
  CHECK((with_threads(1, run) == with_threads(2, run)));
}

TEST_CASE("experts averaging: the deviation is relative, over all parameters together") {
  // Means 2 and 1, deviations 1 and 2: sqrt((1 + 1 + 4 + 4) / (2 * 4 + 2 * 1)) = 1.
  const std::vector<double> values = {3, 1, 3, -1};
  const std::vector<StackedParameter> parameters = {{0, 2, 1}, {2, 2, 1}};
  CHECK(expert_deviation<double>(values.data(), parameters) == doctest::Approx(1).epsilon(1e-15));
  const std::vector<double> opposite = {1, -1};
  CHECK(std::isinf(expert_deviation<double>(opposite.data(), std::span(parameters).first(1))));
}

TEST_CASE("experts averaging: share rate schedules") {
  const ShareRateSchedule constant;
  CHECK(constant.at(0) == 0.3);
  CHECK(constant.at(1000000) == 0.3);
  const ShareRateSchedule linear{.kind = ShareRateSchedule::Kind::linear, .rate = 0.4, .ramp_steps = 8};
  CHECK(linear.at(0) == 0);
  CHECK(linear.at(2) == doctest::Approx(0.1).epsilon(1e-15));
  CHECK(linear.at(8) == 0.4);
  CHECK(linear.at(9) == 0.4);
}

}  // namespace
}  // namespace tessera
