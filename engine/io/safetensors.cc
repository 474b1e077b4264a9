#include "engine/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/io/printable.h"
#include "engine/io/safetensors_detail.h"

namespace tessera {
namespace detail {

std::optional<uint64_t> packed_bytes(FileDtype dtype, std::span<const int64_t> shape) {
  int64_t bits = dtype_bits(dtype);  // with dimensions of 0 taken as 1
  bool empty = false;
  for (const int64_t dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(bits, std::max<int64_t>(dim, 1), &bits)) return std::nullopt;
    empty |= dim == 0;
  }
  if (empty) return 0;
  if (bits % 8 != 0) return std::nullopt;
  return uint64_t(bits / 8);
}

ContentsChecksum::ContentsChecksum(const Metadata& metadata) {
  Checksum checksum;
  for (const auto& [key, value] : metadata) {
    if (key == kChecksumKey) continue;
    checksum.add(std::as_bytes(std::span(key)));
    checksum.add(std::as_bytes(std::span(value)));
  }
  sum_ = checksum.value();
}

void ContentsChecksum::add(std::string_view name, FileDtype dtype, std::span<const int64_t> shape,
                           ByteView bytes) {
  Checksum checksum;
  checksum.add(std::as_bytes(std::span(name)));
  checksum.add(std::as_bytes(std::span(dtype_name(dtype))));
  checksum.add(std::as_bytes(shape));
  checksum.add(bytes);
  sum_ += checksum.value();
}

std::string ContentsChecksum::text() const {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (int shift = 60; shift >= 0; shift -= 4) out += kDigits[sum_ >> shift & 15];
  return out;
}

}  // namespace detail

int64_t TensorEntry::count() const {
  int64_t product = 1;
  for (const int64_t dim : shape) product *= dim;
  return product;
}

SafetensorsFile::SafetensorsFile(const std::string& path)
    : name_(path), mapping_(path), contents_(parse_safetensors(mapping_->bytes(), path)) {}

SafetensorsFile::SafetensorsFile(ByteView file, const std::string& file_name)
    : name_(file_name), contents_(parse_safetensors(file, file_name)) {}

const TensorEntry* SafetensorsFile::find(std::string_view tensor_name) const {
  const auto name_of = [&](uint32_t i) { return std::string_view(entries()[i].name); };
  const auto at = std::ranges::lower_bound(contents_.by_name, tensor_name, {}, name_of);
  return at != contents_.by_name.end() && name_of(*at) == tensor_name ? &entries()[*at] : nullptr;
}

ByteView SafetensorsFile::bytes(const TensorEntry& entry) const {
  return contents_.data.subspan(size_t(entry.begin), size_t(entry.end - entry.begin));
}

template <class Real>
void SafetensorsFile::read_as(const TensorEntry& entry, std::span<Real> out) const {
  TESSERA_CHECK(int64_t(out.size()) == entry.count(), "reading tensor ", printable(entry.name), " of '",
                name_, "': it has ", entry.count(), " elements, the destination ", out.size(),
                "; compare the shapes before reading");
  TESSERA_CHECK_AS(Exit::file, convert_elements(entry.dtype, bytes(entry).data(), out),
                   "cannot use the weights file '", name_, "': tensor ", printable(entry.name), " has dtype ",
                   dtype_name(entry.dtype),
                   ", only F32, F64, F16 and BF16 are read as weights; convert it first");
}

template void SafetensorsFile::read_as(const TensorEntry&, std::span<float>) const;
template void SafetensorsFile::read_as(const TensorEntry&, std::span<double>) const;

void SafetensorsWriter::add(const std::string& name, FileDtype dtype, std::vector<int64_t> shape,
                            const void* data, std::shared_ptr<const void> owner) {
  TESSERA_CHECK(name != detail::kMetadataKey && name.find('\0') == std::string::npos,
                "a tensor cannot be named ", printable(name), " in a safetensors file; choose another name");
  TESSERA_CHECK(shape.size() <= detail::kRankMax, "tensor ", printable(name), " has ", shape.size(),
                " dimensions, a weights file takes at most ", detail::kRankMax);
  const auto size = detail::packed_bytes(dtype, shape);
  TESSERA_CHECK(size.has_value(), "tensor ", printable(name),
                " has a negative dimension, or its size overflows or is not whole bytes; check its shape");
  const ByteView bytes(static_cast<const std::byte*>(data), size_t(*size));
  TESSERA_CHECK(tensors_.try_emplace(name, Source{dtype, std::move(shape), bytes, std::move(owner)}).second,
                "tensor ", printable(name), " is added twice to a weights file; give each its own name");
}

void SafetensorsWriter::write(const std::string& path) const {
  detail::ContentsChecksum checksum(metadata_);
  std::vector<const std::pair<const std::string, Source>*> order;
  for (const auto& named : tensors_) {
    order.push_back(&named);
    checksum.add(named.first, named.second.dtype, named.second.shape, named.second.bytes);
  }
  // Stable, so that names stay sorted within a dtype.
  std::ranges::stable_sort(order, std::greater{}, [](const auto* named) { return named->second.dtype; });
  Metadata metadata = metadata_;
  metadata[std::string(kChecksumKey)] = checksum.text();

  // Put together as text: a JSON object of this size would be slow, and would sort the tensors by name alone.
  std::string header(detail::kLengthBytes, '\0');
  std::vector<ByteView> pieces(1);
  try {
    const auto quoted = [](std::string_view words) { return nlohmann::json(words).dump(); };
    header += text('{', quoted(detail::kMetadataKey), ':', nlohmann::json(metadata).dump());
    uint64_t begin = 0;
    for (const auto* named : order) {
      const auto& [name, source] = *named;
      const uint64_t end = begin + source.bytes.size();
      header += text(',', quoted(name), ":{\"dtype\":\"", dtype_name(source.dtype),
                     "\",\"shape\":", nlohmann::json(source.shape).dump(), ",\"data_offsets\":[", begin, ',',
                     end, "]}");
      pieces.push_back(source.bytes);
      begin = end;
    }
  } catch (const nlohmann::json::type_error&) {
    fail(Exit::file, "cannot write '", path, "': a tensor's name or the metadata is not UTF-8");
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t length = header.size() - detail::kLengthBytes;
  TESSERA_CHECK_AS(Exit::file, length <= detail::kHeaderBytesMax, "cannot write '", path,
                   "': the header takes ", length, " bytes, readers accept ", detail::kHeaderBytesMax,
                   "; put less into the metadata");
  std::memcpy(header.data(), &length, sizeof(length));
  pieces.front() = std::as_bytes(std::span(header));
  write_file_atomically(path, pieces);
}

}  // namespace tessera
