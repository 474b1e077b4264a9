// Random uniform partition: what holds for every permutation, every scope and every cut of a batch.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "nn/feed_forward.h"
#include "nn/moe/random_partition.h"
#include "tests/random_inputs.h"
#include "tests/router_inputs.h"
#include "tests/worst.h"

namespace tessera {
namespace {

constexpr PartitionScope kScopes[] = {PartitionScope::batch, PartitionScope::per_image,
                                      PartitionScope::replica};

// The expert of each row.
std::vector<int64_t> experts_of(const Dispatch& d) {
  std::vector<int64_t> expert(size_t(d.order.count()), -1);
  for (size_t e = 0; e + 1 < d.offsets.size(); ++e)
    for (int64_t i = d.offsets[e]; i < d.offsets[e + 1]; ++i)
      expert.at(size_t(d.order.data<int32_t>()[i])) = int64_t(e);
  return expert;
}

std::vector<int64_t> sizes(std::vector<int64_t>::const_iterator begin,
                           std::vector<int64_t>::const_iterator end, int64_t E) {
  std::vector<int64_t> count(size_t(E), 0);
  for (; begin != end; ++begin) ++count.at(size_t(*begin));
  return count;
}

bool balanced(const std::vector<int64_t>& count) {
  const auto [least, most] = std::minmax_element(count.begin(), count.end());
  return *most - *least <= 1;
}

TEST_CASE("parts are contiguous, cover all places, and differ by at most one") {
  for (const int64_t E : {1, 2, 3, 4, 7})
    for (const int64_t size : {1, 2, 3, 7, 65, 195, 260}) {
      std::vector<int64_t> part;
      for (int64_t place = 0; place < size; ++place) part.push_back(part_of(place, size, E));
      CHECK(std::is_sorted(part.begin(), part.end()));
      CHECK(balanced(sizes(part.begin(), part.end(), E)));
    }
}

TEST_CASE("grouping keeps the rows of an expert in their order") {
  const Dispatch d = group_by_expert({2, 0, 2, 1, 0}, 4);
  CHECK(d.offsets == std::vector<int64_t>{0, 2, 3, 5, 5});
  const int32_t* order = d.order.data<int32_t>();
  CHECK(std::vector<int32_t>(order, order + 5) == std::vector<int32_t>{1, 4, 3, 0, 2});
}

// The way of a card, on the host.
TEST_CASE("placing rows by their permutation gives each the expert that grouping gives it") {
  for (const int64_t E : {1, 3, 4, 7})
    for (const auto& [size, copies] :
         {std::pair<int64_t, int64_t>{1, 1}, {5, 1}, {65, 3}, {195, 1}, {6, 5}}) {
      CAPTURE(E);
      CAPTURE(size);
      const PartitionDraw draw{{.seed = 6, .stream = Stream::partition}, size % 2 ? -1 : 3};
      const Permutation permutation = draw.permutation(size);
      std::vector<int32_t> expert;
      for (int64_t row = 0; row < size * copies; ++row)
        expert.push_back(int32_t(part_of(int64_t(permutation.at(uint64_t(row % size))), size, E)));
      const Dispatch placed = place_by_expert(draw, size, E, copies), grouped = group_by_expert(expert, E);
      CHECK(placed.offsets == grouped.offsets);
      CHECK(experts_of(placed) == experts_of(grouped));
    }
}

TEST_CASE("each scope gives every row one expert, in parts that differ by at most one") {
  const int64_t B = 3, N = 65, E = 4;
  for (const PartitionScope scope : kScopes) {
    CAPTURE(int(scope));
    const Pass pass{.training = true, .seed = 5, .step = 2, .batch = B};
    const std::vector<int64_t> expert = experts_of(random_partition(scope, E, B, N, pass, 1));
    CHECK(*std::min_element(expert.begin(), expert.end()) == 0);  // no row was left out
    if (scope == PartitionScope::per_image) {
      CHECK(balanced(sizes(expert.begin(), expert.begin() + N, E)));
      for (int64_t b = 1; b < B; ++b)
        CHECK(std::equal(expert.begin(), expert.begin() + N, expert.begin() + b * N));
    } else {
      CHECK(balanced(sizes(expert.begin(), expert.end(), E)));
    }
    const auto again = [&](const Pass& p, uint32_t site) {
      return experts_of(random_partition(scope, E, B, N, p, site)) == expert;
    };
    CHECK(again(pass, 1));
    CHECK_FALSE(again(pass, 2));
    Pass other = pass;
    other.step = 3;
    CHECK_FALSE(again(other, 1));
    other = pass;
    other.seed = 6;
    CHECK_FALSE(again(other, 1));
  }
}

TEST_CASE("the batch scope does not see how a batch is cut") {
  const int64_t B = 10, N = 7, E = 4;
  const auto experts = [&](int64_t first, int64_t count) {
    const Pass pass{.training = true, .first_sample = first, .batch = B};
    return experts_of(random_partition(PartitionScope::batch, E, count, N, pass, 0));
  };
  std::vector<int64_t> pieces;
  for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 3}, {3, 1}, {4, 6}}) {
    const auto piece = experts(first, count);
    pieces.insert(pieces.end(), piece.begin(), piece.end());
  }
  CHECK(pieces == experts(0, B));
  CHECK_THROWS_WITH_AS(experts(8, 3),
                       "random_partition: samples 8 to 11 of a batch of 10; Pass::batch is the size of the "
                       "whole batch",
                       Error);
}

TEST_CASE("the replica scope deals each micro-batch evenly, and each in its own way") {
  const auto experts = [&](int64_t first) {
    const Pass pass{.training = true, .first_sample = first, .batch = 12};
    return experts_of(random_partition(PartitionScope::replica, 4, 6, 7, pass, 0));
  };
  const auto first = experts(0), second = experts(6);
  CHECK(balanced(sizes(first.begin(), first.end(), 4)));
  CHECK(balanced(sizes(second.begin(), second.end(), 4)));
  CHECK(first != second);
}

TEST_CASE("ordering rows and its inverse undo each other to the bit") {
  const Tensor x = normal({195, 6}, 0);
  const Dispatch d = random_partition(PartitionScope::batch, 4, 3, 65, Pass{.batch = 3}, 0);
  CHECK(difference(unpermute_rows(permute_rows(x, d.order), d.order), x) == 0);
  CHECK(difference(permute_rows(unpermute_rows(x, d.order), d.order), x) == 0);
  CHECK(difference(permute_rows(x, d.order), x) > 0);
  CHECK(difference(combine_rows(permute_rows(x, d.order), d.order, Tensor::zeros({3, 65, 6}, DType::f64)),
                   x) == 0);
}

// A layer and the gradients of one backward pass through it.
struct PartitionLayer {
  ParameterStore store{DType::f64};
  std::unique_ptr<FeedForward> layer;
  std::unique_ptr<ParameterGradients> gradients;

  template <class Make>
  explicit PartitionLayer(Make&& make) : layer(make(Scope(store))) {
    store.allocate(1);
    gradients = store.make_gradients();
  }
  Tensor& flat_gradient() { return gradients->flat(); }

  // The output for x; its sum with fixed weights is differentiated, and dx returned in `dx`.
  Tensor run(const Tensor& x, const Pass& pass, Tensor* dx = nullptr) {
    const ParameterGradients::Scope collect(*gradients);
    gradients->clear();
    Tensor leaf = x.clone().require_grad();
    Tape tape;
    const Tape::Scope record(&tape);
    const Tensor y = layer->forward(leaf, {leaf}, pass);
    tape.backward(mean(mul(y, normal(y.shape(), 99))), double(y.count()));
    gradients->fill_unwritten(store.gradient_counts());
    if (dx) *dx = leaf.grad();
    return y.detach();
  }
};

PartitionLayer mlp() {
  return PartitionLayer(
      [](const Scope& s) { return std::make_unique<Mlp>(s, kC, kHidden, WeightInit::xavier, 0); });
}
PartitionLayer mixture(int64_t E, PartitionScope scope, ExpertInit init = ExpertInit::alike,
                       double dropout = 0) {
  return PartitionLayer([&](const Scope& s) {
    return std::make_unique<RandomPartitionMoe>(s, E, kC, kHidden, WeightInit::xavier, init, scope, dropout);
  });
}

// Gives every expert of `moe` the weights of `dense`, biases and all.
void copy_experts(PartitionLayer& dense, PartitionLayer& moe) {
  for (const auto& p : dense.store.parameters()) {
    Tensor from = p.value, to = moe.store.find(p.name)->value;
    const Tensor values = normal(from.shape(), uint32_t(p.offset));
    std::copy_n(values.data<double>(), from.count(), from.mutable_data<double>());
    for (int64_t i = 0; i < to.count(); ++i)
      to.mutable_data<double>()[i] = from.data<double>()[i % from.count()];
  }
}

TEST_CASE("equal experts are one feed-forward layer under any partition, and their gradients add up to its") {
  const Tensor x = normal({3, 5, kC}, 1);
  for (const PartitionScope scope : kScopes)
    for (const int64_t E : {1, 2, 4, 20})  // 20 experts for 15 rows: some have none
      for (const uint32_t step : {0u, 1u}) {
        CAPTURE(int(scope));
        CAPTURE(E);
        PartitionLayer dense = mlp(), moe = mixture(E, scope);
        copy_experts(dense, moe);
        const Pass pass{.training = true, .step = step, .batch = 3};
        Tensor dx_dense, dx_moe;
        const Tensor want = dense.run(x, pass, &dx_dense), got = moe.run(x, pass, &dx_moe);
        CHECK(difference(got, want) <= 1e-12);
        CHECK(difference(dx_moe, dx_dense) <= 1e-12);
        for (const auto& p : dense.store.parameters()) {
          CAPTURE(p.name);
          const auto& q = *moe.store.find(p.name);
          double most = 0;
          for (int64_t i = 0; i < p.value.count(); ++i) {
            double sum = 0;
            for (int64_t e = 0; e < E; ++e) sum += moe.flat_gradient().at(q.offset + e * p.value.count() + i);
            most = worst(most, std::abs(sum - dense.flat_gradient().at(p.offset + i)));
          }
          CHECK(most <= 1e-11);
        }
      }
}

TEST_CASE("experts that differ make the output depend on the partition") {
  const Tensor x = normal({3, 5, kC}, 1);
  PartitionLayer moe = mixture(4, PartitionScope::batch, ExpertInit::independent);
  const Pass first{.step = 0, .batch = 3}, second{.step = 1, .batch = 3};
  CHECK(difference(moe.run(x, first), moe.run(x, first)) == 0);
  CHECK(difference(moe.run(x, first), moe.run(x, second)) > 1e-3);
}

TEST_CASE("dropout in experts and layers does not see how a batch is cut") {
  const int64_t B = 6, N = 5;
  const Tensor x = normal({B, N, kC}, 1);
  const auto check = [&](PartitionLayer layer, bool drops) {
    Pass pass{.training = true, .seed = 8, .batch = B};
    const Tensor whole = layer.run(x, pass);
    Tensor parts(whole.shape(), DType::f64);
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {1, 3}, {4, 2}}) {
      pass.first_sample = first;
      const Tensor part = layer.run(slice(x, 0, first, first + count), pass);
      std::copy_n(part.data<double>(), part.count(), parts.mutable_data<double>() + first * N * kC);
    }
    CHECK(difference(parts, whole) <= 1e-13);
    pass.training = false;
    pass.first_sample = 0;
    CHECK((difference(layer.run(x, pass), whole) > 1e-3) == drops);
  };
  check(mixture(4, PartitionScope::batch, ExpertInit::independent, 0.3), true);
  check(mixture(4, PartitionScope::per_image, ExpertInit::independent, 0.3), true);
  check(mixture(4, PartitionScope::batch, ExpertInit::independent), false);
  check(PartitionLayer(
            [](const Scope& s) { return std::make_unique<Mlp>(s, kC, kHidden, WeightInit::xavier, 0.3); }),
        true);
}

TEST_CASE("stochastic depth does not see how a batch is cut") {
  ParameterStore store(DType::f64);
  const DropPath drop(Scope(store), 0.4);
  const Tensor x = normal({50, 2, 3}, 1);
  Pass pass{.training = true, .batch = 50};
  const Tensor whole = drop.around(x, pass).scale;
  int dropped = 0;
  for (int64_t b = 0; b < 50; ++b) {
    pass.first_sample = b;
    CHECK(drop.around(slice(x, 0, b, b + 1), pass).scale.item() == whole.at(b));
    CHECK((whole.at(b) == 0 || whole.at(b) == 1 / (1 - 0.4)));
    dropped += whole.at(b) == 0;
  }
  CHECK(dropped > 5);
  CHECK(dropped < 35);
  pass.training = false;
  CHECK_FALSE(bool(drop.around(x, pass).scale));
}

}  // namespace
}  // namespace tessera
