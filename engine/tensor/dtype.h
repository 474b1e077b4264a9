// Element types, and the one place that turns a run-time type into a compile-time one.
#pragma once

#include <cstdint>
#include <ostream>

#include "engine/base/check.h"

namespace tessera {

enum class DType : uint8_t { f32, f64, i32, u8 };

inline const char* name(DType type) {
  constexpr const char* names[] = {"f32", "f64", "i32", "u8"};
  return names[int(type)];
}
inline int64_t bytes(DType type) {
  constexpr int64_t sizes[] = {4, 8, 4, 1};
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

// Calls f.operator()<float>() or f.operator()<double>().
template <class F>
void for_float(const char* op, DType type, F&& f) {
  if (type == DType::f32) return f.template operator()<float>();
  TESSERA_CHECK(type == DType::f64, op, ": needs f32 or f64, got ", type);
  f.template operator()<double>();
}

}  // namespace tessera
