// What augmentations draw: their distributions, and what a draw depends on.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "data/augment/crop_flip.h"
#include "data/augment/erase.h"
#include "data/augment/jitter.h"
#include "data/augment/mix.h"
#include "data/augment/policy.h"
#include "data/augment/resized_crop.h"
#include "tests/statistics.h"

using namespace tessera;
using testing::even;

namespace {

constexpr int kDraws = 60000;

using testing::near;
bool near(int count, double p) { return near(count, p, kDraws); }

Dice dice(int64_t sample, uint32_t epoch = 1) { return {{true, 7, epoch}, Site::policy, sample}; }

bool close(double a, double b) { return std::abs(a - b) <= 1e-9; }

// How often a policy draws each operation with each argument.
using Seen = std::map<ImageOp, std::map<double, int>>;

Seen draws_of(const std::string& policy, int64_t height, int64_t width, int draws) {
  const auto made = make_policy(policy);
  Seen seen;
  for (int i = 0; i < draws; ++i) {
    Dice own = dice(i, 3);
    for (const ImageStep& step : made->draw(own, height, width)) ++seen[step.op][step.argument];
  }
  return seen;
}

// That an operation was drawn with each of `centre` +- these, both signs alike, and with nothing else.
void check_arguments(const Seen& seen, ImageOp op, double centre, std::vector<double> sizes) {
  CAPTURE(int(op));
  REQUIRE(seen.count(op) == 1);
  std::map<double, int> left = seen.at(op);
  const auto take = [&](double argument) {
    const auto found =
        std::find_if(left.begin(), left.end(), [&](const auto& one) { return close(one.first, argument); });
    const int times = found == left.end() ? 0 : found->second;
    if (times > 0) left.erase(found);
    return times;
  };
  for (const double size : sizes) {
    CAPTURE(size);
    const int above = take(centre + size);
    CHECK(above > 0);
    if (size == 0) continue;
    const int below = take(centre - size);
    CHECK(near(above, 0.5, above + below));
  }
  CHECK(left.empty());
}

// As above, of an operation without a sign.
void check_values(const Seen& seen, ImageOp op, const std::vector<double>& values) {
  CAPTURE(int(op));
  REQUIRE(seen.count(op) == 1);
  const auto& own = seen.at(op);
  REQUIRE(own.size() == values.size());
  CHECK(std::equal(values.begin(), values.end(), own.begin(),
                   [](double want, const auto& got) { return close(want, got.first); }));
}

}  // namespace

TEST_CASE("draws: RandAugment has its operations evenly, half of the time, around its strength") {
  const auto policy = make_policy("rand-m9-mstd0.5-inc1");
  std::map<ImageOp, int> count;
  std::map<size_t, int> steps_drawn;
  double shear = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    Dice own = dice(i);
    const auto steps = policy->draw(own, 40, 100);
    ++steps_drawn[steps.size()];
    for (const ImageStep& step : steps) {
      ++count[step.op];
      if (step.op != ImageOp::shear_x) continue;
      shear += std::abs(step.argument);
      squares += step.argument * step.argument;
    }
  }
  CHECK(count.size() == 15);
  for (const auto& [op, times] : count) CHECK(near(times, 1.0 / 30, 2 * kDraws));
  CHECK(near(steps_drawn[0], 0.25));
  CHECK(near(steps_drawn[1], 0.5));
  // 0.03 times a normal number around 9 with deviation 0.5, cut off at 10, two deviations above.
  const double n = count[ImageOp::shear_x];
  CHECK(shear / n == doctest::Approx(0.27).epsilon(0.003).scale(0));
  CHECK(std::sqrt(squares / n - shear * shear / n / n) == doctest::Approx(0.015).epsilon(0.03).scale(0));
}

TEST_CASE("draws: RandAugment's strengths are timm's") {
  struct Expected {
    const char* policy;
    double part;  // of the full strength
    bool increasing;
    double posterize, solarize, solarize_add;
  };
  for (const Expected& e : {Expected{"rand-m6.5-n15-p1", 0.65, false, 2, 166, 71},
                            {"rand-m6.5-n15-p1-inc1", 0.65, true, 2, 90, 71},
                            {"rand-m10-n15-p1", 1, false, 4, 256, 110},
                            {"rand-m10-n15-p1-inc1", 1, true, 0, 0, 110},
                            {"rand-m9-mmax3-n15-p1-inc1", 0.3, true, 3, 180, 33}}) {
    CAPTURE(e.policy);
    const Seen seen = draws_of(e.policy, 40, 100, 1000);
    CHECK(seen.size() == 15);
    check_arguments(seen, ImageOp::rotate, 0, {e.part * 30});
    check_arguments(seen, ImageOp::shear_x, 0, {e.part * 0.3});
    check_arguments(seen, ImageOp::shear_y, 0, {e.part * 0.3});
    check_arguments(seen, ImageOp::translate_x, 0, {e.part * 45});
    check_arguments(seen, ImageOp::translate_y, 0, {e.part * 18});
    for (const ImageOp op : {ImageOp::color, ImageOp::contrast, ImageOp::brightness, ImageOp::sharpness})
      if (e.increasing)
        check_arguments(seen, op, 1, {e.part * 0.9});
      else
        check_values(seen, op, {0.1 + e.part * 1.8});
    check_values(seen, ImageOp::posterize, {e.posterize});
    check_values(seen, ImageOp::solarize, {e.solarize});
    check_values(seen, ImageOp::solarize_add, {e.solarize_add});
  }
}

TEST_CASE("draws: AutoAugment has each pair evenly, with its probabilities") {
  // How often operations are expected in a draw, from the paper's numbers.
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
    const Seen seen = draws_of(name, 331, 331, kDraws);
    for (const auto& [op, mean] : ops) {
      CAPTURE(int(op));
      int count = 0;
      if (seen.count(op) > 0)
        for (const auto& [argument, times] : seen.at(op)) count += times;
      // An operation comes at most twice in a pair, which widens the count by no more than that.
      CHECK(std::abs(count - kDraws * mean) <= 5 * std::sqrt(2 * kDraws * mean));
    }
  }
}

TEST_CASE("draws: AutoAugment's strengths are the paper's, by torchvision's bins") {
  const auto parts = [](std::vector<int> levels, double full) {
    std::vector<double> sizes;
    for (const int level : levels) sizes.push_back(level / 9.0 * full);
    return sizes;
  };
  const auto pixels = [&](std::vector<int> levels, double side) {
    std::vector<double> sizes = parts(std::move(levels), 150.0 / 331 * side);
    for (double& size : sizes) size = std::trunc(size);
    return sizes;
  };
  const auto check_colours = [&](const Seen& seen, ImageOp op, std::vector<int> levels) {
    check_arguments(seen, op, 1, parts(std::move(levels), 0.9));
  };
  Seen seen = draws_of("cifar10", 100, 200, kDraws);
  check_arguments(seen, ImageOp::rotate, 0, parts({2}, 30));
  check_arguments(seen, ImageOp::shear_y, 0, parts({7, 8}, 0.3));
  check_arguments(seen, ImageOp::translate_x, 0, pixels({8, 9}, 200));
  check_arguments(seen, ImageOp::translate_y, 0, pixels({3, 9}, 100));
  check_colours(seen, ImageOp::color, {0, 3, 7, 8, 9});
  check_colours(seen, ImageOp::contrast, {6, 7});
  check_colours(seen, ImageOp::brightness, {3, 6, 7, 9});
  check_colours(seen, ImageOp::sharpness, {1, 3, 5, 6, 9});
  check_values(seen, ImageOp::posterize, {5});
  check_values(seen, ImageOp::solarize, {255.0 / 9, 255 * 4.0 / 9, 255 * 6.0 / 9, 255 * 7.0 / 9});
  CHECK(seen.size() == 13);

  seen = draws_of("svhn", 100, 200, kDraws);
  check_arguments(seen, ImageOp::rotate, 0, parts({3, 4}, 30));
  check_arguments(seen, ImageOp::shear_x, 0, parts({2, 4, 6, 9}, 0.3));
  check_arguments(seen, ImageOp::shear_y, 0, parts({4, 5, 6, 7, 8}, 0.3));
  check_arguments(seen, ImageOp::translate_x, 0, pixels({3}, 200));
  check_arguments(seen, ImageOp::translate_y, 0, pixels({3, 6, 7}, 100));
  check_colours(seen, ImageOp::contrast, {3});
  check_values(seen, ImageOp::solarize, {255.0 / 9, 255 * 3.0 / 9, 255 * 6.0 / 9, 255 * 7.0 / 9});
  CHECK(seen.size() == 10);

  seen = draws_of("imagenet", 100, 200, kDraws);
  check_arguments(seen, ImageOp::rotate, 0, parts({3, 8, 9}, 30));
  check_arguments(seen, ImageOp::shear_x, 0, parts({5}, 0.3));
  check_colours(seen, ImageOp::color, {0, 2, 4, 8});
  check_colours(seen, ImageOp::contrast, {8});
  check_colours(seen, ImageOp::sharpness, {7});
  check_values(seen, ImageOp::posterize, {4, 5, 6});
  check_values(seen, ImageOp::solarize,
               {255.0 / 9, 255 * 2.0 / 9, 255 * 4.0 / 9, 255 * 5.0 / 9, 255 * 6.0 / 9});
  CHECK(seen.size() == 10);
}

TEST_CASE("draws: jitter takes the three in any order, by even factors") {
  std::map<std::pair<ImageOp, ImageOp>, int> orders;
  std::map<ImageOp, std::vector<double>> factors;
  for (int i = 0; i < kDraws; ++i) {
    const auto steps = draw_jitter(0.4, dice(i));
    ++orders[{steps[0].op, steps[1].op}];
    for (const ImageStep& step : steps) factors[step.op].push_back(step.argument);
  }
  CHECK(orders.size() == 6);
  for (const auto& [order, times] : orders) CHECK(near(times, 1.0 / 6));
  CHECK(factors.size() == 3);
  for (const auto& [op, own] : factors) CHECK(even(own, 0.6, 1.4));
  for (int i = 0; i < 100; ++i)
    for (const ImageStep& step : draw_jitter(3, dice(i))) CHECK(step.argument >= 0);
}

TEST_CASE("draws: the resized crop is of even area and log-even aspect, anywhere in the image") {
  // So large that rounding to pixels is nothing.
  constexpr int64_t kSide = 100000;
  std::vector<double> areas, aspects, tops, lefts;
  int large = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Window w = draw_resized_crop(0.08, dice(i), kSide, kSide);
    CHECK((w.top >= 0 && w.left >= 0 && w.top + w.height <= kSide && w.left + w.width <= kSide));
    const double area = w.height * w.width / (kSide * kSide);
    large += area > 0.75;
    tops.push_back(w.top / (kSide - w.height + 1));
    lefts.push_back(w.left / (kSide - w.width + 1));
    if (area > 0.75) continue;  // some aspects do not fit
    areas.push_back(area);
    aspects.push_back(std::log(w.width / w.height));
  }
  CHECK(even(areas, 0.08, 0.75));
  CHECK(even(aspects, -std::log(4.0 / 3), std::log(4.0 / 3)));
  CHECK(even(tops, 0, 1));
  CHECK(even(lefts, 0, 1));
  // Of area a > 3/4 the aspects within 1 / a of 1 fit: log(1 / a) / log(4/3) of them.
  const double fits = (0.25 - 0.75 * std::log(4.0 / 3)) / std::log(4.0 / 3);
  CHECK(near(large, fits / (fits + 0.67)));
}

TEST_CASE("draws: where no resized crop fits, the middle is taken") {
  const Window middle = draw_resized_crop(0.9, dice(0), 10, 100);
  CHECK(middle.height == 10);
  CHECK(middle.width == 13);
  CHECK(middle.left == 43);
  const Window high = draw_resized_crop(0.9, dice(0), 100, 10);
  CHECK(high.width == 10);
  CHECK(high.height == 13);
  CHECK(high.top == 43);
  const Window pixel = draw_resized_crop(0.08, dice(0), 1, 1);
  CHECK(pixel.height == 1);
  CHECK(pixel.width == 1);
}

TEST_CASE("draws: what is erased is of even area and log-even aspect, anywhere in the image") {
  constexpr int64_t kSide = 100000;
  const EraseOptions options{.probability = 0.25, .largest = 0.25};  // which fits at any aspect
  std::vector<double> areas, aspects, tops, lefts;
  for (int i = 0; i < 4 * kDraws; ++i) {
    const Rectangle r = draw_erased(options, dice(i), kSide, kSide);
    if (r.area() == 0) continue;
    areas.push_back(double(r.area()) / (kSide * kSide));
    aspects.push_back(std::log(double(r.height) / double(r.width)));
    tops.push_back(double(r.top) / double(kSide - r.height + 1));
    lefts.push_back(double(r.left) / double(kSide - r.width + 1));
  }
  CHECK(near(int(areas.size()), 0.25, 4 * kDraws));
  CHECK(even(areas, 0.02, 0.25));
  CHECK(even(aspects, std::log(0.3), -std::log(0.3)));
  CHECK(even(tops, 0, 1));
  CHECK(even(lefts, 0, 1));
  CHECK(draw_erased({}, dice(0), 60, 60).area() == 0);

  // Up to each edge.
  int at_top = 0, at_bottom = 0, at_left = 0, at_right = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Rectangle r = draw_erased({.probability = 1}, dice(i), 10, 10);
    CHECK((r.top >= 0 && r.left >= 0 && r.top + r.height <= 10 && r.left + r.width <= 10));
    if (r.area() == 0) continue;
    at_top += r.top == 0, at_bottom += r.top + r.height == 10;
    at_left += r.left == 0, at_right += r.left + r.width == 10;
  }
  CHECK(at_top > kDraws / 20);
  CHECK(near(at_top, 0.5, at_top + at_bottom));
  CHECK(near(at_left, 0.5, at_left + at_right));
}

TEST_CASE("draws: a batch is mixed as often, in the way and as much as the options say") {
  constexpr int64_t kSide = 1000;
  const auto mixes = [](const MixOptions& options) {
    std::vector<Mix> all;
    for (int i = 0; i < kDraws; ++i) all.push_back(draw_mix(options, dice(i), kSide, kSide));
    return all;
  };
  int mixed = 0, cut = 0;
  for (const Mix& mix : mixes({.mixup = 0.8, .cutmix = 1, .probability = 0.7, .cutmix_share = 0.2})) {
    mixed += mix.lambda < 1;
    cut += mix.rectangle.area() > 0;
  }
  CHECK(near(mixed, 0.7));
  CHECK(near(cut, 0.7 * 0.2));
  // Beta(1, 1) is even.
  std::vector<double> lambdas;
  for (const Mix& mix : mixes({.mixup = 1, .cutmix = 0})) lambdas.push_back(mix.lambda);
  CHECK(even(lambdas, 0, 1));

  // A box of side s, its centre anywhere, has s - s^2 / 4 in the image on average: squared, for s^2 even.
  double area = 0;
  int tops = 0, bottoms = 0, lefts = 0, rights = 0;
  for (const Mix& mix : mixes({.mixup = 0, .cutmix = 1})) {
    const Rectangle& box = mix.rectangle;
    CHECK((box.top >= 0 && box.left >= 0 && box.top + box.height <= kSide && box.left + box.width <= kSide));
    const double part = double(box.area()) / (kSide * kSide);
    CHECK(mix.lambda == 1 - part);
    area += part;
    tops += box.top == 0, bottoms += box.top + box.height == kSide;
    lefts += box.left == 0, rights += box.left + box.width == kSide;
  }
  CHECK(area / kDraws == doctest::Approx(1.0 / 2 - 1.0 / 5 + 1.0 / 48).epsilon(0.02).scale(0));
  // Clipped where the centre is within s / 2 of an edge: E(s) / 2.
  for (const int clipped : {tops, bottoms, lefts, rights}) CHECK(near(clipped, 1.0 / 3));
  CHECK(draw_mix({}, dice(0), kSide, kSide).lambda == 1);
}

TEST_CASE("draws: crops and flips are even, and of seed, epoch and sample") {
  std::map<int64_t, int> down, right;
  int flips = 0, both = 0, same_as_next_epoch = 0;
  for (int i = 0; i < kDraws; ++i) {
    const CropFlip move = draw_crop_flip(4, true, {true, 1, 3}, i),
                   later = draw_crop_flip(4, true, {true, 1, 4}, i);
    ++down[move.down];
    ++right[move.right];
    flips += move.flip;
    both += move.flip && move.down > 0;
    same_as_next_epoch += move.down == later.down && move.right == later.right && move.flip == later.flip;
  }
  CHECK(down.size() == 9);
  CHECK(right.size() == 9);
  for (int shift = -4; shift <= 4; ++shift) {
    CHECK(near(down[shift], 1.0 / 9));
    CHECK(near(right[shift], 1.0 / 9));
  }
  CHECK(near(flips, 0.5));
  CHECK(near(both, 0.5 * 4 / 9));
  CHECK(near(same_as_next_epoch, 1.0 / 162));
  const CropFlip none = draw_crop_flip(0, false, {true, 1, 3}, 7);
  CHECK(none.down == 0);
  CHECK(none.right == 0);
  CHECK(!none.flip);
}

TEST_CASE("draws: they are of seed, epoch, repeat, site and sample") {
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

TEST_CASE("draws: Beta has its mean and variance") {
  for (const double a : {0.2, 0.8, 1.0, 4.0}) {
    CAPTURE(a);
    double sum = 0, squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const double x = dice(i).beta(a);
      CHECK((x >= 0 && x <= 1));
      sum += x, squares += x * x;
    }
    const double mean = sum / kDraws;
    CHECK(mean == doctest::Approx(0.5).epsilon(0.01).scale(0));
    CHECK(squares / kDraws - mean * mean == doctest::Approx(1 / (4 * (2 * a + 1))).epsilon(0.03).scale(0));
  }
}
