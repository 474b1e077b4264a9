#include "engine/io/file_dtype.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

namespace tessera {
namespace {

static_assert(std::endian::native == std::endian::little,
              "weight files are read and written without swapping");

struct Row {
  std::string_view name;
  int bits;
};
constexpr auto kTable = std::to_array<Row>({
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
});
static_assert(kTable.size() == size_t(FileDtype::u64) + 1);

template <class Stored, class Real, class Widen>
void convert(const std::byte* elements, std::span<Real> out, Widen widen) {
  for (size_t i = 0; i < out.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, elements + i * sizeof(Stored), sizeof(Stored));
    out[i] = Real(widen(stored));
  }
}

}  // namespace

std::string_view dtype_name(FileDtype dtype) { return kTable[size_t(dtype)].name; }
int dtype_bits(FileDtype dtype) { return kTable[size_t(dtype)].bits; }

std::optional<FileDtype> dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < kTable.size(); ++i)
    if (kTable[i].name == name) return FileDtype(i);
  return std::nullopt;
}

float float_from_f16(uint16_t bits) {
  const uint32_t sign = uint32_t(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 31u, fraction = bits & 0x3FFu;
  if (exponent == 0) return std::copysign(std::ldexp(float(fraction), -24), std::bit_cast<float>(sign));
  const uint32_t wide_exponent = exponent == 31 ? 255 : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide_exponent << 23 | fraction << 13);
}

float float_from_bf16(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }

template <class Real>
bool convert_elements(FileDtype dtype, const std::byte* elements, std::span<Real> out) {
  const auto same = [](auto value) { return value; };
  switch (dtype) {
    case FileDtype::f32:
      convert<float>(elements, out, same);
      return true;
    case FileDtype::f64:
      convert<double>(elements, out, same);
      return true;
    case FileDtype::f16:
      convert<uint16_t>(elements, out, float_from_f16);
      return true;
    case FileDtype::bf16:
      convert<uint16_t>(elements, out, float_from_bf16);
      return true;
    default:
      return false;
  }
}

template bool convert_elements(FileDtype, const std::byte*, std::span<float>);
template bool convert_elements(FileDtype, const std::byte*, std::span<double>);

}  // namespace tessera
