// Element types as files name them, and how their values become float or double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace tessera {

// Every type safetensors knows, in the order of the reference implementation: later ones are written first,
// which puts wide elements before narrow ones and so keeps each tensor aligned.
enum class FileDtype : uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};

std::string_view dtype_name(FileDtype dtype);  // as in the file: "F32"
int dtype_bits(FileDtype dtype);               // of one element
std::optional<FileDtype> dtype_from_name(std::string_view name);

// The bits of an IEEE binary16 (f16) or of a bfloat16 as the float of the same value; exact.
float float_from_f16(uint16_t bits);
float float_from_bf16(uint16_t bits);

// Converts out.size() packed little-endian elements, at any alignment, from F32, F64, F16 or BF16. F64 to
// float rounds to nearest; everything else is exact. Returns false for any other dtype.
template <class Real>  // float or double
bool convert_elements(FileDtype dtype, const std::byte* elements, std::span<Real> out);

}  // namespace tessera
