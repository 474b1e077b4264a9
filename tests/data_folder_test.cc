// Image folders and Tiny-ImageNet's layout: what is found, what is reported, what is refused.
#include <doctest/doctest.h>

#include <sys/stat.h>

#include <cmath>

#include "data/loader.h"
#include "tests/image_files.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

// A PNG of one colour.
ByteVector plain_png(uint8_t value, int height = 8, int width = 8) {
  return png_of(height, width, PNG_FORMAT_RGB, ByteVector(size_t(3 * height * width), value).data());
}

LoaderOptions plain_options(int64_t batch, int64_t side, bool training) {
  LoaderOptions options{.training = training, .batch_size = batch};
  options.prepare.shape = {3, side, side};
  options.prepare.normalization = {{0, 0, 0}, {1, 1, 1}};
  return options;
}

// The first pixel of each sample, as the byte that it was.
std::vector<int> first_bytes_of(const Batch& batch) {
  std::vector<int> bytes;
  const size_t size = batch.inputs.size() / size_t(batch.size());
  for (size_t i = 0; i < size_t(batch.size()); ++i)
    bytes.push_back(int(std::lround(255 * batch.inputs[i * size])));
  return bytes;
}

}  // namespace

TEST_CASE("folder: classes and files in strict order, the classes in proportion") {
  const TempFolder folder;
  for (const char* name : {"10", "2", "B", "a"}) {  // as bytes sort them
    folder.write(text("train/", name, "/z.png"), plain_png(uint8_t(100 + name[0])));
    folder.write(text("val/", name, "/x.png"), plain_png(uint8_t(name[0])));
  }
  folder.write("train/2/a.PNG", plain_png(7));
  folder.write("train/2/b.jpeg", jpeg_of(8, 8, 1, ByteVector(64, 9)));
  const Dataset train = load_dataset(folder.path(), Split::train),
                test = load_dataset(folder.path(), Split::test);
  CHECK(train.name == "image-folder");
  CHECK(train.class_names == std::vector<std::string>{"10", "2", "B", "a"});
  CHECK(train.labels == std::vector<int32_t>{1, 0, 1, 2, 3, 1});  // places 1/6, 1/2, 3/6, 1/2, 1/2, 5/6
  CHECK(train.samples->shape() == Shape{3, 0, 0});
  CHECK(train.notes.empty());
  CHECK(test.class_names == train.class_names);
  Loader loader(train, plain_options(6, 8, false));
  CHECK(first_bytes_of(loader.next()) == std::vector<int>{7, 149, 9, 166, 197, 150});
  CHECK(train.fingerprint() == load_dataset(folder.path(), Split::train).fingerprint());
  CHECK(train.fingerprint() != test.fingerprint());
}

TEST_CASE("folder: the fingerprint sees the names and sizes of files") {
  const TempFolder folder;
  const auto fingerprint = [&] { return load_dataset(folder.path(), Split::train).fingerprint(); };
  folder.write("train/a/1.png", ByteVector(100));
  const uint64_t before = fingerprint();
  CHECK(fingerprint() == before);
  folder.write("train/a/1.png", ByteVector(101));
  CHECK(fingerprint() != before);
  std::filesystem::remove(folder.path() / "train/a/1.png");
  folder.write("train/a/2.png", ByteVector(100));
  CHECK(fingerprint() != before);
}

TEST_CASE("folder: test split by any name, and classes that it lacks") {
  const TempFolder folder;
  for (const char* name : {"cat", "dog", "owl"}) folder.write(text("train/", name, "/1.png"), plain_png(1));
  folder.write("test/owl/1.png", plain_png(1));
  const Dataset test = load_dataset(folder.path(), Split::test);
  CHECK(test.labels == std::vector<int32_t>{2});
  CHECK(test.classes() == 3);
  REQUIRE(test.notes.size() == 1);
  CHECK(test.notes[0].find("2 classes without an image") != std::string::npos);
  CHECK(test.notes[0].find("cat, dog") != std::string::npos);
  folder.write("test/wolf/1.png", plain_png(1));
  check_refused("wolf", "no such class", [&] { load_dataset(folder.path(), Split::test); });
}

TEST_CASE("folder: what is no image of a class is counted and left out") {
  const TempFolder folder;
  folder.write("train/a/1.png", plain_png(1));
  folder.write("train/b/1.png", plain_png(1));
  for (int i = 0; i < 9; ++i) folder.write(text("train/a/odd", i, ".txt"), {1});
  folder.write("train/a/.hidden.png", plain_png(1));
  folder.write("train/readme", {1});
  folder.write("train/a/deep/er/2.png", plain_png(1));
  const Dataset train = load_dataset(folder.path(), Split::train);
  CHECK(train.count() == 2);
  REQUIRE(train.notes.size() == 2);
  CHECK(train.notes[0].find("11 files") != std::string::npos);
  CHECK(train.notes[0].find("readme, a/.hidden.png, a/odd0.txt, ...") != std::string::npos);
  CHECK(train.notes[1].find("1 folders within a class left out: a/deep") != std::string::npos);
}

TEST_CASE("folder: nothing there") {
  const TempFolder folder;
  folder.write("train/readme", {1});
  check_refused("train", "no images", [&] { load_dataset(folder.path(), Split::train); });
  check_refused(folder.path().string(), "val/ and test/", [&] { load_dataset(folder.path(), Split::test); });
  folder.write("train/a/x.txt", {1});
  check_refused("train", "no images", [&] { load_dataset(folder.path(), Split::train); });
}

TEST_CASE("folder: a class whose name is no UTF-8 is refused, and printed without its bytes") {
  const TempFolder folder;
  folder.write("train/a/1.png", plain_png(1));
  folder.write("train/b\xe9/1.png", plain_png(2));
  check_refused((folder.path() / "train").string(), "the folder 'b?' has a name that is no UTF-8",
                [&] { load_dataset(folder.path(), Split::train); });
}

TEST_CASE("folder: a file that cannot be read stops at its batch, and is named") {
  const TempFolder folder;
  for (int i = 0; i < 8; ++i) folder.write(text("train/a/", i, ".png"), plain_png(uint8_t(i)));
  const auto bad = [&](const char* word, const ByteVector& bytes) {
    folder.write("train/a/5.png", bytes);
    const Dataset train = load_dataset(folder.path(), Split::train);
    for (const int workers : {0, 2}) {
      LoaderOptions options = plain_options(2, 8, false);
      options.workers = workers;
      Loader loader(train, options);
      for (int i = 0; i < 2; ++i) loader.next();
      check_refused("a/5.png", word, [&] { loader.next(); });
      CHECK(first_bytes_of(loader.next()) == std::vector<int>{6, 7});
    }
  };
  bad("unknown image format", {});
  bad("unknown image format", {1, 2, 3});
  bad("truncated", first_bytes(plain_png(5), 60));
}

TEST_CASE("folder: any size becomes the model's, in evaluation by the middle") {
  const TempFolder folder;
  // Black but for a white square in the middle, as large as what is seen.
  ByteVector samples(size_t(3 * 64 * 96));
  for (int y = 4; y < 60; ++y)
    for (int x = 20; x < 76; ++x)
      for (int c = 0; c < 3; ++c) samples[size_t((y * 96 + x) * 3 + c)] = 255;
  folder.write("train/a/1.png", png_of(64, 96, PNG_FORMAT_RGB, samples.data()));
  folder.write("train/a/2.png", plain_png(50, 3, 200));
  folder.write("train/a/3.png", plain_png(60, 28, 28));
  const Dataset train = load_dataset(folder.path(), Split::train);
  for (const bool training : {false, true}) {
    Loader loader(train, plain_options(3, 28, training));
    const Batch& batch = loader.next();
    REQUIRE(batch.inputs.size() == 3 * 3 * 28 * 28);
    for (size_t i = 0; i < 3; ++i) {
      const float* const image = batch.inputs.data() + i * 3 * 28 * 28;
      if (batch.indices[i] != 0) {
        for (int k = 0; k < 3 * 28 * 28; ++k)
          CHECK(std::lround(255 * image[k]) == (batch.indices[i] == 1 ? 50 : 60));
      } else if (training) {  // the whole height
        CHECK(image[0] < 0.1f);
      } else {  // 64 -> 32 and the 28 in the middle: the square, but for what the filter sees around it
        CHECK(image[0] > 0.5f);
        for (int y = 2; y < 26; ++y)
          for (int x = 2; x < 26; ++x) CHECK(std::lround(255 * image[y * 28 + x]) == 255);
      }
    }
  }
  LoaderOptions options = plain_options(3, 28, true);
  options.prepare.augment.resized_crop = true;
  Loader loader(train, options);
  CHECK(loader.next().inputs.size() == 3 * 3 * 28 * 28);
  options.prepare.shape = {1, 28, 28};
  CHECK_THROWS_AS(Loader(train, options), Error);
}

TEST_CASE("folder: JPEGs decoded smaller show the same as those decoded whole") {
  const TempFolder folder;
  const ByteVector samples = calm(100, 75, 3);
  folder.write("train/a/1.jpg", jpeg_of(100, 75, 3, samples));
  folder.write("train/a/2.png", png_of(100, 75, PNG_FORMAT_RGB, samples.data()));
  const Dataset train = load_dataset(folder.path(), Split::train);
  Loader loader(train, plain_options(2, 16, false));
  const Batch& batch = loader.next();
  const size_t size = batch.inputs.size() / 2;
  for (size_t k = 0; k < size; ++k) CHECK(std::abs(batch.inputs[k] - batch.inputs[size + k]) <= 2.5f / 255);
}

TEST_CASE("tiny-imagenet: as it is distributed") {
  const TempFolder folder;
  const auto write = [&](const std::string& name, const std::string& lines) {
    folder.write(name, ByteVector(lines.begin(), lines.end()));
  };
  write("wnids.txt", "n02\nn01\r\nn03\n");
  for (const char* name : {"n01", "n02", "n03"}) {
    folder.write(text("train/", name, "/images/", name, "_0.JPEG"), plain_png(uint8_t(name[2])));
    write(text("train/", name, "/", name, "_boxes.txt"), "0 0 1 1\n");
  }
  folder.write("val/images/val_0.JPEG", plain_png(70));
  folder.write("val/images/val_1.JPEG", plain_png(80));
  const std::string good = "val_0.JPEG\tn03\t0\t32\t44\t62\r\nval_1.JPEG\tn01\t1\t2\t3\t4\n";
  write("val/val_annotations.txt", good);
  const Dataset train = load_dataset(folder.path(), Split::train),
                test = load_dataset(folder.path(), Split::test);
  CHECK(train.name == "tiny-imagenet");
  CHECK(train.class_names == std::vector<std::string>{"n01", "n02", "n03"});
  CHECK(train.labels == std::vector<int32_t>{0, 1, 2});
  CHECK(train.notes.empty());
  CHECK(test.labels == std::vector<int32_t>{0, 2});
  LoaderOptions options = plain_options(2, 8, false);
  CHECK(first_bytes_of(Loader(test, options).next()) == std::vector<int>{80, 70});
  CHECK(normalization(train.name).mean[0] == doctest::Approx(0.4802));

  const auto bad = [&](const char* word, const std::string& lines) {
    write("val/val_annotations.txt", lines);
    check_refused("val_annotations.txt", word, [&] { load_dataset(folder.path(), Split::test); });
  };
  bad(":2: expected", good.substr(0, 30) + "\nval_1.JPEG n01\n");
  bad(":1: expected", "val_0.JPEG\tn09\t0\n");
  bad(":1: '../../secret.JPEG'", "../../secret.JPEG\tn01\t0\n");
  bad(":1: 'sub/../../secret.JPEG'", "sub/../../secret.JPEG\tn01\t0\n");
  bad(":1: 'val_0'", "val_0\tn01\t0\n");
  write("val/val_annotations.txt", good);
  write("wnids.txt", "n01\nn02\nn0\xff\n");
  check_refused("wnids.txt:3", "no UTF-8", [&] { load_dataset(folder.path(), Split::test); });
  write("wnids.txt", "n01\nn02\nn01\n");
  check_refused("wnids.txt", "twice", [&] { load_dataset(folder.path(), Split::test); });
  for (const char* name : {"../n01", ".."}) {
    write("wnids.txt", text("n01\n", name, "\nn03\n"));
    check_refused("wnids.txt", text("'", name, "' is no name of a class"),
                  [&] { load_dataset(folder.path(), Split::test); });
  }
}
