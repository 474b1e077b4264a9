#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>

#include "data/dataset.h"
#include "data/idx.h"
#include "tests/data_files.h"
#include "tests/messages.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

const std::string kImages = "train-images-idx3-ubyte", kLabels = "train-labels-idx1-ubyte";

// Loads a folder with these two files.
void load_pair(const ByteVector& images, const ByteVector& labels) {
  const TempFolder folder;
  folder.write(kImages, images);
  folder.write(kLabels, labels);
  load_dataset(folder.path(), Split::train);
}

}  // namespace

TEST_CASE("idx: a good pair loads, plain and gzip alike") {
  const ByteVector images = idx_file({7, 3, 5}), labels = idx_file({7}, 10);
  const TempFolder plain, packed;
  plain.write("t10k-images-idx3-ubyte", images);
  plain.write("t10k-labels-idx1-ubyte", labels);
  packed.write("t10k-images-idx3-ubyte.gz", gzip(images));
  packed.write("t10k-labels-idx1-ubyte.gz", gzip(labels));
  const Dataset a = load_dataset(plain.path(), Split::test), b = load_dataset(packed.path(), Split::test);
  CHECK(a.name == "mnist");
  CHECK(a.count() == 7);
  CHECK(a.samples->shape() == Shape{1, 3, 5});
  CHECK(pixels(a) == ByteVector(images.begin() + 16, images.end()));
  CHECK(a.labels == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6});
  CHECK(image(a, 2)[0] == 30);
  CHECK(pixels(b) == pixels(a));
  CHECK(b.labels == a.labels);
  CHECK(b.fingerprint() == a.fingerprint());
}

TEST_CASE("idx: the fingerprint sees every byte") {
  ByteVector bytes(21);
  const auto print = [&](const Shape& shape = {1, 3, 7}, int32_t label = 0) {
    Dataset set;
    set.labels = {label};
    set.samples = std::make_shared<MemoryImages>(shape, bytes);
    return set.fingerprint();
  };
  const uint64_t before = print();
  for (uint8_t& pixel : bytes) {
    pixel ^= 0x80;
    CHECK(print() != before);
    pixel ^= 0x80;
  }
  // The top bits of two words, which a multiplication alone would let cancel each other.
  bytes[7] = bytes[15] = 0x80;
  CHECK(print() != before);
  bytes[7] = bytes[15] = 0;
  CHECK(print() == before);
  CHECK(print({1, 3, 7}, 1) != before);
  CHECK(print({1, 7, 3}) != before);
}

TEST_CASE("idx: the folder's name or the given one tells which set it is") {
  const TempFolder folder;
  for (const std::string place : {"FashionMNIST/raw/", "old/fashion-mnist/", "fashion/deep/down/"}) {
    folder.write(place + kImages, idx_file({2, 4, 4}));
    folder.write(place + kLabels, idx_file({2}));
  }
  const auto name_of = [&](const std::string& place, std::string_view name) {
    return load_dataset(folder.path() / place, Split::train, name).name;
  };
  CHECK(name_of("FashionMNIST/raw", "") == "fashion-mnist");
  CHECK(name_of("old/fashion-mnist/", "") == "fashion-mnist");
  CHECK(name_of("old/fashion-mnist/.", "") == "fashion-mnist");
  CHECK(name_of("fashion/deep/down", "") == "mnist");
  CHECK(name_of("fashion/deep/down", "fashion-mnist") == "fashion-mnist");
  CHECK(load_dataset(folder.path() / "old/fashion-mnist", Split::train).class_names[9] == "Ankle boot");
  for (const char* wrong : {"cifar10", "kmnist"})
    error_of(Exit::usage, [&] { name_of("fashion/deep/down", wrong); });
}

TEST_CASE("idx: hostile images and labels") {
  const ByteVector images = idx_file({4, 3, 3}), labels = idx_file({4}, 10);
  load_pair(images, labels);  // so that each change below is what is refused

  const auto bad_images = [&](const std::string& word, const ByteVector& bytes) {
    check_refused(kImages, word, [&] { load_pair(bytes, labels); });
  };
  bad_images("truncated in its header", {});
  bad_images("truncated in its header", first_bytes(images, 3));
  bad_images("truncated in its dims", first_bytes(images, 4));
  bad_images("truncated in its dims", first_bytes(images, 15));
  bad_images("truncated", first_bytes(images, 16));
  bad_images("truncated", first_bytes(images, images.size() - 1));
  bad_images("trailing", joined(images, {0}));
  bad_images("magic", joined({1, 0}, ByteVector(images.begin() + 2, images.end())));
  bad_images("magic", joined({0, 1}, ByteVector(images.begin() + 2, images.end())));
  bad_images("type 13", joined(idx_header({4, 3, 3}, 0x0D), ByteVector(144)));
  bad_images("type 0", joined(idx_header({4, 3, 3}, 0), ByteVector(36)));
  bad_images("rank 1", idx_file({36}));
  bad_images("rank 4", idx_file({4, 1, 3, 3}));
  bad_images("rank 255", {0, 0, 8, 255, 0, 0, 0, 1});
  bad_images("dim 0 is 0", idx_header({0, 3, 3}));
  bad_images("dim 2 is 0", idx_header({4, 3, 0}));
  bad_images("declares", joined(idx_header({4, 3, 4}), ByteVector(36)));
  bad_images("declares", idx_header({0xffffffffu, 0xffffffffu, 0xffffffffu}));
  // 2^32 x 2^32 wraps to 0 in 64 bits, this one to 36.
  bad_images("declares", joined(idx_header({0x80000000u, 0x80000000u, 4}), ByteVector(36)));
  bad_images("declares", joined(idx_header({36, 0x40000000u, 0x10000000u}), ByteVector(36)));
  bad_images("count", idx_file({5, 3, 3}));

  const auto bad_labels = [&](const std::string& word, const ByteVector& bytes) {
    check_refused(kLabels, word, [&] { load_pair(images, bytes); });
  };
  bad_labels("label 10", joined(idx_header({4}), {0, 1, 10, 3}));
  bad_labels("label 255", joined(idx_header({4}), {0, 1, 2, 255}));
  bad_labels("count", idx_file({3}, 10));
  bad_labels("rank 3", images);
  bad_labels("truncated", first_bytes(labels, 7));
}

TEST_CASE("idx: hostile gzip") {
  ByteVector noise = idx_header({64, 8, 8});
  for (uint32_t i = 0; i < 4096; ++i) noise.push_back(uint8_t((i * 2654435761u) >> 13));
  const ByteVector good = gzip(noise);
  parse_idx(good, "good.gz", 3);
  const auto bad = [&](const std::string& word, const ByteVector& bytes) {
    check_refused("some.gz", word, [&] { parse_idx(bytes, "some.gz", 3); });
  };
  for (const size_t keep : {size_t{2}, size_t{9}, size_t{10}, size_t{12}, size_t{20}, good.size() / 2}) {
    bad("truncated", first_bytes(good, keep));
  }
  for (size_t lost = 1; lost <= 9; ++lost) bad("truncated", first_bytes(good, good.size() - lost));
  bad("trailing", joined(good, {0}));
  bad("trailing", joined(good, good));
  bad("trailing", gzip(joined(noise, {0})));
  bad("truncated", gzip(first_bytes(noise, noise.size() - 1)));
  bad("rank 1", gzip(idx_file({9})));

  ByteVector wrong_sum = good;
  wrong_sum[wrong_sum.size() - 6] ^= 1;
  bad("corrupted", wrong_sum);
  ByteVector wrong_size = good;
  wrong_size.back() ^= 1;
  bad("corrupted", wrong_size);
  ByteVector wrong_method = good;
  wrong_method[2] = 7;
  bad("corrupted", wrong_method);
  ByteVector flipped = good;
  flipped[good.size() / 2] ^= 0x10;
  check_refused("some.gz", "gzip", [&] { parse_idx(flipped, "some.gz", 3); });

  // Bombs: a small stream of zeros that declares little, and one that declares 4 GiB - 1 but holds next to
  // nothing.
  bad("trailing", gzip(joined(idx_header({1, 2, 2}), ByteVector(16 << 20))));
  bad("declares", gzip(joined(idx_header({0xffffffffu, 1, 1}), ByteVector(4))));
  bad("declares", gzip(idx_header({0xffffffffu, 0xffffffffu, 0xffffffffu})));
}

TEST_CASE("idx: files that are not there, or no files") {
  const TempFolder folder;
  const auto load = [&] { load_dataset(folder.path(), Split::train); };
  check_refused(folder.path().string(), "looked for train-images-idx3-ubyte", load);
  check_refused("nowhere", "no such folder", [&] { load_dataset(folder.path() / "nowhere", Split::train); });
  const auto file = folder.write("plain", {1});
  check_refused("plain", "folder", [&] { load_dataset(file, Split::train); });
  folder.write(kImages, idx_file({4, 3, 3}));
  check_refused(kLabels, "missing", load);
  std::filesystem::create_directory(folder.path() / kLabels);
  check_refused(kLabels, "is a folder", load);
  check_refused("/dev/zero", "not a regular file", [] { read_file("/dev/zero"); });
  check_refused("plain", "limit", [&] { read_file(file, 0); });
}

TEST_CASE("normalization: known sets, and an error that lists them") {
  CHECK(normalization("mnist").mean[0] == doctest::Approx(0.1307));
  CHECK(normalization("cifar100").std.size() == 3);
  CHECK(error_of(Exit::usage, [] { normalization("imagenet"); }).has("fashion-mnist"));
}

TEST_CASE("Fashion-MNIST as distributed") {
  const std::filesystem::path folder = "/usr/share/datasets/fashion-mnist";
  if (!std::filesystem::exists(folder)) {
    MESSAGE("skipped: " << folder.string() << " is not installed (Debian's dataset-fashion-mnist)");
    return;
  }
  const Dataset train = load_dataset(folder, Split::train), test = load_dataset(folder, Split::test);
  CHECK(train.name == "fashion-mnist");
  CHECK(train.count() == 60000);
  CHECK(test.count() == 10000);
  CHECK(train.samples->shape() == Shape{1, 28, 28});
  CHECK(train.fingerprint() != test.fingerprint());
  std::vector<int> per_class(10);
  for (const int32_t label : test.labels) ++per_class[size_t(label)];
  CHECK(per_class == std::vector<int>(10, 1000));

  // The written mean and standard deviation are those of the training images.
  std::vector<double> times(256);
  for (const uint8_t pixel : pixels(train)) ++times[pixel];
  double sum = 0, squares = 0;
  for (int i = 0; i < 256; ++i) sum += times[i] * i / 255.0, squares += times[i] * i * i / (255.0 * 255.0);
  const double mean = sum / double(pixels(train).size());
  CHECK(std::abs(normalization("fashion-mnist").mean[0] - mean) < 6e-5);
  CHECK(std::abs(normalization("fashion-mnist").std[0] -
                 std::sqrt(squares / double(pixels(train).size()) - mean * mean)) < 6e-5);
}
