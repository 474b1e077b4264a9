#include "engine/io/safetensors.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/scratch_folder.h"

namespace tessera {
namespace {

std::string length_bytes(uint64_t length) {
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out;
}

std::string file_of(const std::string& header, const std::string& data = "") {
  return length_bytes(header.size()) + header + data;
}

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return text(R"({"dtype":")", dtype, R"(","shape":)", shape, R"(,"data_offsets":)", offsets, "}");
}

// A header of tensors, each with its JSON.
std::string header_of(const std::vector<std::pair<std::string, std::string>>& tensors) {
  std::string out;
  for (const auto& [name, value] : tensors) out += text(out.empty() ? '{' : ',', '"', name, "\":", value);
  return out + "}";
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return header_of({{"w", tensor(dtype, shape, offsets)}});
}

std::string repeated(int times, const std::string& words) {
  std::string out;
  for (int i = 0; i < times; ++i) out += words;
  return out;
}

ByteView view_of(const std::string& content) { return std::as_bytes(std::span(content)); }

template <class T>
std::string packed(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::vector<float> floats_of(const SafetensorsFile& file, const std::string& name) {
  const TensorEntry* const entry = file.find(name);
  REQUIRE(entry != nullptr);
  std::vector<float> out(size_t(entry->count()));
  file.read_f32(*entry, out);
  return out;
}

struct Hostile {
  std::string what, content, telling;
};

std::string damaged(const std::function<void(std::string&)>& damage) {
  const ScratchFolder folder;
  const std::vector<float> values = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  SafetensorsWriter writer;
  writer.metadata()["step"] = "125";
  writer.add("weight", {10}, values.data());
  writer.write(folder / "w");
  std::string content = read_text(folder / "w", kPlenty);
  damage(content);
  return content;
}

std::vector<Hostile> hostile_files() {
  const std::string four(4, 'd'), eight(8, 'd');
  const std::string good = tensor("F32", "[1]", "[0,4]");
  const std::string zip = std::string("PK\3\4\x14\0\0\0\0\0", 10) + std::string(16, '\0');
  std::vector<Hostile> files = {
      {"empty", "", "too short, 0 bytes"},
      {"seven bytes", std::string(7, '\0'), "too short, 7 bytes"},
      {"length above the file", length_bytes(100) + "{}", "length is 100 bytes, but only 2"},
      {"length above the rest", length_bytes(4) + "{}", "length is 4 bytes, but only 2"},
      {"length above the limit", length_bytes(100'000'001) + "{}", "more than the limit of 100000000"},
      {"length of all ones", std::string(8, '\xff') + "{}", "more than the limit"},
      {"no header", file_of(""), "does not begin with '{'"},
      {"blank header", file_of("   \n"), "does not begin with '{'"},
      {"header is an array", file_of("[1,2]"), "does not begin with '{'"},
      {"byte order mark", file_of("\xEF\xBB\xBF{}"), "does not begin with '{'"},
      {"header cut", file_of(R"({"w":)"), "not valid JSON at byte"},
      {"header twice", file_of("{}{}"), "not valid JSON at byte"},
      {"comment", file_of("{/* */}"), "not valid JSON at byte"},
      {"not UTF-8", file_of(header_of({{"w\xff", good}}), four), "not UTF-8 at byte"},
      {"lone surrogate", file_of(header_of({{"\\ud800", good}}), four), "not valid JSON"},
      {"NUL ends the header early", file_of(std::string("{}\0}", 4)), "NUL at byte 2"},
      {"NUL in a name", file_of(header_of({{"a\\u0000b", good}}), four), "NUL in the name 'a?b'"},
      {"duplicate tensor", file_of(header_of({{"w", good}, {"w", tensor("F32", "[1]", "[4,8]")}}), eight),
       "duplicate tensor 'w'"},
      {"duplicate field",
       file_of(R"({"w":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", four),
       "duplicate key 'dtype'"},
      {"duplicate metadata key", file_of(R"({"__metadata__":{"a":"1","a":"2"}})"),
       "duplicate metadata key 'a'"},
      {"metadata twice", file_of(R"({"__metadata__":{},"__metadata__":{}})"), "duplicate __metadata__"},
      {"metadata is a list", file_of(R"({"__metadata__":[]})"), "'__metadata__' is an array, not an object"},
      {"metadata is null", file_of(R"({"__metadata__":null})"), "'__metadata__' is null"},
      {"metadata value a number", file_of(R"({"__metadata__":{"a":1}})"), "metadata 'a' is 1, not a string"},
      {"metadata value nested", file_of(R"({"__metadata__":{"a":{}}})"), "metadata 'a' is an object"},
      {"tensor is a number", file_of(R"({"w":3})"), "'w' is 3, not an object"},
      {"dtype unknown", file_of(one("F33", "[1]", "[0,4]"), four), "unknown dtype 'F33'"},
      {"dtype in lower case", file_of(one("f32", "[1]", "[0,4]"), four), "unknown dtype 'f32'"},
      {"dtype is a number", file_of(R"({"w":{"dtype":32,"shape":[1],"data_offsets":[0,4]}})", four),
       "dtype is 32, not a string"},
      {"no dtype", file_of(R"({"w":{"shape":[1],"data_offsets":[0,4]}})", four), "tensor 'w': no dtype"},
      {"no shape", file_of(R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", four), "no shape"},
      {"no offsets", file_of(R"({"w":{"dtype":"F32","shape":[1]}})", four), "no data_offsets"},
      {"unknown key", file_of(R"({"w":{"strides":[1]}})"), "unknown key 'strides'"},
      {"shape is a string", file_of(R"({"w":{"shape":"1"}})"), "shape is '1', not an array"},
      {"negative dimension", file_of(one("F32", "[-1]", "[0,4]"), four), "a dimension is -1"},
      {"fractional dimension", file_of(one("F32", "[1.9]", "[0,4]"), four), "a dimension is '1.9'"},
      {"dimension 1.0", file_of(one("F32", "[1.0]", "[0,4]"), four), "a dimension is '1.0'"},
      {"dimension true", file_of(one("F32", "[true]", "[0,4]"), four), "a dimension is true"},
      {"dimension 2^63", file_of(one("F32", "[9223372036854775808]", "[0,4]"), four), "a dimension is 922"},
      {"dimension 2^64", file_of(one("F32", "[18446744073709551616]", "[0,4]"), four), "a dimension is '184"},
      {"dimension 1e400", file_of(one("F32", "[1e400]", "[0,4]"), four), "not valid JSON"},
      {"product wraps to 1", file_of(one("U8", "[4294967296,4294967296,4294967296]", "[0,0]")), "overflows"},
      {"product wraps to 4", file_of(one("F32", "[4611686018427387905]", "[0,4]"), four), "overflows"},
      {"overflow hidden by 0", file_of(one("F32", "[9223372036854775807,2,0]", "[0,0]")), "overflows"},
      {"overflow after 0", file_of(one("F32", "[0,9223372036854775807,2]", "[0,0]")), "overflows"},
      {"half a byte", file_of(one("F4", "[3]", "[0,1]"), "d"), "not whole bytes"},
      {"rank bomb", file_of(one("U8", text("[1", repeated(100, ",1"), "]"), "[0,1]"), "d"),
       "more than 32 dimensions"},
      {"nested shape", file_of(one("F32", "[[1]]", "[0,4]"), four), "a dimension is an array"},
      {"depth bomb of arrays", file_of(text(R"({"w":)", repeated(1'000'000, "["))), "'w' is an array"},
      {"depth bomb of objects", file_of(repeated(100'000, R"({"shape":)")), "shape is an object"},
      {"one offset", file_of(one("F32", "[1]", "[4]"), four), "holds 1 numbers, not 2"},
      {"three offsets", file_of(one("F32", "[1]", "[0,4,8]"), four), "data_offsets holds 8"},
      {"negative offset", file_of(one("F32", "[1]", "[-4,0]"), four), "data_offsets holds -4"},
      {"begin after end", file_of(one("F32", "[1]", "[4,0]"), four), "begin 4 > end 0"},
      {"gap before the first", file_of(one("F32", "[1]", "[4,8]"), eight), "a gap: its bytes begin at 4"},
      {"gap", file_of(header_of({{"a", good}, {"b", tensor("U8", "[2]", "[6,8]")}}), eight), "a gap"},
      {"overlap", file_of(header_of({{"a", good}, {"b", tensor("F32", "[1]", "[2,6]")}}), eight),
       "an overlap: its bytes begin at 2 where the tensor before ends at 4"},
      {"same bytes twice", file_of(header_of({{"a", good}, {"b", good}}), four), "an overlap"},
      {"size too small", file_of(one("F32", "[2]", "[0,4]"), four), "size mismatch"},
      {"size too large", file_of(one("F32", "[1]", "[0,8]"), eight), "size mismatch"},
      {"beyond the file", file_of(one("F32", "[2]", "[0,8]"), four), "truncated"},
      {"terabytes", file_of(one("U8", "[1099511627776]", "[0,1099511627776]"), four), "truncated"},
      {"trailing bytes", file_of(one("F32", "[1]", "[0,4]"), eight), "4 trailing bytes"},
      {"trailing bytes alone", file_of("{}", "x"), "1 trailing bytes"},
      {"checksum not ours", file_of(R"({"__metadata__":{"tessera.checksum":"yes"}})"), "checksum mismatch"},
      {"PyTorch zip", zip + std::string("\x10\0\0\0archive/data.pkl", 20), "PyTorch"},
      {"NumPy zip", zip + std::string("\x05\0\0\0a.npy", 9), "NumPy"},
      {"zip cut", "PK\3\4\x14", "PyTorch"},
      {"old PyTorch pickle", "\x80\x02\x8a\nl\xfc\x9c\x46\xf9\x20j\xa8P", "convert it in Python"},
      {"GGUF", std::string("GGUF\3\0\0\0\0\0\0\0", 12), "GGUF"},
      {"HDF5", std::string("\x89HDF\r\n\x1a\n\0\0", 10), "HDF5"},
      {"npy", std::string("\x93NUMPY\1\0v\0{", 11), "NumPy"},
      {"JSON", R"({"architectures": ["ViT"]})", "it is JSON"},
      {"gzip", std::string("\x1f\x8b\x08\0\0\0\0\0\0\3", 10), "gunzip"},
      {"Git LFS pointer", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull"},
      {"web page", "<!DOCTYPE html><html>", "web page"},
      {"not a pickle but a length", length_bytes(0x280) + "{", "length is 640 bytes"},
  };
  const auto flip = [&](const std::string& what, const std::string& near, char to) {
    files.push_back({what, damaged([&](std::string& content) { content[content.find(near)] = to; }),
                     "checksum mismatch"});
  };
  files.push_back({"one bit of the data", damaged([](std::string& content) { content.back() ^= 1; }),
                   "checksum mismatch"});
  files.push_back({"two words swapped", damaged([](std::string& content) {
                     std::swap_ranges(content.end() - 8, content.end() - 4, content.end() - 4);
                   }),
                   "checksum mismatch"});
  flip("a digit of the metadata", "125", '7');
  flip("a letter of a name", "weight", 'v');
  flip("a dtype of the same size", "F32", 'U');
  return files;
}

}  // namespace

TEST_CASE("safetensors: hostile files end in an error that names the file and what is wrong") {
  const std::vector<Hostile> files = hostile_files();
  CHECK(files.size() >= 60);
  for (const Hostile& file : files) {
    CAPTURE(file.what);
    // A heap copy of the exact size: an address checker sees any read past its end.
    const std::vector<char> exact(file.content.begin(), file.content.end());
    try {
      const SafetensorsFile opened(std::as_bytes(std::span(exact)), "dir/bad.safetensors");
      FAIL_CHECK("accepted");
    } catch (const Error& error) {
      const std::string message = error.what();
      CAPTURE(message);
      CHECK(int(error.code()) == int(Exit::file));
      CHECK(message.find("'dir/bad.safetensors'") != std::string::npos);
      CHECK(message.find(file.telling) != std::string::npos);
      CHECK(message.size() < 500);
    }
  }
}

TEST_CASE("safetensors: every cut of a good file is an error") {
  const std::string whole = damaged([](std::string&) {});
  CHECK_NOTHROW(SafetensorsFile(view_of(whole), "whole"));
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::vector<char> cut(whole.begin(), whole.begin() + std::ptrdiff_t(size));
    CHECK_THROWS_AS(SafetensorsFile(std::as_bytes(std::span(cut)), "cut"), Error);
  }
}

TEST_CASE("safetensors: every flipped bit of a file with a checksum is an error") {
  const std::string whole = damaged([](std::string&) {});
  const size_t data_begin = whole.size() - 40;
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] ^= char(1 << bit % 8);
    const bool key_lost = bit / 8 < data_begin && flipped.find(kChecksumKey) == std::string::npos;
    // A space of the padding may become other white space.
    const bool still_blank = bit / 8 < data_begin && whole[bit / 8] == ' ' && std::isspace(flipped[bit / 8]);
    if (key_lost || still_blank) continue;
    CAPTURE(bit);
    CHECK_THROWS_AS(SafetensorsFile(view_of(flipped), "flipped"), Error);
  }
}

TEST_CASE("safetensors: what is written is read back, from a file") {
  const ScratchFolder folder;
  const std::string path = folder / "w.safetensors";
  const std::vector<float> floats = {1.5f,     -0.0f, std::numeric_limits<float>::denorm_min(),
                                     INFINITY, 3e38f, 0.1f};
  const std::vector<double> doubles = {0.1, -1e300};
  const std::vector<int64_t> integers = {-1, std::numeric_limits<int64_t>::max()};
  const std::vector<uint8_t> bytes = {0, 255, 7};
  SafetensorsWriter writer;
  writer.metadata()["config"] = "{\"a\": \"\xC3\xA9\\n\"}\n";
  writer.add("odd", FileDtype::u8, {3}, bytes.data());
  writer.add("blocks.0/\"quoted\" \xC3\xA9", {2, 3}, floats.data());
  writer.add("double", {2}, doubles.data());
  writer.add("step", FileDtype::i64, {2}, integers.data());
  writer.add("scalar", std::vector<int64_t>{}, floats.data());
  writer.add("none", {4, 0, 2}, static_cast<const float*>(nullptr));
  writer.write(path);

  const SafetensorsFile file(path);
  CHECK(file.name() == path);
  CHECK(file.entries().size() == 6);
  CHECK(file.metadata().at("config") == writer.metadata().at("config"));
  CHECK(file.metadata().at("format") == "pt");
  CHECK(file.metadata().count(std::string(kChecksumKey)) == 1);
  const TensorEntry* const entry = file.find("blocks.0/\"quoted\" \xC3\xA9");
  REQUIRE(entry != nullptr);
  CHECK(entry->shape == std::vector<int64_t>{2, 3});
  CHECK(packed(floats_of(file, entry->name)) == packed(floats));
  std::vector<double> out(2);
  file.read_f64(*file.find("double"), out);
  CHECK(out == doubles);
  CHECK(std::memcmp(file.bytes(*file.find("step")).data(), integers.data(), 16) == 0);
  CHECK(std::memcmp(file.bytes(*file.find("odd")).data(), bytes.data(), 3) == 0);
  CHECK(floats_of(file, "scalar") == std::vector<float>{1.5f});
  CHECK(file.find("none")->count() == 0);
  CHECK(floats_of(file, "none").empty());
  CHECK(file.find("nothing") == nullptr);
  CHECK(file.find("") == nullptr);
}

TEST_CASE("safetensors: the writer's bytes are the format's reference bytes") {
  const ScratchFolder folder;
  const std::vector<float> f = {1, 2};
  const std::vector<double> d = {3};
  const std::vector<uint8_t> u = {9};
  SafetensorsWriter writer;
  writer.add("b", {2}, f.data());
  writer.add("small", FileDtype::u8, {1}, u.data());
  writer.add("a", {1, 2}, f.data());
  writer.add("z", std::vector<int64_t>{}, d.data());
  writer.write(folder / "w");
  const std::string content = read_text(folder / "w", kPlenty);
  const std::string checksum = SafetensorsFile(folder / "w").metadata().at(std::string(kChecksumKey));
  CHECK(checksum.size() == 16);
  std::string header = text(R"({"__metadata__":{"format":"pt","tessera.checksum":")", checksum,
                            R"("},"z":{"dtype":"F64","shape":[],"data_offsets":[0,8]},)",
                            R"("a":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},)",
                            R"("b":{"dtype":"F32","shape":[2],"data_offsets":[16,24]},)",
                            R"("small":{"dtype":"U8","shape":[1],"data_offsets":[24,25]}})");
  while (header.size() % 8) header += ' ';
  CHECK(content == file_of(header, packed(d) + packed(f) + packed(f) + packed(u)));
}

TEST_CASE("safetensors: every dtype has a name and a size; those of weights convert exactly") {
  for (int i = 0; i <= int(FileDtype::u64); ++i) {
    const FileDtype dtype = FileDtype(i);
    const std::string name(dtype_name(dtype));
    CAPTURE(name);
    CHECK(dtype_from_name(name) == dtype);
    const std::string size = std::to_string(dtype_bits(dtype));
    const std::string content =
        file_of(one(name, "[8]", text("[0,", size, "]")), std::string(size_t(dtype_bits(dtype)), '\1'));
    const SafetensorsFile file(view_of(content), "all");
    std::vector<float> out(8);
    const bool weight = name == "F16" || name == "BF16" || name == "F32" || name == "F64";
    if (weight) {
      CHECK_NOTHROW(file.read_f32(file.entries()[0], out));
    } else {
      CHECK_THROWS_WITH_AS(file.read_f32(file.entries()[0], out),
                           doctest::Contains((name + ", only F32").c_str()), Error);
    }
    std::vector<float> short_of_one(7);
    CHECK_THROWS_WITH_AS(file.read_f32(file.entries()[0], short_of_one), doctest::Contains("8 elements"),
                         Error);
  }
  CHECK(dtype_bits(FileDtype::f6_e2m3) == 6);
  CHECK(dtype_bits(FileDtype::c64) == 64);

  CHECK(float_from_f16(0x3C00) == 1.0f);
  CHECK(float_from_f16(0xC000) == -2.0f);
  CHECK(float_from_f16(0x7BFF) == 65504.0f);
  CHECK(float_from_f16(0x0001) == std::ldexp(1.0f, -24));
  CHECK(float_from_f16(0x83FF) == -std::ldexp(1023.0f, -24));
  CHECK(float_from_f16(0x0400) == std::ldexp(1.0f, -14));
  CHECK(std::signbit(float_from_f16(0x8000)));
  CHECK(float_from_f16(0x8000) == 0.0f);
  CHECK(float_from_f16(0xFC00) == -INFINITY);
  CHECK(std::isnan(float_from_f16(0x7E01)));
  CHECK(float_from_bf16(0x3F80) == 1.0f);
  CHECK(float_from_bf16(0xC049) == -3.140625f);
}

TEST_CASE("safetensors: unaligned data, white space around the header, empty files") {
  const std::vector<float> values = {1.25f, -7.0f};
  const std::vector<double> wide = {0.5};
  const std::string header = text(" \n\t",
                                  header_of({{"f", tensor("F32", "[2]", "[1,9]")},
                                             {"u", tensor("U8", "[1]", "[0,1]")},
                                             {"d", tensor("F64", "[]", "[9,17]")},
                                             {"e2", tensor("F32", "[0]", "[9,9]")}}),
                                  "\r\n ");
  for (size_t shift = 0; shift < 8; ++shift) {
    const std::string buffer =
        std::string(shift, 'x') + file_of(header, text("u", packed(values), packed(wide)));
    const SafetensorsFile file(view_of(buffer).subspan(shift), "unaligned");
    CHECK(floats_of(file, "f") == values);
    CHECK(floats_of(file, "d") == std::vector<float>{0.5f});
    std::string order;
    for (const TensorEntry& entry : file.entries()) order += entry.name + " ";
    CHECK(order == "u f e2 d ");
  }
  CHECK(SafetensorsFile(view_of(file_of("{}")), "nothing").entries().empty());
  const std::string empty_metadata = file_of(R"({"__metadata__":{}})");
  CHECK(SafetensorsFile(view_of(empty_metadata), "empty").metadata().empty());
  const std::string only_metadata = file_of(R"({"__metadata__":{"a":"b"}})");
  CHECK(SafetensorsFile(view_of(only_metadata), "only").metadata() == Metadata{{"a", "b"}});
}

TEST_CASE("safetensors: the checksum does not depend on the order of tensors") {
  const ScratchFolder folder;
  const std::vector<float> a = {1}, b = {2};
  SafetensorsWriter writer;
  writer.add("a", {1}, a.data());
  writer.add("b", {1}, b.data());
  writer.write(folder / "w");
  const std::string checksum = SafetensorsFile(folder / "w").metadata().at(std::string(kChecksumKey));
  const auto swapped = [&](const std::string& first, const std::string& second) {
    const std::string metadata = text(R"({"tessera.checksum":")", checksum, R"(","format":"pt"})");
    return file_of(header_of({{second, tensor("F32", "[1]", "[4,8]")},
                              {first, tensor("F32", "[1]", "[0,4]")},
                              {"__metadata__", metadata}}),
                   packed(b) + packed(a));
  };
  CHECK_NOTHROW(SafetensorsFile(view_of(swapped("b", "a")), "right"));
  CHECK_THROWS_WITH_AS(SafetensorsFile(view_of(swapped("a", "b")), "wrong"), doctest::Contains("checksum"),
                       Error);
}

TEST_CASE("safetensors: the writer refuses what no file can hold and keeps the former file") {
  const ScratchFolder folder;
  const float value = 1;
  SafetensorsWriter writer;
  writer.add("w", {1}, &value);
  writer.write(folder / "w");
  const std::string former = read_text(folder / "w", kPlenty);
  CHECK_THROWS_WITH_AS(writer.add("w", {1}, &value), doctest::Contains("added twice"), Error);
  CHECK_THROWS_WITH_AS(writer.add("__metadata__", {1}, &value), doctest::Contains("named"), Error);
  CHECK_THROWS_WITH_AS(writer.add(std::string("a\0", 2), {1}, &value), doctest::Contains("'a?'"), Error);
  CHECK_THROWS_WITH_AS(writer.add("n", {-1}, &value), doctest::Contains("negative"), Error);
  CHECK_THROWS_WITH_AS(writer.add("r", std::vector<int64_t>(33, 1), &value), doctest::Contains("33"), Error);
  writer.add("\xff", {1}, &value);
  CHECK_THROWS_WITH_AS(writer.write(folder / "w"), doctest::Contains("UTF-8"), Error);
  CHECK(read_text(folder / "w", kPlenty) == former);
}

}  // namespace tessera
