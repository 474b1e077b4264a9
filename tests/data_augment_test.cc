// Augmentations of single images: what they do, against Pillow.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <sstream>

#include "data/augment/crop_flip.h"
#include "data/augment/erase.h"
#include "data/augment/policy.h"
#include "engine/base/check.h"
#include "engine/io/safetensors.h"
#include "tests/messages.h"
#include "tests/places.h"

using namespace tessera;

namespace {

const std::map<std::string, ImageOp> kOps = {{"auto_contrast", ImageOp::auto_contrast},
                                             {"equalize", ImageOp::equalize},
                                             {"invert", ImageOp::invert},
                                             {"rotate", ImageOp::rotate},
                                             {"posterize", ImageOp::posterize},
                                             {"solarize", ImageOp::solarize},
                                             {"solarize_add", ImageOp::solarize_add},
                                             {"color", ImageOp::color},
                                             {"contrast", ImageOp::contrast},
                                             {"brightness", ImageOp::brightness},
                                             {"sharpness", ImageOp::sharpness},
                                             {"shear_x", ImageOp::shear_x},
                                             {"shear_y", ImageOp::shear_y},
                                             {"translate_x", ImageOp::translate_x},
                                             {"translate_y", ImageOp::translate_y}};

const SafetensorsFile& fixture() {
  static const SafetensorsFile file(kSourceFolder + "/tests/fixtures/augment.safetensors");
  return file;
}

Image image_of(const std::string& name) {
  const TensorEntry* const entry = fixture().find(name);
  REQUIRE(entry != nullptr);
  const ByteView bytes = fixture().bytes(*entry);
  Image image{entry->shape[0], entry->shape[1], entry->shape[2], std::vector<uint8_t>(bytes.size())};
  std::memcpy(image.pixels.data(), bytes.data(), bytes.size());
  return image;
}

Filter filter_of(const std::string& word) { return word == "bilinear" ? Filter::bilinear : Filter::bicubic; }

// How many bytes differ, and by how much at most.
std::pair<int, int> pixel_difference(const Image& a, const Image& b) {
  REQUIRE(a.pixels.size() == b.pixels.size());
  std::pair<int, int> found{0, 0};
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    const int apart = std::abs(int{a.pixels[i]} - int{b.pixels[i]});
    found.first += apart > 0;
    found.second = std::max(found.second, apart);
  }
  return found;
}

const Surroundings kAround{Filter::bicubic, {10, 120, 230}};

}  // namespace

TEST_CASE("augment: every operation and size gives Pillow's bytes") {
  const Image image = image_of("image");
  int operations = 0, sizes = 0;
  for (const TensorEntry& entry : fixture().entries()) {
    CAPTURE(entry.name);
    std::istringstream words(entry.name);
    std::string op, filter;
    words >> op;
    const Image want = image_of(entry.name);
    if (op == "resize") {
      Window window;
      int64_t height = 0, width = 0;
      words >> window.top >> window.left >> window.height >> window.width >> height >> width >> filter;
      // Pillow rounds between its two passes.
      CHECK(pixel_difference(resize(image.view(), window, height, width, filter_of(filter)), want).second <=
            1);
      ++sizes;
    } else if (kOps.count(op) > 0) {
      double argument = 0;
      words >> argument >> filter;
      Image own = image;
      apply(own, {kOps.at(op), argument}, {filter_of(filter), kAround.fill});
      // Where an image is moved, a fused multiply-add may round across an integer.
      const auto [count, most] = pixel_difference(own, want);
      const bool moved = kOps.at(op) == ImageOp::rotate || kOps.at(op) >= ImageOp::shear_x;
      CHECK(count <= (moved ? 2 : 0));  // of 1311
      CHECK(most <= 1);
      ++operations;
    }
  }
  CHECK(operations == 59);
  CHECK(sizes == 10);
  Image grey = image_of("grey");
  const Image before = grey;
  apply(grey, {ImageOp::color, 0.3}, kAround);
  CHECK(grey.pixels == before.pixels);
}

TEST_CASE("augment: magnitudes that change nothing") {
  const Image image = image_of("image");
  for (const ImageStep step : {ImageStep{ImageOp::rotate, 0},
                               {ImageOp::shear_x, 0},
                               {ImageOp::shear_y, 0},
                               {ImageOp::translate_x, 0},
                               {ImageOp::translate_y, 0},
                               {ImageOp::posterize, 8},
                               {ImageOp::solarize, 256},
                               {ImageOp::solarize_add, 0},
                               {ImageOp::color, 1},
                               {ImageOp::contrast, 1},
                               {ImageOp::brightness, 1},
                               {ImageOp::sharpness, 1}}) {
    CAPTURE(int(step.op));
    for (const Filter filter : {Filter::bilinear, Filter::bicubic}) {
      Image own = image;
      apply(own, step, {filter, kAround.fill});
      CHECK(own.pixels == image.pixels);
    }
  }
  Image twice = image;
  for (int i = 0; i < 2; ++i) apply(twice, {ImageOp::invert}, kAround);
  CHECK(twice.pixels == image.pixels);
  CHECK(crop_flip(image.view(), {}).pixels == image.pixels);
  CHECK(crop_flip(crop_flip(image.view(), {0, 0, true}).view(), {0, 0, true}).pixels == image.pixels);
  CHECK(crop_flip(image.view(), {0, 0, true}).pixels != image.pixels);
  const Window whole{0, 0, double(image.height), double(image.width)};
  for (const Filter filter : {Filter::bilinear, Filter::bicubic})
    CHECK(resize(image.view(), whole, image.height, image.width, filter).pixels == image.pixels);
}

TEST_CASE("augment: images of one pixel or one colour stand every operation") {
  for (const auto& [height, width] : {std::pair{1, 1}, {1, 9}, {2, 2}}) {
    const Image flat{3, height, width, std::vector<uint8_t>(size_t(3 * height * width), 77)};
    for (const auto& [name, op] : kOps) {
      CAPTURE(name);
      Image own = flat;
      apply(own, {op, 1}, kAround);
      CHECK(own.pixels.size() == flat.pixels.size());
    }
    Image equal = flat;
    apply(equal, {ImageOp::equalize}, kAround);
    apply(equal, {ImageOp::auto_contrast}, kAround);
    CHECK(equal.pixels == flat.pixels);
  }
}

TEST_CASE("augment: policies by name") {
  CHECK(make_policy("none") == nullptr);
  for (const char* name :
       {"cifar10", "svhn", "imagenet", "rand-m9-mstd0.5-inc1", "rand-m0", "rand-n15-p0-mmax3"})
    CHECK(make_policy(name) != nullptr);
  for (const char* name :
       {"", "cifar", "Cifar10", "rand", "rand-", "rand-m", "rand-m11", "rand-m9x", "rand-n0", "rand-n1.5",
        "rand-w0", "rand-m9-", "rand-p1.1", "rand-inc2", "rand--m9"}) {
    CAPTURE(name);
    CHECK(testing::error_of(Exit::usage, [&] { make_policy(name); }).has(text("'", name, "'")));
  }
}

TEST_CASE("augment: contrast is around the mean, rounded") {
  Image image{1, 1, 2, {0, 1}};
  apply(image, {ImageOp::contrast, 0}, kAround);
  CHECK(image.pixels == std::vector<uint8_t>{1, 1});
}

TEST_CASE("augment: erasing fills its rectangle and nothing else") {
  const Shape shape{2, 40, 50};
  const Rectangle r{3, 4, 30, 40};
  for (const EraseMode mode : {EraseMode::mean, EraseMode::noise}) {
    std::vector<float> image(size_t(shape.count()), 9.0f);
    erase(image, shape, r, mode, Dice({true, 7}, Site::noise, 5));
    int outside = 0;
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < shape.count(); ++i) {
      const int64_t y = i / 50 % 40, x = i % 50;
      if (y < 3 || y >= 33 || x < 4 || x >= 44) {
        CHECK(image[size_t(i)] == 9);
        ++outside;
        continue;
      }
      sum += double(image[size_t(i)]);
      squares += double(image[size_t(i)]) * double(image[size_t(i)]);
    }
    CHECK(outside == shape.count() - 2 * r.area());
    CHECK(std::abs(sum) <= (mode == EraseMode::noise ? 5 * std::sqrt(2400.0) : 0));
    CHECK(squares / 2400 == doctest::Approx(mode == EraseMode::noise ? 1 : 0).epsilon(0.15));
  }
}
