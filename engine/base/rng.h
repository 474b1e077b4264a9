// Counter-based random numbers: a draw is a function of (seed, stream, step, site, element) and of nothing
// else, so there is no state to save, and threads, devices and the cutting of a batch change no draw.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "engine/base/portable.h"

namespace tessera {

// What the numbers are for. Two streams never share a draw.
enum class Stream : uint32_t { init, shuffle, augment, dropout, drop_path, partition, test, routing };

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
struct Philox {
  using Block = std::array<uint32_t, 4>;

  TESSERA_FN static Block block(uint32_t key0, uint32_t key1, Block counter) {
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
      const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
      counter = {uint32_t(p1 >> 32) ^ counter[1] ^ key0, uint32_t(p1), uint32_t(p0 >> 32) ^ counter[3] ^ key1,
                 uint32_t(p0)};
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    return counter;
  }
};

// One place that draws: the seed of the run, the stream, the training step (or epoch) and the site, which
// tells apart the layers, or the samples, that draw from one stream. `block(i)` is four independent words for
// element i.
struct Draw {
  uint64_t seed = 0;
  Stream stream = Stream::test;
  uint32_t step = 0;
  uint32_t site = 0;
  // Where a card's kernels find the step, so that they can be recorded once for all steps; null: above.
  const uint32_t* step_on_card = nullptr;

  TESSERA_FN Philox::Block block(uint64_t element) const {
    return Philox::block(uint32_t(seed), uint32_t(seed >> 32) ^ (uint32_t(stream) * 0x9E3779B9u),
                         {uint32_t(element), uint32_t(element >> 32), own_step(), site});
  }
  // Uniform in [0, 1), 24 bits.
  TESSERA_FN float uniform(uint64_t element) const { return to_unit(block(element)[0]); }
  // Uniform integer in [0, n), n < 2^31, by a 64-bit multiply of a 32-bit word.
  TESSERA_FN uint32_t below(uint32_t n, uint64_t element) const {
    return uint32_t((uint64_t{block(element)[0]} * n) >> 32);
  }
  // Standard normal (Box-Muller).
  TESSERA_FN double normal(uint64_t element) const {
    const auto words = block(element);
    const double radius = std::sqrt(-2.0 * std::log((words[0] + 1.0) / 4294967296.0));
    return radius * std::cos(6.283185307179586 * (words[1] / 4294967296.0));
  }
  TESSERA_FN static float to_unit(uint32_t word) { return float(word >> 8) * (1.0f / 16777216.0f); }

 private:
  TESSERA_FN uint32_t own_step() const {
#ifdef __CUDA_ARCH__
    if (step_on_card) return *step_on_card;
#endif
    return step;
  }
};

// A keyed bijection of [0, n): `at(i)` is the i-th element of a pseudo-random permutation, in constant time
// and without a table. A Feistel network over the next even power of two, walked until it lands below n
// (Mitchell et al., "Bandwidth-optimal random shuffling for GPUs", 2021). The round keys are Philox words.
class Permutation {
 public:
  TESSERA_FN Permutation(uint64_t n, const Draw& draw) : n_(n) {  // n > 0
    while ((uint64_t{1} << (2 * half_bits_)) < n) ++half_bits_;
    for (int i = 0; i < kRounds / 4; ++i) {
      const auto words = draw.block(uint64_t(i));
      for (int j = 0; j < 4; ++j) keys_[4 * i + j] = words[j];
    }
  }

  TESSERA_FN uint64_t size() const { return n_; }
  TESSERA_FN uint64_t at(uint64_t i) const {
    do i = scramble(i);
    while (i >= n_);
    return i;
  }

 private:
  static constexpr int kRounds = 12;

  TESSERA_FN uint64_t scramble(uint64_t value) const {
    const uint32_t mask = uint32_t((uint64_t{1} << half_bits_) - 1);
    uint32_t left = uint32_t(value >> half_bits_), right = uint32_t(value) & mask;
    for (int round = 0; round < kRounds; ++round) {
      uint32_t mixed = (right ^ keys_[round]) * 0x9E3779B1u;
      mixed = (mixed ^ (mixed >> 15)) * 0x85EBCA77u;
      const uint32_t next = left ^ ((mixed ^ (mixed >> 13)) & mask);
      left = right;
      right = next;
    }
    return (uint64_t{left} << half_bits_) | right;
  }

  uint64_t n_;
  int half_bits_ = 1;
  std::array<uint32_t, kRounds> keys_{};
};

}  // namespace tessera
