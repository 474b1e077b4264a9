// A quick 64-bit checksum against damage on disk or on the way; no defence against intent.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace tessera {

// Four independent lanes of 8-byte words, each step a bijection of its lane and of its word: a change within
// one word is always seen, any other with probability 1 - 2^-64. The last stripe is padded with zeros, and
// the length is mixed in.
class Checksum {
 public:
  void add(std::span<const std::byte> bytes) {
    std::array<uint64_t, kLanes> lanes;
    for (size_t i = 0; i < kLanes; ++i) lanes[i] = state_ + (i + 1) * kOdd1;
    const size_t whole = bytes.size() - bytes.size() % kStripe;
    for (size_t at = 0; at < whole; at += kStripe) absorb(lanes, bytes.data() + at);
    if (whole < bytes.size()) {
      std::array<std::byte, kStripe> last{};
      std::memcpy(last.data(), bytes.data() + whole, bytes.size() - whole);
      absorb(lanes, last.data());
    }
    add(uint64_t{bytes.size()});
    for (const uint64_t lane : lanes) add(lane);
  }
  void add(uint64_t word) { state_ = mix(state_ ^ mix(word)); }
  uint64_t value() const { return state_; }

 private:
  static constexpr size_t kLanes = 4, kStripe = 8 * kLanes;
  static constexpr uint64_t kOdd1 = 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio
  static constexpr uint64_t kOdd2 = 0xD1B54A32D192ED03u;

  static void absorb(std::array<uint64_t, kLanes>& lanes, const std::byte* stripe) {
    for (size_t i = 0; i < kLanes; ++i) {
      uint64_t word;
      std::memcpy(&word, stripe + 8 * i, 8);
      lanes[i] = std::rotl((lanes[i] ^ word) * kOdd1, 29);
    }
  }
  static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 32)) * kOdd2;
    x = (x ^ (x >> 29)) * kOdd1;
    return (x ^ (x >> 32)) + kOdd2;
  }

  uint64_t state_ = 0;
};

}  // namespace tessera
