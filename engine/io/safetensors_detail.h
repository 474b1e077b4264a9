// What the reader and the writer of safetensors share.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/io/checksum.h"
#include "engine/io/safetensors.h"

namespace tessera::detail {

inline constexpr std::string_view kMetadataKey = "__metadata__";
inline constexpr uint64_t kLengthBytes = 8;               // the header's length comes first
inline constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the reference implementation's limit
inline constexpr size_t kRankMax = 32;

// Bytes of a packed tensor; nothing when they are not whole, a dimension is negative, or the product of
// the dimensions other than 0 passes 63 bits (strides could not be computed even where there are no
// elements).
std::optional<uint64_t> packed_bytes(FileDtype dtype, std::span<const int64_t> shape);

// The checksum of a whole file's meaning: it does not depend on the order of tensors, so a program that
// writes the same tensors and metadata again in another order keeps it right.
class ContentsChecksum {
 public:
  explicit ContentsChecksum(const Metadata& metadata);  // ignores kChecksumKey itself
  void add(std::string_view name, FileDtype dtype, std::span<const int64_t> shape, ByteView bytes);
  std::string text() const;  // 16 hexadecimal digits

 private:
  uint64_t sum_ = 0;
};

}  // namespace tessera::detail
