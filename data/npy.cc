#include "data/npy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <utility>

#include "engine/base/check.h"
#include "engine/io/file_dtype.h"
#include "engine/io/printable.h"

namespace tessera {
namespace {

// The header's dict, read from front to back. Only what NumPy writes is understood.
class Header {
 public:
  Header(std::string_view dict, std::string_view what) : left_(dict), what_(what) {
    bool seen[3] = {};
    expect('{');
    while (!take('}')) {
      const std::string_view key = quoted();
      expect(':');
      static constexpr std::string_view kKeys[] = {"descr", "fortran_order", "shape"};
      const auto found = std::find(std::begin(kKeys), std::end(kKeys), key) - std::begin(kKeys);
      check(found < 3, text("the key ", printable(key), ", which is not one of the format's"));
      check(!std::exchange(seen[found], true), text("the key ", printable(key), " twice"));
      if (found == 0) descr_ = type();
      if (found == 1) fortran_ = truth();
      if (found == 2) shape_ = tuple();
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    check(left_.empty(), "something after its dict");
    check(seen[0] && seen[1] && seen[2], "not all of 'descr', 'fortran_order' and 'shape'");
  }

  std::string_view descr() const { return descr_; }
  bool fortran() const { return fortran_; }
  const Shape& shape() const { return shape_; }

 private:
  void check(bool good, const std::string& has) const {
    TESSERA_CHECK_AS(Exit::data, good, what_, ": its header has ", has);
  }
  std::string here() const { return printable(left_, 20); }
  void skip_spaces() { left_.remove_prefix(std::min(left_.find_first_not_of(" \n"), left_.size())); }
  bool take(char sign) {
    skip_spaces();
    if (left_.empty() || left_[0] != sign) return false;
    left_.remove_prefix(1);
    return true;
  }
  void expect(char sign) { check(take(sign), text("no '", sign, "' where it reads ", here())); }
  std::string_view quoted() {
    skip_spaces();
    const char quote = left_.empty() ? '\0' : left_[0];
    check(quote == '\'' || quote == '"', "no string where it reads " + here());
    const size_t end = left_.find(quote, 1);
    check(end != left_.npos, "a string without end");
    const std::string_view inner = left_.substr(1, end - 1);
    left_.remove_prefix(end + 1);
    return inner;
  }
  std::string_view type() {
    skip_spaces();
    check(!left_.starts_with("["), "a structure for its element type; save a plain array");
    return quoted();
  }
  bool truth() {
    skip_spaces();
    for (const std::string_view word : {"True", "False"})
      if (left_.starts_with(word)) {
        left_.remove_prefix(word.size());
        return word == "True";
      }
    check(false, "a 'fortran_order' that is neither True nor False");
    return false;
  }
  Shape tuple() {
    Shape shape;
    expect('(');
    while (!take(')')) {
      skip_spaces();
      int64_t size = -1;
      const auto [end, error] = std::from_chars(left_.data(), left_.data() + left_.size(), size);
      check(error == std::errc() && size >= 0, "no size where it reads " + here());
      check(shape.rank() < Shape::kMaxRank, text("more than ", Shape::kMaxRank, " axes"));
      shape.push_back(size);
      left_.remove_prefix(size_t(end - left_.data()));
      if (!take(',')) {
        check(shape.rank() > 1, "a 'shape' that is no tuple");
        expect(')');
        break;
      }
    }
    return shape;
  }

  std::string_view left_, what_, descr_;
  bool fortran_ = false;
  Shape shape_;
};

struct Contents {
  Shape shape;
  char kind;                  // f float, i signed, u unsigned
  size_t width;               // bytes of a value
  std::vector<uint8_t> data;  // little-endian
};

Contents parse(Bytes bytes, std::string_view what, int rank, std::string_view kinds) {
  const auto need = [&](bool good, const auto&... parts) {
    TESSERA_CHECK_AS(Exit::data, good, what, ": ", parts...);
  };
  constexpr std::array<uint8_t, 6> kMagic = {0x93, 'N', 'U', 'M', 'P', 'Y'};
  need(bytes.size() >= 10 && std::equal(kMagic.begin(), kMagic.end(), bytes.begin()),
       "not an .npy file, which begins with \\x93NUMPY");
  const int version = bytes[6];
  need(1 <= version && version <= 3 && bytes[7] == 0, "version ", version, ".", int{bytes[7]},
       " of .npy; 1.0, 2.0 and 3.0 are read");
  const size_t start = version == 1 ? 10 : 12;
  need(bytes.size() >= start, "truncated in its header");
  size_t length = 0;
  for (size_t i = start; i-- > 8;) length = length << 8 | bytes[i];
  constexpr size_t kLongest = 1 << 16;
  need(length <= std::min(kLongest, bytes.size() - start), "declares a header of ", length,
       " bytes, but has ", bytes.size() - start, " and at most ", kLongest, " are read; truncated?");
  const Header header({reinterpret_cast<const char*>(bytes.data()) + start, length}, what);
  bytes = bytes.subspan(start + length);

  const std::string_view descr = header.descr();
  const std::string type = printable(descr);
  need(descr.find('O') == descr.npos, "holds Python objects (", type, "), which are never read");
  need(descr.size() == 3 && std::string_view("<>|").find(descr[0]) != descr.npos &&
           kinds.find(descr[1]) != kinds.npos,
       "holds values of type ", type, ", expected ", kinds == "f" ? "f2, f4 or f8" : "whole numbers");
  Contents contents{header.shape(), descr[1], size_t(descr[2] - '0'), {}};
  const size_t width = contents.width;
  need(width == 2 || width == 4 || width == 8 || (width == 1 && contents.kind != 'f'),
       "holds values of type ", type, ", which is not known");
  need((descr[0] == '|') == (width == 1), "holds values of type ", type, ", whose byte order is wrong");
  need(header.shape().rank() == rank, "has the shape ", header.shape(), ", expected ", rank, " axes");
  need(!header.fortran() || rank < 2, "is in Fortran order; save numpy.ascontiguousarray of it");
  uint64_t size = width;
  for (const int64_t axis : header.shape())
    need(!__builtin_mul_overflow(size, uint64_t(axis), &size), "the shape ", header.shape(), " is too large");
  need(size == bytes.size(), "the shape ", header.shape(), " of ", type, " takes ", size,
       " bytes, but the file has ", bytes.size(), " after its header; truncated, or trailing bytes?");

  contents.data.assign(bytes.begin(), bytes.end());
  if (descr[0] == '>')
    for (auto value = contents.data.begin(); value != contents.data.end(); value += std::ptrdiff_t(width))
      std::reverse(value, value + std::ptrdiff_t(width));
  return contents;
}

}  // namespace

NpyArray<float> parse_npy_floats(Bytes bytes, std::string_view what, int rank) {
  const Contents contents = parse(bytes, what, rank, "f");
  NpyArray<float> array{contents.shape, std::vector<float>(contents.data.size() / contents.width)};
  const FileDtype type = contents.width == 2   ? FileDtype::f16
                         : contents.width == 4 ? FileDtype::f32
                                               : FileDtype::f64;
  convert_elements<float>(type, reinterpret_cast<const std::byte*>(contents.data.data()), array.values);
  return array;
}

NpyArray<int64_t> parse_npy_integers(Bytes bytes, std::string_view what, int rank) {
  const Contents contents = parse(bytes, what, rank, "iu");
  const size_t width = contents.width, unused = 64 - 8 * width;
  NpyArray<int64_t> array{contents.shape, {}};
  for (size_t at = 0; at < contents.data.size(); at += width) {
    uint64_t value = 0;
    for (size_t i = width; i-- > 0;) value = value << 8 | contents.data[at + i];
    TESSERA_CHECK_AS(Exit::data, contents.kind == 'i' || value <= uint64_t{INT64_MAX}, what, ": the number ",
                     value, " is too large");
    // A signed number's highest bit is carried on upwards.
    array.values.push_back(contents.kind == 'i' ? int64_t(value << unused) >> unused : int64_t(value));
  }
  return array;
}

}  // namespace tessera
