// Philox against its authors' known answers; permutations as bijections with the statistics of random ones.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "engine/base/rng.h"
#include "nn/moe/random_partition.h"

namespace tessera {
namespace {

// kat_vectors of the Random123 distribution, philox4x32 with 10 rounds.
TEST_CASE("Philox gives the published known answers") {
  CHECK(Philox::block(0, 0, {0, 0, 0, 0}) == Philox::Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint32_t ones = 0xffffffff;
  CHECK(Philox::block(ones, ones, {ones, ones, ones, ones}) ==
        Philox::Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(Philox::block(0xa4093822, 0x299f31d0, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}) ==
        Philox::Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a draw depends on each part of its key and on its element") {
  const Draw draw{.seed = 1, .stream = Stream::dropout, .step = 2, .site = 3};
  std::set<Philox::Block> blocks;
  for (const Draw& d :
       {draw, Draw{2, Stream::dropout, 2, 3}, Draw{uint64_t{1} << 32 | 1, Stream::dropout, 2, 3},
        Draw{1, Stream::drop_path, 2, 3}, Draw{1, Stream::dropout, 3, 3}, Draw{1, Stream::dropout, 2, 4}})
    for (const uint64_t element : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32})
      blocks.insert(d.block(element));
  CHECK(blocks.size() == 18);
}

TEST_CASE("draws do not depend on the order in which they are made") {
  const Draw draw{.seed = 4};
  std::vector<Philox::Block> forward, backward;
  for (uint64_t i = 0; i < 100; ++i) forward.push_back(draw.block(i));
  for (uint64_t i = 100; i-- > 0;) backward.push_back(Draw{.seed = 4}.block(i));
  std::reverse(backward.begin(), backward.end());
  CHECK(forward == backward);
}

TEST_CASE("uniform, below and normal have their ranges and moments") {
  constexpr int kDraws = 100000;
  const Draw draw{.seed = 5};
  double uniform = 0, normal = 0, square = 0, fourth = 0;
  std::vector<int> counts(7);
  for (uint64_t i = 0; i < kDraws; ++i) {
    const float u = draw.uniform(i);
    REQUIRE((u >= 0 && u < 1));
    uniform += u;
    ++counts.at(draw.below(7, i));
    const double z = draw.normal(i);
    normal += z;
    square += z * z;
    fourth += z * z * z * z;
  }
  // Five standard errors each.
  const double error = 5 / std::sqrt(double(kDraws));
  CHECK(std::abs(uniform / kDraws - 0.5) < error * std::sqrt(1 / 12.0));
  CHECK(std::abs(normal / kDraws) < error);
  CHECK(std::abs(square / kDraws - 1) < error * std::sqrt(2.0));
  CHECK(std::abs(fourth / kDraws - 3) < error * std::sqrt(96.0));
  for (const int count : counts) CHECK(std::abs(count - kDraws / 7.0) < 5 * std::sqrt(kDraws / 7.0));
  CHECK(Draw::to_unit(0xffffffff) < 1);
}

TEST_CASE("a permutation is a bijection") {
  for (const uint64_t n : {1, 2, 3, 4, 5, 16, 17, 64, 65, 8320, 65537})
    for (const uint64_t seed : {0, 1}) {
      CAPTURE(n);
      const Permutation permutation(n, Draw{.seed = seed, .stream = Stream::partition});
      REQUIRE(permutation.size() == n);
      std::vector<char> seen(n, 0);
      for (uint64_t i = 0; i < n; ++i) {
        const uint64_t at = permutation.at(i);
        REQUIRE(at < n);
        REQUIRE(!seen[at]);
        seen[at] = 1;
      }
    }
}

TEST_CASE("all permutations of three are about equally frequent") {
  constexpr int kDraws = 6000;
  int counts[27] = {};
  for (uint32_t step = 0; step < kDraws; ++step) {
    const Permutation p(3, Draw{.seed = 6, .step = step});
    ++counts[p.at(0) * 9 + p.at(1) * 3 + p.at(2)];
  }
  double chi_square = 0;
  for (const int count : counts)
    if (count) chi_square += std::pow(count - kDraws / 6.0, 2) / (kDraws / 6.0);
  CHECK(std::count_if(counts, counts + 27, [](int n) { return n > 0; }) == 6);
  CHECK(chi_square < 25.7);  // 5 degrees of freedom: exceeded once in 10^4
}

// Over many steps each row should meet each expert equally often, and each pair of rows share an expert as
// often as a random partition makes them.
TEST_CASE("partitions by permutation are uniform, row by row and pair by pair") {
  constexpr int64_t kExperts = 4;
  constexpr int kSteps = 4000;
  for (const int64_t n : {36, 65}) {
    CAPTURE(n);
    std::vector<int> counts(size_t(n * kExperts)), together(size_t(n * n));
    std::vector<int64_t> expert(static_cast<size_t>(n)), size(kExperts);
    for (uint32_t step = 0; step < kSteps; ++step) {
      const Permutation permutation(uint64_t(n), Draw{.seed = 7, .stream = Stream::partition, .step = step});
      for (int64_t i = 0; i < n; ++i) {
        expert[size_t(i)] = part_of(int64_t(permutation.at(uint64_t(i))), n, kExperts);
        ++counts[size_t(i * kExperts + expert[size_t(i)])];
      }
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < i; ++j) together[size_t(i * n + j)] += expert[size_t(i)] == expert[size_t(j)];
    }
    for (int64_t i = 0; i < n; ++i) ++size[size_t(part_of(i, n, kExperts))];

    // The chance that two rows share an expert, from the sizes.
    double pairs = 0;
    for (const int64_t s : size) pairs += double(s * (s - 1));
    const double share = pairs / double(n * (n - 1));
    double by_row = 0, by_pair = 0;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t e = 0; e < kExperts; ++e) {
        const double want = kSteps * double(size[size_t(e)]) / double(n);
        by_row += std::pow(counts[size_t(i * kExperts + e)] - want, 2) / want;
      }
      for (int64_t j = 0; j < i; ++j)
        by_pair += std::pow(together[size_t(i * n + j)] - kSteps * share, 2) / (kSteps * share * (1 - share));
    }
    // The mean of each term is known; the bounds are five deviations of sums of as many independent terms.
    const double rows = double(n) * (kExperts - 1), all_pairs = double(n * (n - 1)) / 2;
    CHECK(std::abs(by_row - rows) < 5 * std::sqrt(2 * rows));
    CHECK(std::abs(by_pair - all_pairs) < 5 * std::sqrt(2 * all_pairs));
  }
}

}  // namespace
}  // namespace tessera
