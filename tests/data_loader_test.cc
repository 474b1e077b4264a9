#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "data/loader.h"
#include "engine/base/check.h"
#include "tests/data_files.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

// Pixel k of image i is i * 7 + k, so that every image and place can be told.
Dataset made_up(int64_t count, int64_t channels = 1, int64_t side = 6) {
  Dataset set;
  set.name = "made up";
  set.class_names.resize(10);
  const Shape shape{channels, side, side};
  std::vector<uint8_t> bytes;
  for (int64_t i = 0; i < count; ++i) {
    set.labels.push_back(int32_t(i % 10));
    set.coarse_labels.push_back(int32_t(i % 3));
    for (int64_t k = 0; k < shape.count(); ++k) bytes.push_back(uint8_t(i * 7 + k));
  }
  set.samples = std::make_shared<MemoryImages>(shape, std::move(bytes));
  return set;
}

LoaderOptions options_for(const Dataset& set, int64_t batch, int workers) {
  LoaderOptions options;
  options.batch_size = batch;
  options.seed = 5;
  const auto channels = size_t(set.samples->shape()[0]);
  options.prepare.augment.padding = 2;
  options.prepare.augment.flip = true;
  options.prepare.normalization.mean.assign(channels, 0.25f);
  options.prepare.normalization.std.assign(channels, 0.5f);
  options.workers = workers;
  return options;
}

std::vector<Batch> take(Loader& loader, int64_t count) {
  std::vector<Batch> batches;
  for (int64_t i = 0; i < count; ++i) batches.push_back(loader.next());
  return batches;
}

void check_same(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    CHECK(a[i].inputs == b[i].inputs);
    CHECK(a[i].labels == b[i].labels);
    CHECK(a[i].soft_targets == b[i].soft_targets);
    CHECK(a[i].coarse_labels == b[i].coarse_labels);
    CHECK(a[i].indices == b[i].indices);
    CHECK(a[i].epoch == b[i].epoch);
    CHECK(a[i].step_in_epoch == b[i].step_in_epoch);
  }
}

}  // namespace

TEST_CASE("loader: the number of workers changes no byte") {
  const Dataset set = made_up(103, 3);
  for (const bool training : {true, false}) {
    const auto batches = [&](int workers) {
      LoaderOptions options = options_for(set, 8, workers);
      options.training = training;
      Loader loader(set, options);
      return take(loader, 3 * loader.steps_per_epoch() + 2);
    };
    const std::vector<Batch> alone = batches(0);
    check_same(alone, batches(1));
    check_same(alone, batches(3));
  }
}

namespace {

// All that there is, at once.
LoaderOptions everything(const Dataset& set, int64_t batch, int workers) {
  LoaderOptions options = options_for(set, batch, workers);
  options.prepare.augment.resized_crop = true;
  options.prepare.augment.policy = "rand-m9-n4-p0.9-mstd0.5-inc1";
  options.prepare.augment.jitter = 0.4;
  options.prepare.augment.erase.probability = 0.5;
  options.mix = {.mixup = 0.8, .cutmix = 1, .probability = 0.8};
  options.repeats = 3;
  return options;
}

}  // namespace

TEST_CASE("loader: augmentations, mixing and repeats too are of the seed and the place alone") {
  const Dataset set = made_up(60, 3, 12);
  Loader alone(set, everything(set, 8, 0)), others(set, everything(set, 8, 3));
  const std::vector<Batch> all = take(alone, 20);
  check_same(all, take(others, 20));
  others.seek(1, 2);
  check_same({all.begin() + 9, all.end()}, take(others, 11));
  alone.seek(0, 5);
  check_same({all.begin() + 5, all.begin() + 8}, take(alone, 3));
  LoaderOptions reseeded = everything(set, 8, 0);
  reseeded.seed = 6;
  CHECK(Loader(set, reseeded).next().inputs != all[0].inputs);
}

TEST_CASE("loader: repeats come in turn, each augmented anew, and leave the epoch's length") {
  const Dataset set = made_up(60, 3, 12);
  LoaderOptions options = options_for(set, 6, 0);
  options.repeats = 3;
  Loader loader(set, options);
  CHECK(loader.steps_per_epoch() == 10);
  std::map<int64_t, int> turns;
  int same = 0;
  for (const Batch& batch : take(loader, 10)) {
    const size_t size = batch.inputs.size() / 6;
    for (size_t i = 0; i < 6; ++i) {
      CHECK(batch.indices[i] == batch.indices[i / 3 * 3]);
      ++turns[batch.indices[i]];
      const auto sample = batch.inputs.begin() + int64_t(i * size);
      same += i % 3 > 0 && std::equal(sample, sample + int64_t(size), sample - int64_t(size));
    }
  }
  CHECK(turns.size() == 20);
  for (const auto& [index, count] : turns) CHECK(count == 3);
  CHECK(same <= 5);  // of 40; two draws agree once in 50
  options.repeats = 0;
  CHECK_THROWS_AS(Loader(set, options), Error);
}

TEST_CASE("loader: mixed batches have the targets of what they show") {
  const Dataset set = made_up(64, 3, 10);
  LoaderOptions options = options_for(set, 8, 0);
  options.prepare.augment = {};
  Loader plain(set, options);
  options.mix = {.mixup = 1, .cutmix = 1, .probability = 0.7};
  Loader mixed(set, options);
  int untouched = 0, cut = 0, blended = 0;
  std::set<double> shares;  // of the blended
  for (int step = 0; step < 400; ++step) {
    const Batch a = plain.next(), b = mixed.next();
    CHECK(a.labels == b.labels);
    if (b.soft_targets.empty()) {
      CHECK(a.inputs == b.inputs);
      ++untouched;
      continue;
    }
    bool swapped = true;
    double share = 1;
    for (size_t i = 0; i < 8; ++i) {
      const size_t partner = 7 - i;
      const float* const own = a.inputs.data() + i * 300;
      const float* const other = a.inputs.data() + partner * 300;
      const float* const out = b.inputs.data() + i * 300;
      double total = 0;
      for (size_t k = 0; k < 10; ++k) total += double(b.soft_targets[i * 10 + k]);
      CHECK(total == doctest::Approx(1).epsilon(1e-6));
      if (a.labels[i] == a.labels[partner]) continue;
      const double lambda = share = double(b.soft_targets[i * 10 + size_t(a.labels[i])]);
      CHECK(double(b.soft_targets[i * 10 + size_t(a.labels[partner])]) == doctest::Approx(1 - lambda));
      int kept = 0, taken = 0, differ = 0;
      for (size_t k = 0; k < 300; ++k) {
        if (own[k] == other[k]) continue;
        ++differ;
        kept += out[k] == own[k];
        taken += out[k] == other[k];
      }
      if (kept + taken == differ) {
        // The part of the image that stays its own.
        CHECK(lambda == doctest::Approx(double(kept) / differ));
      } else {
        swapped = false;
        for (size_t k = 0; k < 300; ++k)
          CHECK(double(out[k]) ==
                doctest::Approx(lambda * double(own[k]) + (1 - lambda) * double(other[k])).epsilon(1e-4));
      }
    }
    (swapped ? cut : blended) += 1;
    if (!swapped) shares.insert(share);
  }
  const auto near = [](int count, double p) {
    return std::abs(count - 400 * p) < 5 * std::sqrt(400 * p * (1 - p));
  };
  CHECK(near(untouched, 0.3));
  CHECK(near(cut, 0.35));
  CHECK(near(blended, 0.35));
  CHECK(int(shares.size()) > blended / 2);  // every step of every epoch draws anew
}

TEST_CASE("loader: seek equals going on, from before and after, with workers and without") {
  const Dataset set = made_up(50);
  Loader reference(set, options_for(set, 8, 0));
  const std::vector<Batch> all = take(reference, 20);
  for (const int workers : {0, 1, 3}) {
    Loader fresh(set, options_for(set, 8, workers));
    fresh.seek(1, 3);
    check_same({all.begin() + 9, all.begin() + 14}, take(fresh, 5));
    fresh.seek(0, 2);  // back, while workers are ahead
    check_same({all.begin() + 2, all.begin() + 9}, take(fresh, 7));
    fresh.seek(0, 6);  // the end of an epoch is the start of the next
    check_same({all.begin() + 6, all.begin() + 8}, take(fresh, 2));
    CHECK_THROWS_AS(fresh.seek(0, 7), Error);
    CHECK_THROWS_AS(fresh.seek(-1, 0), Error);
  }
}

TEST_CASE("loader: an epoch has every sample once, the next one in another order") {
  const Dataset set = made_up(96);
  Loader loader(set, options_for(set, 8, 2));
  std::vector<std::vector<int64_t>> orders(2);
  for (auto& order : orders) {
    for (const Batch& batch : take(loader, 12))
      order.insert(order.end(), batch.indices.begin(), batch.indices.end());
  }
  CHECK(orders[0] != orders[1]);
  for (auto& order : orders) {
    CHECK(!std::is_sorted(order.begin(), order.end()));
    std::sort(order.begin(), order.end());
    REQUIRE(order.size() == 96);
    for (int64_t i = 0; i < 96; ++i) CHECK(order[i] == i);
  }
  LoaderOptions other = options_for(set, 8, 0);
  other.seed = 6;
  Loader reseeded(set, other);
  loader.seek(0, 0);
  CHECK(reseeded.next().indices != loader.next().indices);
}

TEST_CASE("loader: training drops the rest, evaluation has it, in order and plain") {
  const Dataset set = made_up(21);
  Loader training(set, options_for(set, 8, 1));
  CHECK(training.steps_per_epoch() == 2);
  LoaderOptions options = options_for(set, 8, 1);
  options.training = false;
  options.repeats = 3;  // these are of training alone
  options.mix.mixup = 1;
  Loader evaluation(set, options);
  CHECK(evaluation.steps_per_epoch() == 3);
  int64_t index = 0;
  for (const Batch& batch : take(evaluation, 3)) {
    CHECK(batch.inputs.size() == size_t(batch.size() * 36));
    CHECK(batch.soft_targets.empty());
    for (int64_t i = 0; i < batch.size(); ++i, ++index) {
      CHECK(batch.indices[i] == index);
      CHECK(batch.labels[i] == set.labels[index]);
      CHECK(batch.coarse_labels[i] == set.coarse_labels[index]);
      for (int64_t k = 0; k < 36; ++k) {
        CHECK(batch.inputs[i * 36 + k] == float((image(set, index)[k] / 255.0 - 0.25) / 0.5));
      }
    }
  }
  CHECK(index == 21);
  CHECK(evaluation.next().size() == 8);  // a short batch does not shorten the next one
}

TEST_CASE("loader: limit takes the first samples") {
  const Dataset set = made_up(100);
  LoaderOptions options = options_for(set, 4, 0);
  options.limit = 10;
  Loader loader(set, options);
  CHECK(loader.samples() == 10);
  CHECK(loader.steps_per_epoch() == 2);
  for (const Batch& batch : take(loader, 20)) {
    for (const int64_t index : batch.indices) CHECK(index < 10);
  }
  options.limit = 1000;
  CHECK(Loader(set, options).samples() == 100);
}

TEST_CASE("loader: options that give no batch, and sets that do not fit together") {
  const Dataset set = made_up(20);
  const auto code = [](const Dataset& data, const LoaderOptions& options) {
    try {
      Loader loader(data, options);
      return Exit::ok;
    } catch (const Error& error) {
      return error.code();
    }
  };
  const LoaderOptions good = options_for(set, 8, 0);
  CHECK(code(set, good) == Exit::ok);
  const auto changed = [&](auto change) {
    LoaderOptions options = good;
    change(options);
    return code(set, options);
  };
  CHECK(changed([](LoaderOptions& o) { o.batch_size = 21; }) == Exit::usage);
  CHECK(changed([](LoaderOptions& o) { o.batch_size = 0; }) == Exit::usage);
  CHECK(changed([](LoaderOptions& o) { o.limit = -1; }) == Exit::usage);
  CHECK(changed([](LoaderOptions& o) { o.workers = -1; }) == Exit::usage);
  CHECK(changed([](LoaderOptions& o) { o.prepare.augment.padding = -1; }) == Exit::usage);
  CHECK(changed([](LoaderOptions& o) { o.prepare.normalization.mean.resize(3); }) == Exit::usage);
  CHECK(changed([](LoaderOptions& o) { o.prepare.normalization.std[0] = 0; }) == Exit::usage);
  Dataset torn = set;
  torn.labels.push_back(0);
  CHECK(code(torn, good) == Exit::data);
  torn = set;
  torn.coarse_labels.pop_back();
  CHECK(code(torn, good) == Exit::data);
  CHECK_THROWS_AS(MemoryImages({1, 6, 6}, ByteVector(71)), Error);
  CHECK(changed([](LoaderOptions& o) { o.prepare.shape = {1, 7, 7}; }) == Exit::usage);
}

TEST_CASE("loader: a failure in a worker comes out of next(), at its batch") {
  Dataset set = made_up(64);
  set.labels[37] = 10;
  LoaderOptions options = options_for(set, 8, 0);
  options.training = false;
  for (const int workers : {0, 1, 3}) {
    CAPTURE(workers);
    options.workers = workers;
    Loader loader(set, options);
    take(loader, 4);
    CHECK_THROWS_WITH_AS(loader.next(), "made up: label 10 of sample 37, but there are 10 classes", Error);
    CHECK(loader.next().step_in_epoch == 5);
  }
}

TEST_CASE("loader: it shuts down at any point") {
  const Dataset set = made_up(200);
  for (int taken = 0; taken < 12; ++taken) {
    Loader loader(set, options_for(set, 8, 3));
    take(loader, taken);
    if (taken % 3 == 2) loader.seek(2, 1);
    if (taken % 4 == 3) std::this_thread::yield();
  }
  LoaderOptions options = options_for(set, 8, 1);
  Loader loader(set, options);
  CHECK(loader.data_wait_seconds() == 0);
  take(loader, 3);
  CHECK(loader.data_wait_seconds() > 0);
}

TEST_CASE("augment: a window and a flip, against the definition") {
  const Dataset set = made_up(1, 2, 5);
  const Normalizer normalizer(2, {{0.5f, 0.25f}, {0.25f, 0.5f}});
  for (int down = -7; down <= 7; ++down) {
    for (int right = -7; right <= 7; ++right) {
      for (const bool flip : {false, true}) {
        std::vector<float> out(50);
        normalizer.apply({2, 5, 5, image(set, 0)}, {down, right, flip}, out.data());
        for (int c = 0; c < 2; ++c) {
          for (int y = 0; y < 5; ++y) {
            for (int x = 0; x < 5; ++x) {
              const int from_y = y + down, from_x = (flip ? 4 - x : x) + right;
              const bool inside = from_y >= 0 && from_y < 5 && from_x >= 0 && from_x < 5;
              const int byte = inside ? image(set, 0)[c * 25 + from_y * 5 + from_x] : 0;
              const double mean = c == 0 ? 0.5 : 0.25, std = c == 0 ? 0.25 : 0.5;
              REQUIRE(out[c * 25 + y * 5 + x] == float((byte / 255.0 - mean) / std));
            }
          }
        }
      }
    }
  }
}
