// The reader's half that faces untrusted bytes.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "engine/io/printable.h"
#include "engine/io/safetensors_detail.h"

namespace tessera {
namespace {

using detail::kHeaderBytesMax;
using detail::kLengthBytes;
using detail::kMetadataKey;
using detail::kRankMax;

constexpr uint64_t kDimMax = uint64_t(std::numeric_limits<int64_t>::max());

template <class... Parts>
[[noreturn]] void refuse(const std::string& file_name, const Parts&... parts) {
  fail(Exit::file, "cannot use the weights file '", file_name, "': ", parts...);
}

std::string_view as_text(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Other formats, by their first bytes; asked only once the file is known not to be sound safetensors.
std::string_view other_format(std::string_view file) {
  constexpr size_t kZipNameLengthAt = 26, kZipNameAt = 30;
  constexpr std::string_view kTorch =
      "it is a PyTorch pickle (.pth, .pt, .bin), which can run code when loaded and is not read here; "
      "convert "
      "it in Python with safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)";
  constexpr std::string_view kNumpy =
      "it is a NumPy file (.npy, .npz), which is not read here; convert it in Python with "
      "safetensors.numpy.save_file";
  constexpr std::string_view kPage = "it is a web page; the download went wrong, fetch the file again";

  // A length below 65536, as most headers have, means nothing else; the formats below have other bytes there.
  constexpr std::string_view kHighZeros("\0\0\0\0\0\0", 6);
  if (file.size() >= kLengthBytes && file.substr(2, kHighZeros.size()) == kHighZeros) return {};
  if (file.starts_with("PK\3\4")) {
    if (file.size() < kZipNameAt) return kTorch;
    uint16_t length;
    std::memcpy(&length, file.data() + kZipNameLengthAt, sizeof(length));
    return file.substr(kZipNameAt, length).ends_with(".npy") ? kNumpy : kTorch;
  }
  struct Format {
    std::string_view magic, advice;
  };
  static constexpr auto kFormats = std::to_array<Format>({
      {"\x80\x02", kTorch},
      {"\x80\x03", kTorch},
      {"\x80\x04", kTorch},
      {"\x80\x05", kTorch},
      {"\x93NUMPY", kNumpy},
      {"GGUF", "it is a GGUF file, which is not read here; take the model's safetensors file instead"},
      {"\x89HDF\r\n\x1a\n",
       "it is an HDF5 file (.h5), which is not read here; convert it to safetensors in Python"},
      {"version https://git-lfs", "it is a Git LFS pointer, not the file itself; run git lfs pull"},
      {"\x1f\x8b\x08", "it is compressed with gzip; unpack it with gunzip"},
      {"<!DOCTYPE", kPage},
      {"<!doctype", kPage},
      {"<html", kPage},
      {"{",
       "it is JSON, perhaps the index or the configuration next to the weights; give the .safetensors file"},
  });
  for (const Format& format : kFormats)
    if (file.starts_with(format.magic)) return format.advice;
  return {};
}

// Takes the header's JSON event by event: no tree of it is ever built, nesting cannot go deep, repeated keys
// are seen, and numbers keep the kind they were written in.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& file_name, SafetensorsContents& out) : file_name_(file_name), out_(out) {}

  bool null() override { wrong("null"); }
  bool boolean(bool value) override { wrong(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { wrong(value); }  // only negative ones come here
  bool number_float(number_float_t, const string_t& digits) override { wrong(printable(digits)); }
  bool binary(binary_t&) override { wrong("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape && value <= kDimMax) {
      if (tensor_.shape.size() == kRankMax) bad_tensor("more than ", kRankMax, " dimensions");
      tensor_.shape.push_back(int64_t(value));
    } else if (place_ == Place::offsets && offsets_ < 2) {
      (offsets_++ == 0 ? tensor_.begin : tensor_.end) = value;
    } else {
      wrong(value);
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      if (!out_.metadata.try_emplace(key_, value).second) bad("duplicate metadata key ", printable(key_));
    } else if (place_ == Place::tensor && field_ == Field::dtype) {
      const auto dtype = dtype_from_name(value);
      if (!dtype) bad_tensor("unknown dtype ", printable(value));
      tensor_.dtype = *dtype;
    } else {
      wrong(printable(value));
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::top;
    } else if (place_ == Place::top && key_ == kMetadataKey) {
      if (std::exchange(seen_metadata_, true)) bad("duplicate ", kMetadataKey);
      place_ = Place::metadata;
    } else if (place_ == Place::top) {
      place_ = Place::tensor;
      tensor_ = {};
      tensor_.name = key_;
      offsets_ = seen_fields_ = 0;
    } else {
      wrong("an object");
    }
    return true;
  }

  bool key(string_t& value) override {
    if (place_ == Place::tensor) {
      const auto at = std::find(kFieldNames.begin(), kFieldNames.end(), value);
      if (at == kFieldNames.end()) bad_tensor("unknown key ", printable(value));
      field_ = Field(at - kFieldNames.begin());
      const unsigned bit = 1u << unsigned(field_);
      if (seen_fields_ & bit) bad_tensor("duplicate key ", printable(value));
      seen_fields_ |= bit;
    } else {
      if (value.find('\0') != string_t::npos) bad("NUL in the name ", printable(value));
      key_ = value;
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) {
      for (size_t i = 0; i < kFieldNames.size(); ++i)
        if (!(seen_fields_ >> i & 1u)) bad_tensor("no ", kFieldNames[i]);
      out_.entries.push_back(std::move(tensor_));
    }
    place_ = place_ == Place::top ? Place::outside : Place::top;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::tensor && field_ == Field::shape) {
      place_ = Place::shape;
    } else if (place_ == Place::tensor && field_ == Field::offsets) {
      place_ = Place::offsets;
    } else {
      wrong("an array");
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::offsets && offsets_ != 2)
      bad_tensor("data_offsets holds ", offsets_, " numbers, not 2");
    place_ = Place::tensor;
    return true;
  }

  // The parser's own message may hold the whole rest of the header, so only its place and kind are told.
  bool parse_error(std::size_t at, const std::string&, const nlohmann::json::exception& error) override {
    const bool encoding = std::string_view(error.what()).find("UTF-8") != std::string_view::npos;
    bad(encoding ? "not UTF-8" : "not valid JSON", " at byte ", at, " of the header");
  }

 private:
  enum class Place { outside, top, metadata, tensor, shape, offsets };
  enum class Field { dtype, shape, offsets };
  static constexpr std::array<std::string_view, 3> kFieldNames = {"dtype", "shape", "data_offsets"};

  template <class... Parts>
  [[noreturn]] void bad(const Parts&... parts) const {
    refuse(file_name_, parts..., "; fetch the file again or export it anew");
  }
  template <class... Parts>
  [[noreturn]] void bad_tensor(const Parts&... parts) const {
    bad("tensor ", printable(tensor_.name), ": ", parts...);
  }

  // A value of a kind that has no business where it stands.
  template <class Value>
  [[noreturn]] void wrong(const Value& found) const {
    switch (place_) {
      case Place::outside:
        bad("the header is ", found, ", not an object");
      case Place::top:
        bad("the header's ", printable(key_), " is ", found, ", not an object");
      case Place::metadata:
        bad("metadata ", printable(key_), " is ", found, ", not a string");
      case Place::tensor:
        bad_tensor(kFieldNames[size_t(field_)], " is ", found, ", not ",
                   field_ == Field::dtype ? "a string" : "an array");
      case Place::shape:
        bad_tensor("a dimension is ", found, ", not a whole number from 0 to ", kDimMax);
      case Place::offsets:
        bad_tensor("data_offsets holds ", found, " where two whole numbers from 0 up belong");
    }
    bad("found ", found);
  }

  const std::string& file_name_;
  SafetensorsContents& out_;
  Place place_ = Place::outside;
  Field field_ = Field::dtype;
  std::string key_;
  bool seen_metadata_ = false;
  TensorEntry tensor_;
  int offsets_ = 0;           // read so far of tensor_
  unsigned seen_fields_ = 0;  // of tensor_, one bit each
};

// The JSON header, found and measured before anything in it is believed.
std::string_view find_header(ByteView file, const std::string& file_name) {
  const std::string_view all = as_text(file);
  const auto bad = [&](const auto&... parts) {
    const std::string_view other = other_format(all);
    if (!other.empty()) refuse(file_name, other);
    refuse(file_name, "not safetensors, or a broken download: ", parts..., "; fetch the file again");
  };
  if (file.size() < kLengthBytes) bad("too short, ", file.size(), " bytes");
  uint64_t length;
  std::memcpy(&length, file.data(), sizeof(length));
  if (length > kHeaderBytesMax)
    bad("the header's length is ", length, " bytes, more than the limit of ", kHeaderBytesMax);
  if (length > file.size() - kLengthBytes)
    bad("the header's length is ", length, " bytes, but only ", file.size() - kLengthBytes, " bytes follow");
  const std::string_view header = all.substr(kLengthBytes, size_t(length));
  const size_t first = header.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || header[first] != '{') bad("the header does not begin with '{'");
  // The JSON parser would take a NUL for the end and not see what follows.
  const size_t nul = header.find('\0');
  if (nul != std::string_view::npos) bad("not valid JSON: NUL at byte ", nul, " of the header");
  return header;
}

void index_by_name(SafetensorsContents& contents, const std::string& file_name) {
  const auto name_of = [&](uint32_t i) -> const std::string& { return contents.entries[i].name; };
  std::vector<uint32_t>& order = contents.by_name;
  order.resize(contents.entries.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::sort(order, {}, name_of);
  const auto twice = std::ranges::adjacent_find(order, {}, name_of);
  if (twice != order.end())
    refuse(file_name, "duplicate tensor ", printable(name_of(*twice)), "; export the file anew");
}

// The tensors must cover the data exactly: no gap, no overlap, nothing after the last.
void check_layout(const SafetensorsContents& contents, const std::string& file_name) {
  uint64_t covered = 0;
  for (const TensorEntry& entry : contents.entries) {
    const auto bad = [&](const auto&... parts) {
      refuse(file_name, "tensor ", printable(entry.name), ": ", parts...,
             "; fetch the file again or export it anew");
    };
    if (entry.begin > entry.end) bad("data_offsets begin ", entry.begin, " > end ", entry.end);
    if (entry.begin != covered)
      bad(entry.begin > covered ? "a gap: " : "an overlap: ", "its bytes begin at ", entry.begin,
          " where the tensor before ends at ", covered);
    const auto wanted = detail::packed_bytes(entry.dtype, entry.shape);
    if (!wanted) bad("the size of its shape overflows or is not whole bytes");
    if (*wanted != entry.end - entry.begin)
      bad("size mismatch: dtype ", dtype_name(entry.dtype), " and shape make ", *wanted,
          " bytes, data_offsets ", entry.end - entry.begin);
    covered = entry.end;
  }
  const uint64_t size = contents.data.size();
  if (covered > size)
    refuse(file_name, "truncated: its tensors take ", covered, " bytes beyond the header, the file has ",
           size, "; fetch the file again");
  if (covered < size)
    refuse(file_name, size - covered,
           " trailing bytes after the last tensor; fetch the file again or export it anew");
}

void check_checksum(const SafetensorsContents& contents, const std::string& file_name) {
  const auto stored = contents.metadata.find(std::string(kChecksumKey));
  if (stored == contents.metadata.end()) return;
  detail::ContentsChecksum checksum(contents.metadata);
  for (const TensorEntry& entry : contents.entries)
    checksum.add(entry.name, entry.dtype, entry.shape,
                 contents.data.subspan(size_t(entry.begin), size_t(entry.end - entry.begin)));
  if (stored->second != checksum.text())
    refuse(file_name, "checksum mismatch: it says ", printable(stored->second), ", its contents give '",
           checksum.text(),
           "': the file is damaged, take another copy (or, if it was edited on purpose, remove ",
           kChecksumKey, " from its metadata)");
}

}  // namespace

SafetensorsContents parse_safetensors(ByteView file, const std::string& file_name) {
  const std::string_view header = find_header(file, file_name);
  SafetensorsContents contents;
  contents.data = file.subspan(size_t(kLengthBytes) + header.size());
  HeaderReader reader(file_name, contents);
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);

  // Empty tensors come before the one that begins where they lie.
  std::ranges::stable_sort(contents.entries, {},
                           [](const TensorEntry& e) { return std::pair(e.begin, e.end); });
  index_by_name(contents, file_name);
  check_layout(contents, file_name);
  check_checksum(contents, file_name);
  return contents;
}

}  // namespace tessera
