#include <doctest/doctest.h>

#include "data/npy.h"
#include "tests/npy_files.h"

using namespace tessera;
using namespace tessera::testing;

TEST_CASE("npy: floats of every width, order and version") {
  const std::vector<float> want = {1.5f, -2, 0.25f, 0, 65504, -0.5f};
  const auto check = [&](const ByteVector& file) {
    const NpyArray<float> array = parse_npy_floats(file, "x.npy", 2);
    CHECK(array.shape == Shape{2, 3});
    CHECK(array.values == want);
  };
  const ByteVector single = bytes_of(want);
  // What NumPy writes: 64 bytes and a multiple of them before the values.
  CHECK(npy_file(npy_dict("<f4", "(2, 3)"), single).size() == 128 + 24);
  check(npy_file(npy_dict("<f4", "(2, 3)"), single));
  for (const int major : {2, 3}) check(npy_file(npy_dict("<f4", "(2, 3)"), single, major));
  check(npy_file(npy_dict("<f8", "(2, 3)"), bytes_of(std::vector<double>(want.begin(), want.end()))));
  check(npy_file(npy_dict("<f2", "(2, 3)"),
                 bytes_of(std::vector<uint16_t>{0x3E00, 0xC000, 0x3400, 0, 0x7BFF, 0xB800})));
  ByteVector swapped = single;
  for (size_t i = 0; i < swapped.size(); i += 4) std::reverse(swapped.begin() + i, swapped.begin() + i + 4);
  check(npy_file(npy_dict(">f4", "(2, 3)"), swapped));
  // Another order of keys, other quotes, no last comma.
  check(npy_file("{\"shape\":(2,3),'fortran_order':False,'descr':'<f4'}", single));
}

TEST_CASE("npy: whole numbers keep their sign") {
  const auto values = [](const std::string& type, const ByteVector& bytes) {
    return parse_npy_integers(
               npy_file(npy_dict(type, text("(", bytes.size() / size_t(type[2] - '0'), ",)")), bytes),
               "y.npy", 1)
        .values;
  };
  using Numbers = std::vector<int64_t>;
  CHECK(values("|u1", {0, 255}) == Numbers{0, 255});
  CHECK(values("|i1", {127, 255}) == Numbers{127, -1});
  CHECK(values("<i2", {1, 0, 254, 255}) == Numbers{1, -2});
  CHECK(values(">u2", {1, 0}) == Numbers{256});
  CHECK(values("<i8", bytes_of(Numbers{INT64_MIN, 9})) == Numbers{INT64_MIN, 9});
  CHECK(values("<u4", {255, 255, 255, 255}) == Numbers{4294967295});
  CHECK(values("<i4", {}).empty());
}

TEST_CASE("npy: hostile files") {
  const ByteVector good = npy_file(npy_dict("<f4", "(2, 3)"), ByteVector(24));
  const auto bad = [](const std::string& word, const ByteVector& bytes, int rank = 2) {
    check_refused("x.npy", word, [&] { parse_npy_floats(bytes, "x.npy", rank); });
  };
  bad("not an .npy", {});
  bad("not an .npy", {0x93, 'N', 'U', 'M', 'P', 'Z', 1, 0, 0, 0});
  for (size_t size = 1; size < good.size(); size += 3) bad("x.npy", first_bytes(good, size));
  bad("trailing bytes", joined(good, {0}));
  bad("version 4.0", npy_file(npy_dict("<f4", "(2, 3)"), ByteVector(24), 4));
  ByteVector long_header = good;
  long_header[8] = long_header[9] = 255;
  bad("header of 65535 bytes", long_header);
  const auto with = [](const std::string& header) { return npy_file(header, ByteVector(24)); };
  bad("3 axes", good, 3);
  bad("Fortran", with(npy_dict("<f4", "(2, 3)", "True")));
  bad("Python objects", with(npy_dict("|O", "(2, 3)")));
  bad("a structure", with("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3)}"));
  for (const char* type : {"<i4", "<f1", "<f3", "f4", "=f4", "<f", "<f16", "<c8", "", "<U4", "<f\\x00"})
    bad("values of type", with(npy_dict(type, "(2, 3)")));
  bad("byte order", with(npy_dict("|f4", "(2, 3)")));
  bad("too large", with(npy_dict("<f4", "(4294967296, 4294967296)")));
  bad("takes 17179869184 bytes", with(npy_dict("<f4", "(4294967296, 1)")));
  bad("no size", with(npy_dict("<f4", "(-2, 3)")));
  bad("no size", with(npy_dict("<f4", "(99999999999999999999, 3)")));
  bad("no ')'", with(npy_dict("<f4", "(2, 3L)")));
  bad("more than 6 axes", with(npy_dict("<f4", "(1,1,1,1,1,1,1)")));
  bad("no tuple", with(npy_dict("<f4", "(6)")));
  bad("neither True nor False", with(npy_dict("<f4", "(2, 3)", "0")));
  bad("twice", with("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}"));
  bad("not all of", with("{'descr': '<f4', 'shape': (2, 3)}"));
  bad("the key 'names'", with("{'names': '<f4'}"));
  bad("without end", with("{'descr"));
  bad("after its dict", with(npy_dict("<f4", "(2, 3)") + " 1"));
  bad("no '{'", with("(2, 3)"));
  check_refused("y.npy", "too large", [] {
    parse_npy_integers(npy_file(npy_dict("<u8", "(1,)"), ByteVector(8, 255)), "y.npy", 1);
  });
  check_refused("y.npy", "expected whole numbers", [&] { parse_npy_integers(good, "y.npy", 2); });
}
