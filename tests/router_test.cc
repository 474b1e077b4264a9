// Routers: what holds for every choice and every cut of a batch, explicit loops over experts, and V-MoE's
// layer as PyTorch computed it (tests/fixtures/make_router.py).
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "engine/io/safetensors.h"
#include "engine/ops/elementary.h"
#include "nn/moe/token_router.h"
#include "tests/places.h"
#include "tests/router_inputs.h"

namespace tessera {
namespace {

TEST_CASE("top_k gives every row its k largest, the largest first, and of equal ones the first") {
  const Tensor scores = normal({200, 5}, 0);
  for (const int64_t k : {1, 2, 5}) {
    const Tensor chosen = top_k(scores, k);
    bool right = true;
    for (int64_t i = 0; i < 200; ++i) {
      std::set<int32_t> own;
      for (int64_t j = 0; j < k; ++j) {
        own.insert(at(chosen, i, j));
        int larger = 0;
        for (int64_t e = 0; e < 5; ++e) larger += scores.at(i * 5 + e) > scores.at(i * 5 + at(chosen, i, j));
        right = right && larger == j;
      }
      right = right && int64_t(own.size()) == k;
    }
    CHECK(right);
  }
  const Tensor ties = top_k(Tensor::of({1, 4}, std::vector<double>{1, 2, 2, 1}), 3);
  CHECK(at(ties, 0, 0) == 1);
  CHECK(at(ties, 0, 1) == 2);
  CHECK(at(ties, 0, 2) == 0);
  CHECK_THROWS_WITH_AS(top_k(scores, 6), "top_k: 6 of the E=5 experts", Error);
}

TEST_CASE("capacity is the even share times its factor, up to a multiple of 4") {
  const Capacity c{.factor = 1.05};
  CHECK(c.of(8 * 65, 2, 4) == 276);  // 273
  CHECK(c.of(8 * 65, 1, 8) == 72);   // 68.25, 69
  CHECK(c.of(1, 1, 32) == 4);
  CHECK(Capacity{.factor = 1}.of(32, 1, 8) == 4);  // exactly
}

TEST_CASE("no expert takes more than its capacity, slots are each used once, in the experts' order") {
  const int64_t M = 333, k = 3, E = 5;
  const Tensor scores = normal({M, E}, 1);
  for (int64_t i = 0; i < M; ++i) scores.detach().mutable_data<double>()[i * E] += 1.5;  // a favourite
  const Tensor chosen = top_k(scores, k);
  for (const double factor : {0.0, 0.3, 1.0, 9.0})
    for (const int64_t rows : {0, 40, 333}) {
      CAPTURE(factor);
      CAPTURE(rows);
      const Capacity capacity{.rows = rows, .factor = factor};
      const Routing r = place(chosen, E, capacity);
      REQUIRE(r.experts() == E);
      std::set<int32_t> slots;
      int64_t dropped = 0;
      std::vector<std::vector<int64_t>> taken(size_t(rows ? (M + rows - 1) / rows : 1),
                                              std::vector<int64_t>(size_t(E), 0));
      bool sorted = true;
      for (int64_t i = 0; i < M; ++i)
        for (int64_t j = 0; j < k; ++j) {
          const int32_t slot = at(r.slots, i, j), e = at(chosen, i, j);
          if (slot < 0) {
            ++dropped;
            continue;
          }
          slots.insert(slot);
          ++taken[size_t(rows ? i / rows : 0)][size_t(e)];
          sorted = sorted && slot >= r.offsets[size_t(e)] && slot < r.offsets[size_t(e) + 1];
        }
      CHECK(sorted);
      CHECK(int64_t(slots.size()) == M * k - dropped);
      CHECK(r.offsets.back() == M * k - dropped);
      CHECK((dropped == 0) == (factor == 0 || factor == 9));
      for (size_t g = 0; factor > 0 && g < taken.size(); ++g) {
        const int64_t own = rows ? std::min(rows, M - int64_t(g) * rows) : M;
        const int64_t most = capacity.of(own, k, E);
        CHECK(*std::max_element(taken[g].begin(), taken[g].end()) <= most);
        // Who is dropped is dropped because the expert is full.
        if (dropped > 0) CHECK(taken[g][0] == std::min(most, own));
      }
    }
}

TEST_CASE("first choices are served before second ones, and by priority where there is one") {
  // Six tokens; expert 0 has room for four.
  const Tensor chosen = Tensor::of({6, 2}, std::vector<int32_t>{1, 0, 0, 1, 0, 2, 0, 2, 0, 1, 0, 1});
  const auto kept = [&](const Capacity& c) {
    std::vector<int> kept;
    const Routing r = place(chosen, 3, c);
    for (int64_t i = 0; i < 12; ++i) kept.push_back(r.slots.data<int32_t>()[i] >= 0);
    return kept;
  };
  Capacity capacity{.factor = 0.5};  // ceil(2 * 6 * 0.5 / 3) = 2, so 4
  CHECK(kept(capacity) == std::vector<int>{1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1});
  capacity.priority = Tensor::of({6}, std::vector<double>{0.9, 0.1, 0.5, 0.6, 0.7, 0.8});
  CHECK(kept(capacity) == std::vector<int>{1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1});
}

// ---- a layer of routed experts

struct RoutedLayer {
  ParameterStore store{DType::f64};
  std::unique_ptr<TokenRoutedMoe> layer;
  std::unique_ptr<ParameterGradients> gradients;

  explicit RoutedLayer(const RouterOptions& options, double dropout = 0) {
    layer = std::make_unique<TokenRoutedMoe>(Scope(store), kE, kC, kHidden, WeightInit::xavier,
                                             ExpertInit::independent, options, dropout);
    store.allocate(1);
    for (const auto& p : store.parameters()) {
      Tensor value = p.value;
      const Tensor drawn = scale(normal(value.shape(), uint32_t(p.offset)), 0.5);
      std::copy_n(drawn.data<double>(), value.count(), value.mutable_data<double>());
    }
    gradients = store.make_gradients();
  }
  Tensor parameter(const std::string& name) const { return store.find(name)->value; }
  Tensor gradient(const std::string& name) {
    const auto& p = *store.find(name);
    Tensor g(p.value.shape(), DType::f64);
    std::copy_n(gradients->flat().data<double>() + p.offset, g.count(), g.mutable_data<double>());
    return g;
  }

  struct Result {
    Tensor y, dx;
    double auxiliary = 0, total = 0;
    std::map<std::string, std::vector<double>> notes;
  };
  // `share` of sum(y w) + share of the auxiliary losses, whose gradients are added to what is there.
  template <class F>
  Result run(const Tensor& x, Pass pass, const Tensor& w, double share, F&& forward) {
    const ParameterGradients::Scope collect(*gradients);
    Tensor leaf = x.clone().require_grad();
    PassReport report;
    pass.report = &report;
    Tape tape;
    const Tape::Scope record(&tape);
    Result result;
    const Tensor y = forward(leaf, pass);
    Tensor loss = scale(mean(mul(y, w)), double(y.count()) / share);
    result.y = y.detach().clone();
    for (const Tensor& auxiliary : report.losses) {
      result.auxiliary += auxiliary.item();
      loss = add(loss, auxiliary.reshape({}));
    }
    result.total = loss.item();
    result.notes = report.notes;
    tape.backward(loss, share);
    result.dx = leaf.grad();
    return result;
  }
  Result run(const Tensor& x, const Pass& pass, const Tensor& w, double share = 1) {
    return run(x, pass, w, share,
               [&](const Tensor& leaf, const Pass& p) { return layer->forward(leaf, {leaf}, p); });
  }
  void fill_unwritten() { gradients->fill_unwritten(store.gradient_counts()); }
};

// Expert e on one row, term by term.
std::vector<double> expert(const RoutedLayer& l, int64_t e, const double* row) {
  const Tensor w1 = l.parameter("fc1.weight"), b1 = l.parameter("fc1.bias"), w2 = l.parameter("fc2.weight"),
               b2 = l.parameter("fc2.bias");
  std::vector<double> out;
  for (int64_t c = 0; c < kC; ++c) out.push_back(b2.at(e * kC + c));
  for (int64_t h = 0; h < kHidden; ++h) {
    double z = b1.at(e * kHidden + h);
    for (int64_t c = 0; c < kC; ++c) z += w1.at((e * kHidden + h) * kC + c) * row[c];
    const double a = 0.5 * z * (1 + std::erf(z / std::sqrt(2.0)));
    for (int64_t c = 0; c < kC; ++c) out[size_t(c)] += w2.at((e * kC + c) * kHidden + h) * a;
  }
  return out;
}

TEST_CASE("a routed layer in evaluation is an explicit loop over tokens and their experts") {
  for (const int64_t k : {1, 2, 4}) {
    CAPTURE(k);
    const RoutedLayer l({.k = k});
    const Tensor x = normal({kB, kN, kC}, 1);
    const Tensor y = l.layer->forward(x, {x}, Pass{});
    double most = 0;
    for (int64_t i = 0; i < kB * kN; ++i) {
      const double* row = x.data<double>() + i * kC;
      const std::vector<double> p = probabilities(l.parameter("router.weight"), row);
      std::vector<double> want(row, row + kC);
      for (int64_t e = 0; e < kE; ++e) {
        if (std::count_if(p.begin(), p.end(), [&](double other) { return other > p[size_t(e)]; }) >= k)
          continue;
        const std::vector<double> out = expert(l, e, row);
        for (int64_t c = 0; c < kC; ++c) want[size_t(c)] += p[size_t(e)] * out[size_t(c)];
      }
      for (int64_t c = 0; c < kC; ++c) most = worst(most, std::abs(y.at(i * kC + c) - want[size_t(c)]));
    }
    CHECK(most <= 1e-12);
  }
}

TEST_CASE("V-MoE's layer in training as PyTorch computes it: capacity, losses, all gradients") {
  const SafetensorsFile file(kSourceFolder + "/tests/fixtures/router.safetensors");
  const auto floats = [&](const std::string& name) {
    const TensorEntry* e = file.find(name);
    REQUIRE_MESSAGE(e, name);
    Tensor tensor(Shape(e->shape.begin(), e->shape.end()), DType::f64);
    file.read_f64(*e, {tensor.mutable_data<double>(), size_t(tensor.count())});
    return tensor;
  };
  const auto integers = [&](const std::string& name) {
    const TensorEntry& e = *file.find(name);
    Tensor tensor(Shape(e.shape.begin(), e.shape.end()), DType::i32);
    std::copy_n(reinterpret_cast<const char*>(file.bytes(e).data()), tensor.count() * 4,
                reinterpret_cast<char*>(tensor.mutable_data<int32_t>()));
    return tensor;
  };
  const auto number = [&](const char* key) { return std::stod(file.metadata().at(key)); };
  const RouterOptions options{.k = int64_t(number("k")),
                              .importance = 0.3,
                              .load = 0.7,
                              .group = int64_t(number("group")) / kN,
                              .capacity = number("capacity")};
  RoutedLayer l(options);
  const std::pair<const char*, const char*> names[] = {{"router", "router.weight"},
                                                       {"fc1_weight", "fc1.weight"},
                                                       {"fc1_bias", "fc1.bias"},
                                                       {"fc2_weight", "fc2.weight"},
                                                       {"fc2_bias", "fc2.bias"}};
  for (const auto& [from, to] : names) {
    Tensor value = l.parameter(to);
    std::copy_n(floats(from).data<double>(), value.count(), value.mutable_data<double>());
  }
  Tensor residual = floats("residual").require_grad();
  const auto run = [&](RoutedLayer& layer) {
    return layer.run(
        floats("x"), Pass{.training = true, .batch = kB}, floats("y_grad"), 1,
        [&](const Tensor& x, const Pass& pass) {
          const Tensor logits = linear(x, layer.parameter("router.weight")).reshape({kB * kN, kE});
          const Scores scores{logits, add(logits, floats("noise"))};
          return layer.layer->forward(x, scores, {residual}, pass);
        });
  };
  const RoutedLayer::Result got = run(l);
  CHECK(difference(got.y, floats("y")) <= 1e-12);
  CHECK(std::abs(got.auxiliary - 0.3 * floats("importance").item() - 0.7 * floats("load").item()) <= 1e-12);
  CHECK(difference(got.dx, floats("grad.x")) <= 1e-11);
  CHECK(difference(residual.grad(), floats("grad.residual")) <= 1e-11);
  l.fill_unwritten();
  for (const auto& [from, to] : names) {
    CAPTURE(to);
    CHECK(difference(l.gradient(to), floats(std::string("grad.") + from)) <= 1e-11);
  }
  const Tensor kept = integers("kept");
  int64_t sum = 0;
  for (int64_t i = 0; i < kept.count(); ++i) sum += kept.data<int32_t>()[i];
  CHECK(got.notes.at(".dropped")[0] == doctest::Approx(1 - double(sum) / double(kept.count())));
}

TEST_CASE("balance losses of numbers that are easy by hand") {
  // Two experts, no noise to speak of: token 0 scores ln 3 to 0, token 1 the same reversed, token 2 like 0.
  const double s = std::log(3.0);
  const Tensor logits = Tensor::of({3, 2}, std::vector<double>{s, 0, 0, s, s, 0});
  const Tensor chosen = top_k(logits, 1);
  RouterOptions options{.k = 1, .noise = 1, .importance = 1, .load = 0};
  // One group: the mean shares are (1.75, 1.25) / 3; std / mean = 0.25 / 1.5.
  CHECK(balance_loss({logits, logits}, chosen, options, 3).item() == doctest::Approx(1.0 / 36));
  // Groups of two and one: the first is even, the second (0.75, 0.25) counts for a third.
  CHECK(balance_loss({logits, logits}, chosen, options, 2).item() == doctest::Approx(0.25 / 3));
  // sigma = 1/2; the winner is at its threshold: chance 1/2; the loser ln 3 below it, 1 - Phi(2 ln 3).
  options.importance = 0;
  options.load = 1;
  const double lose = 0.5 * std::erfc(2 * s / std::sqrt(2.0)), win = 0.5;
  const double a = 2 * win + lose, b = win + 2 * lose;
  CHECK(balance_loss({logits, logits}, chosen, options, 3).item() ==
        doctest::Approx(std::pow((a - b) / (a + b), 2)));
  options.noise = 0;
  CHECK(balance_loss({logits, logits}, chosen, options, 3).item() == 0);
}

TEST_CASE("the balance losses' gradients are finite differences") {
  const Tensor w = Tensor::zeros({kB, kN, kC}, DType::f64);  // the losses alone
  const Tensor x = normal({kB, kN, kC}, 1);
  const Pass pass{.training = true, .seed = 3, .step = 4, .batch = kB};
  for (const auto& [importance, load] : {std::pair{1.0, 0.0}, {0.0, 1.0}}) {
    const RouterOptions options{.k = 2, .importance = importance, .load = load, .group = 2};
    RoutedLayer l(options);
    l.run(x, pass, w);
    l.fill_unwritten();
    const Tensor gradient = l.gradient("router.weight");
    double largest = 0;
    for (int64_t i = 0; i < gradient.count(); ++i) {
      largest = std::max(largest, std::abs(gradient.at(i)));
      const auto loss = [&](double step) {
        RoutedLayer moved(options);
        moved.parameter("router.weight").mutable_data<double>()[i] += step;
        return moved.run(x, pass, w).total;
      };
      const double h = 1e-5;
      CHECK(std::abs((loss(h) - loss(-h)) / (2 * h) - gradient.at(i)) <= 1e-7);
    }
    CHECK(largest > 1e-3);
  }
}

TEST_CASE("a batch may be cut between groups and nowhere else") {
  const int64_t B = 7;
  const Tensor x = normal({B, kN, kC}, 1), w = normal({B, kN, kC}, 2);
  const RouterOptions options{.k = 2, .importance = 0.5, .load = 0.5, .group = 2, .capacity = 0.7};
  RoutedLayer whole(options, 0.2), cut(options, 0.2);
  Pass pass{.training = true, .seed = 8, .step = 1, .batch = B};
  const RoutedLayer::Result all = whole.run(x, pass, w);
  double auxiliary = 0;
  Tensor y(x.shape(), DType::f64), dx(x.shape(), DType::f64);
  for (const auto& [first, last] : {std::pair<int64_t, int64_t>{0, 2}, {2, 6}, {6, 7}}) {
    pass.first_sample = first;
    const double share = double(last - first) / double(B);
    const auto part = cut.run(slice(x, 0, first, last), pass, slice(w, 0, first, last), share);
    auxiliary += share * part.auxiliary;
    std::copy_n(part.y.data<double>(), part.y.count(), y.mutable_data<double>() + first * kN * kC);
    std::copy_n(part.dx.data<double>(), part.dx.count(), dx.mutable_data<double>() + first * kN * kC);
  }
  CHECK(all.notes.at(".dropped")[0] > 0);
  CHECK(difference(y, all.y) <= 1e-13);
  CHECK(difference(dx, all.dx) <= 1e-12);
  CHECK(auxiliary == doctest::Approx(all.auxiliary).epsilon(1e-12));
  whole.fill_unwritten();
  cut.fill_unwritten();
  for (const auto& p : whole.store.parameters()) {
    CAPTURE(p.name);
    CHECK(difference(cut.gradient(p.name), whole.gradient(p.name)) <= 1e-11);
  }
  pass.first_sample = 3;
  CHECK_THROWS_WITH_AS(
      cut.run(slice(x, 0, 3, 5), pass, slice(w, 0, 3, 5)),
      "token router: samples 3 to 5 of a batch of 7 are no whole groups of model.moe.group = 2", Error);
}

TEST_CASE("a token's experts drop hidden units each by a draw of its own") {
  ParameterStore store(DType::f64);
  const Experts experts(Scope(store), 2, kC, 50, WeightInit::xavier, ExpertInit::alike, 0.5);
  store.allocate(1);
  const Tensor x = normal({kB, kN, kC}, 1), zeros = Tensor::zeros(x.shape(), DType::f64);
  // Through both, the second one's output taken off again: what is left is the difference of the draws.
  std::vector<int32_t> both;
  std::vector<double> gates;
  for (int64_t i = 0; i < kB * kN; ++i) {
    both.insert(both.end(), {int32_t(i % 2), int32_t(1 - i % 2)});
    gates.insert(gates.end(), {1, -1});
  }
  Routing routing = place(Tensor::of({kB * kN, 2}, both), 2);
  routing.gates = Tensor::of({kB * kN, 2}, gates);
  CHECK(difference(through_experts(experts, x, routing, {zeros}, Pass{}), zeros) <= 1e-14);
  const Tensor left = through_experts(experts, x, routing, {zeros}, Pass{.training = true, .batch = kB});
  for (int64_t i = 0; i < kB * kN; ++i) CHECK(std::abs(left.at(i * kC)) > 1e-6);
}

TEST_CASE("noise on the scores has the deviation noise / E") {
  const int64_t n = 20000;
  const Pass pass{.training = true, .seed = 3, .batch = n};
  const Scores scores = score(normal({n, 1, kC}, 1), normal({kE, kC}, 2), 1.2, pass, 5);
  double squares = 0;
  for (int64_t i = 0; i < n * kE; ++i) {
    const double noise = scores.noisy.at(i) - scores.logits.at(i);
    squares += noise * noise;
  }
  CHECK(std::sqrt(squares / double(n * kE)) == doctest::Approx(1.2 / kE).epsilon(0.015).scale(0));
}

TEST_CASE("tokens have priority by their largest gate") {
  const RouterOptions options{
      .k = 2, .noise = 0, .importance = 0, .load = 0, .group = kB, .capacity = 0.3, .batch_priority = true};
  const RoutedLayer l(options);
  const Tensor x = normal({kB, kN, kC}, 1), zeros = Tensor::zeros(x.shape(), DType::f64);
  std::vector<double> gates, largest;
  for (int64_t i = 0; i < kB * kN; ++i) {
    const auto p = probabilities(l.parameter("router.weight"), x.data<double>() + i * kC);
    gates.insert(gates.end(), p.begin(), p.end());
    largest.push_back(*std::max_element(p.begin(), p.end()));
  }
  const Tensor chosen = top_k(Tensor::of({kB * kN, kE}, gates), 2);
  const Routing routing =
      place(chosen, kE, {.rows = kB * kN, .factor = 0.3, .priority = Tensor::of({kB * kN}, largest)});
  const Tensor y = l.layer->forward(x, {zeros}, Pass{.training = true, .batch = kB});
  int64_t wrong = 0, dropped = 0;
  for (int64_t i = 0; i < kB * kN; ++i) {
    std::vector<double> want(size_t(kC), 0.0);
    for (int64_t j = 0; j < 2; ++j) {
      const int64_t e = at(chosen, i, j);
      if (at(routing.slots, i, j) < 0) {
        ++dropped;
        continue;
      }
      const auto own = expert(l, e, x.data<double>() + i * kC);
      for (size_t c = 0; c < size_t(kC); ++c) want[c] += gates[size_t(i * kE + e)] * own[c];
    }
    for (int64_t c = 0; c < kC; ++c) wrong += std::abs(y.at(i * kC + c) - want[size_t(c)]) > 1e-12;
  }
  CHECK(dropped > kB * kN / 2);
  CHECK(wrong == 0);
}

TEST_CASE("a sample's drop-path scale is of what its experts give") {
  const RoutedLayer l({.k = 2, .group = kB});
  const Tensor x = normal({kB, kN, kC}, 1), factor = normal({kB}, 2);
  const Tensor plain = l.layer->forward(x, {x}, Pass{}), scaled = l.layer->forward(x, {x, factor}, Pass{});
  for (int64_t i = 0; i < x.count(); ++i)
    CHECK(scaled.at(i) - x.at(i) ==
          doctest::Approx(factor.at(i / (kN * kC)) * (plain.at(i) - x.at(i))).epsilon(1e-9));
}

TEST_CASE("noise changes with the step and not at all in evaluation") {
  const RoutedLayer l({.k = 1, .noise = 1, .group = kB});
  const Tensor x = normal({kB, kN, kC}, 1);
  Pass pass{.training = true, .seed = 3, .step = 1, .batch = kB};
  const Tensor first = l.layer->forward(x, {x}, pass);
  CHECK(difference(l.layer->forward(x, {x}, pass), first) == 0);
  pass.step = 2;
  CHECK(difference(l.layer->forward(x, {x}, pass), first) > 1e-3);
  CHECK(difference(l.layer->forward(x, {x}, Pass{.step = 1}), l.layer->forward(x, {x}, Pass{.step = 2})) ==
        0);
}

}  // namespace
}  // namespace tessera
