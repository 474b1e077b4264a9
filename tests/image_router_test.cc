// The router of images: whole images through their experts, super-classes of hard and of mixed targets.
#include "nn/moe/image_router.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/router_inputs.h"

namespace tessera {
namespace {

struct Images {
  ParameterStore store{DType::f64};
  std::unique_ptr<ImageRouter> router;
  explicit Images(const RouterOptions& options, std::vector<int32_t> superclass = {}) {
    router = std::make_unique<ImageRouter>(Scope(store) / "router", kE, kC, WeightInit::xavier, options,
                                           std::move(superclass));
    store.allocate(1);
  }
  const double* weight() const { return store.find("router.weight")->value.data<double>(); }
};

TEST_CASE("all tokens of an image go to the experts of its largest gates") {
  const Images images({.k = 2});
  const Tensor x = normal({kB, kC}, 1);
  const Routing r = images.router->route(x, kN, Pass{});
  for (int64_t b = 0; b < kB; ++b) {
    const auto p = probabilities(images.store.find("router.weight")->value, x.data<double>() + b * kC);
    const Tensor order = top_k(Tensor::of({1, kE}, p), 2);
    for (int64_t n = 0; n < kN; ++n)
      for (int64_t j = 0; j < 2; ++j) {
        const int64_t e = at(order, 0, j), slot = at(r.slots, b * kN + n, j);
        CHECK(slot >= r.offsets[size_t(e)]);
        CHECK(slot < r.offsets[size_t(e) + 1]);
        CHECK(r.gates.at((b * kN + n) * 2 + j) == doctest::Approx(p[size_t(e)]));
      }
  }
  const Images renormalised({.k = 2, .renormalize = true});
  const Routing q = renormalised.router->route(x, kN, Pass{});
  for (int64_t i = 0; i < kB * kN; ++i) {
    CHECK(q.gates.at(2 * i) + q.gates.at(2 * i + 1) == doctest::Approx(1));
    CHECK(q.gates.at(2 * i) / q.gates.at(2 * i + 1) ==
          doctest::Approx(r.gates.at(2 * i) / r.gates.at(2 * i + 1)));
  }
}

TEST_CASE("a router is taught by cross-entropy to super-classes, of hard and of soft targets") {
  const std::vector<int32_t> superclass{0, 1, 1, 3, 2, 0};
  const Images images({.k = 1, .superclass_loss = 0.3}, superclass);
  const Tensor x = normal({3, kC}, 1);
  const auto loss_of = [&](const Tensor& targets) {
    PassReport report;
    images.router->route(x, 1, Pass{.training = true, .targets = targets, .report = &report});
    REQUIRE(report.losses.size() == 1);
    return report.losses[0].item();
  };
  std::vector<std::vector<double>> p;
  for (int64_t b = 0; b < 3; ++b)
    p.push_back(probabilities(images.store.find("router.weight")->value, x.data<double>() + b * kC));
  const double hard = -(std::log(p[0][1]) + std::log(p[1][0]) + std::log(p[2][3])) / 3;
  CHECK(loss_of(Tensor::of({3}, std::vector<int32_t>{2, 5, 3})) == doctest::Approx(0.3 * hard));
  // Image 0 is 0.2 class 1, 0.5 class 2 and 0.3 class 4: 0.7 of group 1, 0.3 of group 2.
  const Tensor soft =
      Tensor::of({3, 6}, std::vector<double>{0, 0.2, 0.5, 0, 0.3, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0});
  const double mixed =
      -(0.7 * std::log(p[0][1]) + 0.3 * std::log(p[0][2]) + std::log(p[1][0]) + std::log(p[2][3])) / 3;
  CHECK(loss_of(soft) == doctest::Approx(0.3 * mixed));
}

TEST_CASE("images go through the truth's expert in training where that is asked for") {
  const std::vector<int32_t> superclass{2, 3};
  for (const int64_t k : {1, 2})
    for (const bool truth : {false, true}) {
      const Images images({.k = k, .routes = truth ? TrainingRoutes::truth : TrainingRoutes::predicted},
                          superclass);
      const Tensor x = normal({kB, kC}, 1);
      Pass pass{.training = true, .targets = Tensor::of({kB}, std::vector<int32_t>{0, 1, 0, 1, 0})};
      const Routing taught = images.router->route(x, 1, pass), own = images.router->route(x, 1, Pass{});
      int through_truth = 0;
      for (int64_t b = 0; b < kB; ++b) {
        const auto p = probabilities(images.store.find("router.weight")->value, x.data<double>() + b * kC);
        const int64_t e = superclass[size_t(b % 2)];
        const int32_t slot = at(taught.slots, b, 0);
        through_truth += slot >= taught.offsets[size_t(e)] && slot < taught.offsets[size_t(e) + 1];
        if (truth) CHECK(taught.gates.at(b * k) == doctest::Approx(p[size_t(e)]));
      }
      if (truth)
        CHECK(through_truth == kB);
      else
        CHECK(difference(taught.gates, own.gates) == 0);
    }
}

TEST_CASE("a router's accuracy is the part of images whose super-class has the largest gate") {
  const Images images({.k = 1}, {2, 3});
  const Tensor x = normal({kB, kC}, 1);
  PassReport report;
  images.router->route(
      x, kN, Pass{.targets = Tensor::of({kB}, std::vector<int32_t>{0, 1, 0, 1, 1}), .report = &report});
  const size_t wanted[] = {2, 3, 2, 3, 3};
  int right = 0;
  for (int64_t b = 0; b < kB; ++b) {
    const auto p = probabilities(images.store.find("router.weight")->value, x.data<double>() + b * kC);
    right += size_t(std::max_element(p.begin(), p.end()) - p.begin()) == wanted[b];
  }
  CHECK((right > 0 && right < kB));
  CHECK(report.notes.at("router.accuracy") == std::vector<double>{double(right) / double(kB)});
}

TEST_CASE("a mixed image goes through its super-classes in the order of their shares, whatever the gates") {
  const Images images({.k = 2, .routes = TrainingRoutes::truth}, {2, 3});
  Tensor weight = images.store.find("router.weight")->value;
  for (int64_t i = 0; i < weight.count(); ++i) weight.mutable_data<double>()[i] *= 30;  // gates near 0 and 1
  const Tensor x = normal({kB, kC}, 1);
  std::vector<double> soft;
  for (int64_t b = 0; b < kB; ++b) soft.insert(soft.end(), {b % 2 ? 0.55 : 0.45, b % 2 ? 0.45 : 0.55});
  const Pass pass{.training = true, .targets = Tensor::of({kB, 2}, soft)};
  const Routing r = images.router->route(x, 1, pass);
  for (int64_t b = 0; b < kB; ++b)
    for (int64_t j = 0; j < 2; ++j) {
      const size_t e = size_t(2 + (b + 1 + j) % 2);  // of the larger share first
      CHECK(at(r.slots, b, j) >= r.offsets[e]);
      CHECK(at(r.slots, b, j) < r.offsets[e + 1]);
    }
}

TEST_CASE("the end-to-end image router is kept even over the images of a group") {
  const Images images({.k = 1, .importance = 1, .load = 1, .group = 2});
  const Tensor x = normal({4, kC}, 1);
  const auto losses = [&](int64_t first, int64_t last) {
    PassReport report;
    Pass pass{.training = true, .first_sample = first, .batch = 4, .report = &report};
    images.router->route(slice(x, 0, first, last), kN, pass);
    REQUIRE(report.losses.size() == 1);
    return report.losses[0].item();
  };
  CHECK(losses(0, 4) > 0);
  CHECK((losses(0, 2) + losses(2, 4)) / 2 == doctest::Approx(losses(0, 4)).epsilon(1e-12));
}

}  // namespace
}  // namespace tessera
