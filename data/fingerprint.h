// A 64-bit hash that tells in a log which data a run has seen. Not for security.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

namespace tessera {

// A multiply and a shift for every 8 bytes; the shift carries high bits down, where a multiply never does.
class Fingerprint {
 public:
  void add(uint64_t word) {
    hash_ = (hash_ ^ word) * 0x9E3779B97F4A7C15u;
    hash_ ^= hash_ >> 32;
  }
  template <class T>
  void add(std::span<const T> values) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
    const size_t size = values.size_bytes();
    for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
      uint64_t word = 0;
      std::memcpy(&word, bytes + i, std::min(sizeof(word), size - i));
      add(word);
    }
  }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace tessera
