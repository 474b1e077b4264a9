// Files made up for the data tests, good and hostile, in a folder that goes away with the test.
#pragma once

#include <doctest/doctest.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/image_set.h"
#include "tests/messages.h"
#include "tests/scratch_folder.h"

namespace tessera::testing {

using ByteVector = std::vector<uint8_t>;

class TempFolder : public ScratchFolder {
 public:
  std::filesystem::path write(const std::string& name, const ByteVector& bytes) const {
    const std::filesystem::path file = path() / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream out(file, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
    REQUIRE(out.good());
    return file;
  }
};

// `f` must end in Error(Exit::data) whose message names the file and has the word.
template <class F>
void check_refused(const std::string& file, const std::string& word, F&& f) {
  CAPTURE(file);
  CAPTURE(word);
  const Caught error = error_of(Exit::data, f);
  CHECK(error.has(file));
  CHECK(error.has(word));
}

// The bytes of a set in memory.
inline const ByteVector& pixels(const Dataset& set) {
  return dynamic_cast<const MemoryImages&>(*set.samples).pixels();
}
inline const uint8_t* image(const Dataset& set, int64_t index) {
  return dynamic_cast<const MemoryImages&>(*set.samples).image(index).pixels;
}

inline ByteVector bytes_of(const std::string& text) { return ByteVector(text.begin(), text.end()); }

inline ByteVector joined(ByteVector a, const ByteVector& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline ByteVector first_bytes(const ByteVector& bytes, size_t count) {
  return ByteVector(bytes.begin(), bytes.begin() + std::min(count, bytes.size()));
}

inline ByteVector idx_header(const std::vector<uint32_t>& dims, uint8_t type = 0x08) {
  ByteVector bytes = {0, 0, type, uint8_t(dims.size())};
  for (const uint32_t dim : dims) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(uint8_t(dim >> shift));
  }
  return bytes;
}

// Values 0, 1, 2 ... modulo `below`.
inline ByteVector idx_file(const std::vector<uint32_t>& dims, int below = 256) {
  size_t size = 1;
  for (const uint32_t dim : dims) size *= dim;
  ByteVector bytes = idx_header(dims);
  for (size_t i = 0; i < size; ++i) bytes.push_back(uint8_t(i % size_t(below)));
  return bytes;
}

inline ByteVector gzip(const ByteVector& bytes) {
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 9, Z_DEFAULT_STRATEGY) == Z_OK);
  ByteVector out(deflateBound(&stream, uLong(bytes.size())));
  stream.next_in = const_cast<uint8_t*>(bytes.data());
  stream.avail_in = uInt(bytes.size());
  stream.next_out = out.data();
  stream.avail_out = uInt(out.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

}  // namespace tessera::testing
