// Weight files: safetensors. Eight bytes N (little-endian), N bytes of JSON, then the tensors' bytes.
// The JSON maps each name to {dtype, shape, data_offsets: [begin, end)}; "__metadata__" maps strings to
// strings.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/io/atomic_file.h"
#include "engine/io/file_dtype.h"

namespace tessera {

using Metadata = std::map<std::string, std::string>;

// Metadata key of the checksum (16 hexadecimal digits) over the tensors and the other metadata. Files of
// other programs have none; where it is present it must match.
inline constexpr std::string_view kChecksumKey = "tessera.checksum";

// One tensor: row-major, packed, little-endian, at [begin, end) of the data that follow the header.
struct TensorEntry {
  std::string name;
  FileDtype dtype = FileDtype::f32;
  std::vector<int64_t> shape;  // empty: a scalar; a dimension may be 0
  uint64_t begin = 0, end = 0;

  int64_t count() const;  // elements
};

struct SafetensorsContents {
  std::vector<TensorEntry> entries;  // in the order of their bytes
  Metadata metadata;                 // with the checksum, if there is one
  std::vector<uint32_t> by_name;     // indices of entries, sorted by name
  ByteView data;                     // what begin and end count from
};

// Checks everything about a file in memory and says where its tensors lie; nothing is copied. `file_name` is
// for messages. Throws Error(Exit::file): header (length, UTF-8, JSON, kinds of values, duplicate names,
// dtypes, shapes), layout (tensors cover the data exactly once, sizes fit dtype and shape), checksum. Files
// of other formats are told by their first bytes.
SafetensorsContents parse_safetensors(ByteView file, const std::string& file_name);

class SafetensorsFile {
 public:
  // Maps the file (see MappedFile).
  explicit SafetensorsFile(const std::string& path);
  // A file already in memory, which must outlive this object.
  SafetensorsFile(ByteView file, const std::string& file_name);

  const std::string& name() const { return name_; }
  const std::vector<TensorEntry>& entries() const { return contents_.entries; }
  const Metadata& metadata() const { return contents_.metadata; }
  // Null when there is no tensor of this name.
  const TensorEntry* find(std::string_view tensor_name) const;

  // The raw bytes, at any alignment: copy them out with memcpy.
  ByteView bytes(const TensorEntry& entry) const;
  // Fills `out`, of entry.count() elements, from F32, F64, F16 or BF16. Throws Error(Exit::file) naming the
  // tensor for another dtype.
  void read_f32(const TensorEntry& entry, std::span<float> out) const { read_as(entry, out); }
  void read_f64(const TensorEntry& entry, std::span<double> out) const { read_as(entry, out); }

 private:
  template <class Real>
  void read_as(const TensorEntry& entry, std::span<Real> out) const;

  std::string name_;
  std::optional<MappedFile> mapping_;
  SafetensorsContents contents_;
};

// Collects tensors, then writes them as the reference writer does: widest dtype first, then by name, offsets
// contiguous, header padded with spaces to a multiple of 8. The tensors are not copied: they must stay alive
// and unchanged until write() returns, or be given with an owner.
class SafetensorsWriter {
 public:
  // Throws Error(Exit::other) on a name given twice or not representable, or on a negative dimension. `owner`
  // keeps the data.
  void add(const std::string& name, FileDtype dtype, std::vector<int64_t> shape, const void* data,
           std::shared_ptr<const void> owner = {});
  void add(const std::string& name, std::vector<int64_t> shape, const float* data) {
    add(name, FileDtype::f32, std::move(shape), data);
  }
  void add(const std::string& name, std::vector<int64_t> shape, const double* data) {
    add(name, FileDtype::f64, std::move(shape), data);
  }

  // "format": "pt", which other readers look for, is there from the start; the checksum comes by itself.
  Metadata& metadata() { return metadata_; }

  // Atomically (see write_file_atomically). Throws Error(Exit::file).
  void write(const std::string& path) const;

 private:
  struct Source {
    FileDtype dtype;
    std::vector<int64_t> shape;
    ByteView bytes;
    std::shared_ptr<const void> owner;
  };

  std::map<std::string, Source> tensors_;
  Metadata metadata_ = {{"format", "pt"}};
};

}  // namespace tessera
