// Bytes of a file in memory: what every parser of this folder reads from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace tessera {

using Bytes = std::span<const uint8_t>;

// No file read here, nor what it expands to, is larger.
inline constexpr uint64_t kMaxFileBytes = uint64_t{1} << 32;

// The whole of a regular file. Error(Exit::data), naming the file, where it is missing, not a regular file,
// not readable, or above `max_bytes`.
std::vector<uint8_t> read_file(const std::filesystem::path& path, uint64_t max_bytes = kMaxFileBytes);

}  // namespace tessera
