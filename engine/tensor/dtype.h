// Element types, and the one place that turns a run-time type into a compile-time one.
#pragma once

#include <cstdint>
#include <ostream>

#include "engine/base/bf16.h"
#include "engine/base/check.h"

namespace tessera {

enum class DType : uint8_t { f32, f64, i32, u8, bf16 };

inline const char* name(DType type) {
  constexpr const char* names[] = {"f32", "f64", "i32", "u8", "bf16"};
  return names[int(type)];
}
inline int64_t bytes(DType type) {
  constexpr int64_t sizes[] = {4, 8, 4, 1, 2};
  return sizes[int(type)];
}
inline std::ostream& operator<<(std::ostream& out, DType type) { return out << name(type); }

template <class T>
constexpr DType dtype_of() = delete;
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<int32_t>() {
  return DType::i32;
}
template <>
constexpr DType dtype_of<uint8_t>() {
  return DType::u8;
}
template <>
constexpr DType dtype_of<bf16>() {
  return DType::bf16;
}

// That of Wide<T>: what sums and statistics of such numbers have.
inline DType wide(DType type) { return type == DType::bf16 ? DType::f32 : type; }

// Calls f.operator()<float>() or f.operator()<double>().
template <class F>
void for_float(const char* op, DType type, F&& f) {
  if (type == DType::f32) return f.template operator()<float>();
  TESSERA_CHECK(type == DType::f64, op, ": needs f32 or f64, got ", type);
  f.template operator()<double>();
}

// The same for an op that also takes activations as a card stores them by --dtype bf16.
template <class F>
void for_activation(const char* op, DType type, F&& f) {
  if (type == DType::bf16) return f.template operator()<bf16>();
  for_float(op, type, f);
}

}  // namespace tessera
