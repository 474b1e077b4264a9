#include "data/idx.h"

#include <zlib.h>

#include <algorithm>
#include <array>

#include "engine/base/check.h"

namespace tessera {
namespace {

// A source hands out bytes from front to back. `at_most()` bounds what may still come.

class PlainSource {
 public:
  PlainSource(Bytes bytes, std::string_view what) : left_(bytes), what_(what) {}

  uint64_t at_most() const { return left_.size(); }
  void read(std::span<uint8_t> out, const char* part) {
    TESSERA_CHECK_AS(Exit::data, out.size() <= left_.size(), what_, ": truncated in its ", part, ": ",
                     left_.size(), " bytes left, ", out.size(), " needed; fetch the file again");
    std::copy_n(left_.begin(), out.size(), out.begin());
    left_ = left_.subspan(out.size());
  }
  void finish() const {
    TESSERA_CHECK_AS(Exit::data, left_.empty(), what_, ": ", left_.size(),
                     " trailing bytes after the declared values");
  }

 private:
  Bytes left_;
  std::string_view what_;
};

class GzipSource {
 public:
  GzipSource(Bytes bytes, std::string_view what) : left_(bytes), what_(what) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    TESSERA_CHECK(inflateInit2(&stream_, kGzipOnly) == Z_OK, what_, ": zlib does not start");
  }
  ~GzipSource() { inflateEnd(&stream_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  // Deflate's best case is 258 bytes from 2 bits: no stream expands more than 1032 times.
  uint64_t at_most() const {
    return std::min((uint64_t{left_.size()} + stream_.avail_in) * 1032 + kSlack, kMaxFileBytes);
  }

  void read(std::span<uint8_t> out, const char* part) {
    const size_t got = inflate_into(out);
    TESSERA_CHECK_AS(Exit::data, got == out.size(), what_, ": gzip stream ends in its ", part,
                     ": truncated, ", got, " of ", out.size(), " bytes");
  }

  // The stream must end here, its checksum right, and with it the file.
  void finish() {
    uint8_t more;
    TESSERA_CHECK_AS(Exit::data, inflate_into({&more, 1}) == 0, what_,
                     ": gzip stream has trailing bytes after the declared values");
    TESSERA_CHECK_AS(Exit::data, ended_, what_, ": gzip stream truncated before its checksum");
    const uint64_t trailing = uint64_t{left_.size()} + stream_.avail_in;
    TESSERA_CHECK_AS(Exit::data, trailing == 0, what_, ": ", trailing,
                     " trailing bytes after the gzip stream");
  }

 private:
  // What zlib may hold back inside its window and bit buffer.
  static constexpr uint64_t kSlack = 1 << 16;
  // zlib counts in 32 bits.
  static constexpr size_t kPiece = size_t{1} << 30;

  // Expands up to out.size() bytes; fewer where the stream or the file ends.
  size_t inflate_into(std::span<uint8_t> out) {
    size_t done = 0;
    while (done < out.size() && !ended_) {
      if (stream_.avail_in == 0) {
        const size_t piece = std::min(left_.size(), kPiece);
        stream_.next_in = const_cast<uint8_t*>(left_.data());
        stream_.avail_in = uInt(piece);
        left_ = left_.subspan(piece);
      }
      const size_t room = std::min(out.size() - done, kPiece);
      stream_.next_out = out.data() + done;
      stream_.avail_out = uInt(room);
      const int status = inflate(&stream_, Z_NO_FLUSH);
      done += room - stream_.avail_out;
      if (status == Z_BUF_ERROR) break;  // the file ends before the stream does
      TESSERA_CHECK_AS(Exit::data, status == Z_OK || status == Z_STREAM_END, what_,
                       ": corrupted gzip stream (", stream_.msg ? stream_.msg : "zlib error", ")");
      ended_ = status == Z_STREAM_END;
    }
    return done;
  }

  Bytes left_;
  std::string_view what_;
  z_stream stream_{};
  bool ended_ = false;
};

template <class Source>
IdxArray parse(Source source, std::string_view what, int rank) {
  constexpr uint8_t kUnsignedByte = 0x08;
  std::array<uint8_t, 4> magic;
  source.read(magic, "header");
  TESSERA_CHECK_AS(Exit::data, magic[0] == 0 && magic[1] == 0, what,
                   ": bad IDX magic, the first two bytes must be 0 but are ", int{magic[0]}, " and ",
                   int{magic[1]});
  TESSERA_CHECK_AS(Exit::data, magic[2] == kUnsignedByte, what, ": IDX type ", int{magic[2]},
                   ", only type 8 (unsigned bytes) is read");
  TESSERA_CHECK_AS(Exit::data, magic[3] == rank, what, ": IDX rank ", int{magic[3]}, ", expected ", rank,
                   "; are images and labels swapped?");

  IdxArray array;
  for (int i = 0; i < rank; ++i) {
    std::array<uint8_t, 4> raw;
    source.read(raw, "dims");
    array.dims.push_back(int64_t{raw[0]} << 24 | int64_t{raw[1]} << 16 | int64_t{raw[2]} << 8 |
                         int64_t{raw[3]});
    TESSERA_CHECK_AS(Exit::data, array.dims.back() > 0, what, ": dim ", i, " is 0: the set is empty");
  }
  const uint64_t most = source.at_most();
  uint64_t size = 1;
  for (const int64_t dim : array.dims) {
    TESSERA_CHECK_AS(Exit::data, size <= most / uint64_t(dim), what, ": declares ", size, " x ", dim,
                     " values or more, but can hold at most ", most,
                     "; it is truncated, or its header is wrong");
    size *= uint64_t(dim);
  }
  array.values.resize(size);
  source.read(array.values, "values");
  source.finish();
  return array;
}

}  // namespace

IdxArray parse_idx(Bytes bytes, std::string_view what, int rank) {
  const bool gzip = bytes.size() >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
  return gzip ? parse(GzipSource(bytes, what), what, rank) : parse(PlainSource(bytes, what), what, rank);
}

}  // namespace tessera
