// Augmentations of single images: what they do, against Pillow, and what they draw.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <sstream>

#include "data/augment/crop_flip.h"
#include "data/augment/erase.h"
#include "data/augment/jitter.h"
#include "data/augment/policy.h"
#include "data/augment/resized_crop.h"
#include "engine/base/check.h"
#include "engine/io/safetensors.h"
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
std::pair<int, int> difference(const Image& a, const Image& b) {
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

constexpr int kDraws = 60000;

// Five standard deviations of a binomial count.
bool near(int count, double p, int draws = kDraws) {
  return std::abs(count - draws * p) <= 5 * std::sqrt(draws * p * (1 - p));
}

Dice dice(int64_t sample, uint32_t epoch = 1) { return {{true, 7, epoch}, Site::policy, sample}; }

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
      CHECK(difference(resize(image.view(), window, height, width, filter_of(filter)), want).second <= 1);
      ++sizes;
    } else if (kOps.count(op) > 0) {
      double argument = 0;
      words >> argument >> filter;
      Image own = image;
      apply(own, {kOps.at(op), argument}, {filter_of(filter), kAround.fill});
      // Where an image is moved, a fused multiply-add may round across an integer.
      const auto [count, most] = difference(own, want);
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
    try {
      make_policy(name);
      FAIL_CHECK("no error");
    } catch (const Error& error) {
      CHECK(error.code() == Exit::usage);
      CHECK(std::string(error.what()).find(text("'", name, "'")) != std::string::npos);
    }
  }
}

TEST_CASE("augment: RandAugment draws its operations evenly, half of the time, around its strength") {
  const auto policy = make_policy("rand-m9-mstd0.5-inc1");
  std::map<ImageOp, int> count;
  std::map<size_t, int> steps_drawn;
  int brighter = 0;
  double shear = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    Dice own = dice(i);
    const auto steps = policy->draw(own, 40, 100);
    ++steps_drawn[steps.size()];
    for (const ImageStep& step : steps) {
      ++count[step.op];
      if (step.op == ImageOp::brightness) {
        brighter += step.argument > 1;
        CHECK(step.argument >= 0.1);
        CHECK(step.argument <= 1.9);
      }
      if (step.op == ImageOp::shear_x) {
        shear += std::abs(step.argument);
        squares += step.argument * step.argument;
      }
      if (step.op == ImageOp::translate_y) CHECK(std::abs(step.argument) <= 0.45 * 40);
      if (step.op == ImageOp::translate_x) CHECK(std::abs(step.argument) <= 0.45 * 100);
      if (step.op == ImageOp::posterize) CHECK((step.argument >= 0 && step.argument <= 4));
    }
  }
  CHECK(count.size() == 15);
  for (const auto& [op, times] : count) CHECK(near(times, 1.0 / 30, 2 * kDraws));
  CHECK(near(steps_drawn[0], 0.25));
  CHECK(near(steps_drawn[1], 0.5));
  CHECK(near(brighter, 0.5, count[ImageOp::brightness]));
  // 0.03 times a normal number around 9 with deviation 0.5, cut off at 10, two deviations above.
  const double n = count[ImageOp::shear_x];
  CHECK(shear / n == doctest::Approx(0.27).epsilon(0.003));
  CHECK(std::sqrt(squares / n - shear * shear / n / n) == doctest::Approx(0.015).epsilon(0.06));

  const auto exact = make_policy("rand-m5-n3-p1");
  Dice own = dice(0);
  for (const ImageStep& step : exact->draw(own, 10, 10)) {
    if (step.op == ImageOp::posterize) CHECK(step.argument == 2);
    if (step.op == ImageOp::solarize) CHECK(step.argument == 128);
    if (step.op == ImageOp::color) CHECK(step.argument == doctest::Approx(1));
  }
  Dice again = dice(0);
  CHECK(exact->draw(again, 10, 10).size() == 3);
}

TEST_CASE("augment: AutoAugment's policies draw each pair evenly, with its probabilities") {
  // Of the 50 operations of a table: how often they are expected, from the paper's numbers.
  const std::map<std::string, std::map<ImageOp, double>> expected = {
      {"cifar10",
       {{ImageOp::translate_y, (0.7 + 0.4 + 0.9 + 0.7 + 0.7) / 25},
        {ImageOp::rotate, 0.7 / 25},
        {ImageOp::equalize, (0.9 + 0.6 + 0.5 + 0.3 + 0.2 + 0.2 + 0.6 + 0.6 + 0.8) / 25}}},
      {"svhn",
       {{ImageOp::shear_y, (0.9 + 0.9 + 0.9 + 0.8 + 0.7 + 0.3 + 0.8 + 0.8) / 25}, {ImageOp::posterize, 0}}},
      {"imagenet",
       {{ImageOp::color, (0.4 + 0.6 + 1.0 + 0.8 + 0.4 + 0.6) / 25}, {ImageOp::shear_x, 0.6 / 25}}}};
  for (const auto& [name, ops] : expected) {
    CAPTURE(name);
    const auto policy = make_policy(name);
    std::map<ImageOp, int> count;
    for (int i = 0; i < kDraws; ++i) {
      Dice own = dice(i, 3);
      const auto steps = policy->draw(own, 331, 331);
      CHECK(steps.size() <= 2);
      for (const ImageStep& step : steps) {
        ++count[step.op];
        if (step.op == ImageOp::rotate) CHECK(std::abs(step.argument) <= 30);
        if (step.op == ImageOp::translate_y) CHECK(step.argument == std::trunc(step.argument));
      }
    }
    for (const auto& [op, mean] : ops) {
      CAPTURE(int(op));
      // An operation comes at most twice in a pair, which widens the count by no more than that.
      CHECK(std::abs(count[op] - kDraws * mean) <= 5 * std::sqrt(2 * kDraws * mean));
    }
  }
}

TEST_CASE("augment: jitter takes the three in any order, by even factors") {
  std::map<std::pair<ImageOp, ImageOp>, int> orders;
  double sum = 0;
  for (int i = 0; i < kDraws; ++i) {
    const auto steps = draw_jitter(0.4, dice(i));
    ++orders[{steps[0].op, steps[1].op}];
    for (const ImageStep& step : steps) {
      CHECK(step.argument >= 0.6);
      CHECK(step.argument <= 1.4);
      sum += step.argument;
    }
  }
  CHECK(orders.size() == 6);
  for (const auto& [order, times] : orders) CHECK(near(times, 1.0 / 6));
  CHECK(sum / (3 * kDraws) == doctest::Approx(1).epsilon(0.003));
}

TEST_CASE("augment: the resized crop lies in the image, of even area") {
  double area = 0;
  int wide = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Window w = draw_resized_crop(0.08, dice(i), 300, 400);
    CHECK((w.top >= 0 && w.left >= 0 && w.top + w.height <= 300 && w.left + w.width <= 400));
    CHECK(w.width / w.height <= 4.0 / 3 + 0.02);
    CHECK(w.width / w.height >= 0.75 - 0.02);
    area += w.height * w.width / (300 * 400);
    wide += w.width > w.height;
  }
  // What torchvision's draws give for this size: large crops do not fit at once when they are tall.
  CHECK(area / kDraws == doctest::Approx(0.4334).epsilon(0.012));
  CHECK(near(wide, 0.5757));
  const Window middle = draw_resized_crop(0.9, dice(0), 10, 100);  // no draw can fit
  CHECK(middle.height == 10);
  CHECK(middle.width == 13);
  CHECK(middle.left == 43);
  const Window pixel = draw_resized_crop(0.08, dice(0), 1, 1);
  CHECK(pixel.height == 1);
  CHECK(pixel.width == 1);
}

TEST_CASE("augment: erasing takes the area that it says, and fills it so") {
  const EraseOptions options{.probability = 0.25, .largest = 0.4, .mode = EraseMode::noise};
  int erased = 0;
  double area = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Rectangle r = draw_erased(options, dice(i), 60, 60);
    if (r.area() == 0) continue;
    ++erased;
    CHECK((r.top >= 0 && r.left >= 0 && r.top + r.height <= 60 && r.left + r.width <= 60));
    area += double(r.area()) / 3600;
  }
  CHECK(near(erased, 0.25));
  CHECK(area / erased == doctest::Approx(0.21).epsilon(0.03));
  CHECK(draw_erased({}, dice(0), 60, 60).area() == 0);

  const Shape shape{2, 40, 50};
  const Rectangle r{3, 4, 30, 40};
  for (const EraseMode mode : {EraseMode::mean, EraseMode::noise}) {
    std::vector<float> image(size_t(shape.count()), 9.0f);
    erase(image, shape, r, mode, dice(5));
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

TEST_CASE("augment: draws are of seed, epoch, repeat, site and sample") {
  const auto first = [](const Occasion& at, Site site, int64_t sample) {
    return Dice(at, site, sample).uniform();
  };
  const Occasion at{true, 7, 3, 0};
  const double own = first(at, Site::policy, 5);
  CHECK(first(at, Site::policy, 5) == own);
  CHECK(first(at, Site::policy, 6) != own);
  CHECK(first(at, Site::erase, 5) != own);
  CHECK(first({true, 8, 3, 0}, Site::policy, 5) != own);
  CHECK(first({true, 7, 4, 0}, Site::policy, 5) != own);
  CHECK(first({true, 7, 3, 1}, Site::policy, 5) != own);
}

TEST_CASE("augment: Beta has its mean and variance") {
  for (const double a : {0.2, 0.8, 1.0, 4.0}) {
    CAPTURE(a);
    double sum = 0, squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const double x = dice(i).beta(a);
      CHECK((x >= 0 && x <= 1));
      sum += x, squares += x * x;
    }
    const double mean = sum / kDraws;
    CHECK(mean == doctest::Approx(0.5).epsilon(0.01));
    CHECK(squares / kDraws - mean * mean == doctest::Approx(1 / (4 * (2 * a + 1))).epsilon(0.03));
  }
}
