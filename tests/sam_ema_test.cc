// What goes around an optimizer: sharpness-aware minimisation, the moving average, learning rates by layer.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "optim/ema.h"
#include "optim/optimizer.h"
#include "optim/sam.h"

namespace tessera {
namespace {

TEST_CASE("sam: the second gradient of a quadratic is the one a step of rho uphill") {
  // L = (w0^2 + 4 w1^2) / 2 at (3, 1): g = (3, 4), |g| = 5, so that rho = 0.5 moves by (0.3, 0.4).
  std::vector<float> w{3, 1};
  const std::vector<float> start = w, gradient{3, 4};
  Sam sam(0.5);
  double norm = 5;
  sam.climb(w.data(), gradient.data(), 2, &norm);
  CHECK(w[0] == doctest::Approx(3.3));
  CHECK(w[1] == doctest::Approx(1.4));
  sam.descend(w.data());
  CHECK(w == start);
  norm = 0;
  sam.climb(w.data(), std::vector<float>{0, 0}.data(), 2, &norm);  // no direction
  CHECK(w == start);
}

TEST_CASE("optim: bf16 copies are written with the weights") {
  constexpr int64_t kCount = 37;
  const std::vector<RateRange> rates{{9, 0.5}, {20, 0.25}, {kCount, 1}};
  const auto rounded = [](const std::vector<float>& w, const std::vector<bf16>& copies) {
    bool all = true;
    for (size_t i = 0; i < w.size(); ++i) all = all && copies[i].bits == bf16(w[i]).bits;
    return all;
  };
  for (const char* name : {"adamw", "sgd"})
    for (const bool by_range : {false, true}) {
      CAPTURE(name);
      CAPTURE(by_range);
      std::vector<float> gradients, w;
      for (uint64_t i = 0; i < kCount; ++i) {
        w.push_back(float(Draw{.seed = 1}.normal(i)));
        gradients.push_back(float(Draw{.seed = 2}.normal(i)));
      }
      std::vector<float> alone = w;
      std::vector<bf16> copies(size_t{kCount}, bf16(7));
      const OptimizerConfig config{.name = name, .weight_decay = 0.1};
      const auto optimizer = make_optimizer<float>(config, kCount),
                 other = make_optimizer<float>(config, kCount);
      FlatParameters<float> flat{w.data(), gradients.data(), kCount, 13};
      if (by_range) flat.rates = rates;
      Sam sam(0.5);
      const double norm = 2;
      for (int step = 0; step < 3; ++step) {
        flat.values = alone.data();
        flat.copies = nullptr;
        other->step(flat, 0.1);
        flat.values = w.data();
        flat.copies = copies.data();
        sam.climb(w.data(), gradients.data(), kCount, &norm, copies.data());
        CHECK(rounded(w, copies));
        sam.descend(w.data(), copies.data());
        CHECK(rounded(w, copies));
        optimizer->step(flat, 0.1);
        CHECK(rounded(w, copies));
      }
      for (size_t i = 0; i < kCount; ++i) CHECK(w[i] == doctest::Approx(alone[i]).epsilon(1e-6));
      StepNumbers stopped{.stopped = 1, .lr = 0.1};
      const std::vector<float> before = w;
      optimizer->step(flat, &stopped);
      CHECK(w == before);
    }
}

TEST_CASE("ema: the recursion with its rising decay, and the exchange") {
  std::vector<float> w{1, -2, 5};
  Ema ema(w.data(), 3, 0.75);
  std::vector<double> expected{1, -2, 5};
  for (int64_t t = 1; t <= 40; ++t) {
    for (float& value : w) value = value * 0.9f + float(t);
    const StepNumbers numbers{.ema_keep = ema.keep(t)};
    ema.update(w.data(), &numbers);
    const double keep = std::min(0.75, (1 + double(t)) / (10 + double(t)));
    for (size_t i = 0; i < 3; ++i) expected[i] = keep * expected[i] + (1 - keep) * double(w[i]);
  }
  for (size_t i = 0; i < 3; ++i)
    CHECK(ema.values().at(int64_t(i)) == doctest::Approx(expected[i]).epsilon(1e-5));
  const std::vector<float> own = w, average = ema.values().values<float>();
  ema.swap(w.data());
  CHECK(w == average);
  ema.swap(w.data());
  CHECK(w == own);
  CHECK(ema.values().values<float>() == average);
}

TEST_CASE("optim: ranges of learning rates are optimizers of their own") {
  const std::vector<double> start{1, 2, 3, 4, 5, 6}, gradients{0.5, -1, 2, -0.25, 1, -3};
  const std::vector<RateRange> rates{{2, 0.5}, {3, 0.25}, {6, 1}};
  for (const char* name : {"adamw", "sgd"}) {
    const OptimizerConfig config{.name = name, .weight_decay = 0.1};
    std::vector<double> together = start, apart;
    const auto optimizer = make_optimizer<double>(config, 6);
    optimizer->step({together.data(), gradients.data(), 6, 4, rates}, 0.1);
    int64_t begin = 0;
    for (const auto& [end, factor] : rates) {
      std::vector<double> part(start.begin() + begin, start.begin() + end);
      const int64_t count = end - begin;
      make_optimizer<double>(config, count)
          ->step({part.data(), gradients.data() + begin, count,
                  std::min<int64_t>(count, std::max<int64_t>(0, 4 - begin))},
                 0.1 * factor);
      apart.insert(apart.end(), part.begin(), part.end());
      begin = end;
    }
    CHECK(together == apart);
    CHECK(together != start);
  }
}

}  // namespace
}  // namespace tessera
