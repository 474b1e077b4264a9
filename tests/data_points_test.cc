// Point clouds: files, and how a cloud becomes what a model sees.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <set>

#include "data/dataset.h"
#include "data/loader.h"
#include "data/point_clouds.h"
#include "engine/ops/ops.h"
#include "tests/npy_files.h"
#include "tests/statistics.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

std::vector<float> random_points(int64_t count) {
  std::vector<float> points(static_cast<size_t>(count));
  const Draw draw{.seed = 6, .stream = Stream::test};
  for (size_t i = 0; i < points.size(); ++i) points[i] = float(draw.normal(i));
  return points;
}

template <class T>
ByteVector npy(const std::string& type, const std::string& shape, const std::vector<T>& values) {
  return npy_file(npy_dict(type, shape), bytes_of(values));
}

std::vector<float> prepared(const Preparation& preparation, int64_t index, const Occasion& at) {
  std::vector<float> out(size_t(preparation.shape().count()));
  preparation.prepare(index, at, out);
  return out;
}

}  // namespace

TEST_CASE("point clouds from .npy files, with the names of their classes") {
  const TempFolder folder;
  const std::vector<float> points = random_points(2 * 5 * 3);
  folder.write("train_points.npy", npy("<f4", "(2, 5, 3)", points));
  folder.write("train_labels.npy", npy<uint8_t>("|u1", "(2,)", {2, 0}));
  folder.write("classes.txt", bytes_of("bed\nchair\nsofa\n"));
  const Dataset set = load_dataset(folder.path(), Split::train);
  CHECK(set.name == "point-clouds");
  CHECK(set.labels == std::vector<int32_t>{2, 0});
  CHECK(set.class_names[1] == "chair");
  CHECK(set.classes_without(0) == 1);
  CHECK(set.classes_without(1) == 2);
  CHECK(set.samples->shape() == Shape{0, 3});
  CHECK(normalization(set.name).mean.size() == 3);
  const auto preparation = set.samples->preparation({});
  CHECK(prepared(*preparation, 1, {}) == std::vector<float>(points.begin() + 15, points.end()));
  check_refused("test_points.npy", "looked for", [&] { load_dataset(folder.path(), Split::test); });

  const uint64_t before = set.fingerprint();
  std::vector<float> other = points;
  other[29] += 1;
  folder.write("train_points.npy", npy("<f4", "(2, 5, 3)", other));
  CHECK(load_dataset(folder.path(), Split::train).fingerprint() != before);

  const auto bad = [&](const std::string& file, const std::string& word) {
    check_refused(file, word, [&] { load_dataset(folder.path(), Split::train); });
  };
  folder.write("train_labels.npy", npy<uint8_t>("|u1", "(2,)", {3, 0}));
  bad("train_labels.npy", "label 3 of sample 0, but there are 3 classes");
  folder.write("train_labels.npy", npy<int8_t>("|i1", "(2,)", {0, -1}));
  bad("train_labels.npy", "label -1");
  folder.write("train_labels.npy", npy<uint8_t>("|u1", "(1,)", {0}));
  bad("train_labels.npy", "count of labels");
  folder.write("train_labels.npy", npy<uint8_t>("|u1", "(2,)", {1, 0}));
  folder.write("train_points.npy", npy("<f4", "(2, 3, 5)", points));
  bad("point clouds", "expected (n,points,3)");
  other[29] = NAN;
  folder.write("train_points.npy", npy("<f4", "(2, 5, 3)", other));
  bad("cloud 1", "not finite");
  std::filesystem::remove(folder.path() / "classes.txt");
  folder.write("train_points.npy", npy("<f4", "(2, 5, 3)", points));
  bad("classes.txt", "no such file");
}

TEST_CASE("clouds that are sorted by class are mixed in proportion, others stay in their order") {
  const TempFolder folder;
  const std::vector<float> points = random_points(9 * 2 * 3);
  folder.write("train_points.npy", npy("<f4", "(9, 2, 3)", points));
  folder.write("classes.txt", bytes_of("bed\nchair\ndoor\nsofa\n"));
  const auto check_order = [&](const std::vector<uint8_t>& labels, const std::vector<size_t>& order) {
    folder.write("train_labels.npy", npy<uint8_t>("|u1", "(9,)", labels));
    const Dataset set = load_dataset(folder.path(), Split::train);
    const auto preparation = set.samples->preparation({});
    for (size_t i = 0; i < order.size(); ++i) {
      CAPTURE(i);
      CHECK(set.labels[i] == labels[order[i]]);
      const auto cloud = points.begin() + int64_t(order[i] * 6);
      CHECK(prepared(*preparation, int64_t(i), {}) == std::vector<float>(cloud, cloud + 6));
    }
  };
  // Places of bed (2i + 1) / 12, of chair (2i + 1) / 4, of sofa 1 / 2; no door.
  check_order({0, 0, 0, 0, 0, 0, 1, 1, 3}, {0, 1, 6, 2, 8, 3, 4, 7, 5});
  check_order({0, 0, 0, 0, 0, 0, 1, 3, 1}, {0, 1, 2, 3, 4, 5, 6, 7, 8});
}

TEST_CASE("a model that takes fewer points gets the farthest, and in training a random part of some more") {
  const int64_t n = 300, P = 60, taken = 32, kept = 38;  // of 1024, 1200
  const PointClouds clouds(Shape{n, P, 3}, random_points(n * P * 3));
  const auto preparation = clouds.preparation({.shape = {taken, 3}});
  REQUIRE(preparation->shape() == Shape{taken, 3});
  Tensor all({1, P, 3}, DType::f32);
  std::copy_n(random_points(n * P * 3).data() + 299 * P * 3, P * 3, all.mutable_data<float>());
  const Tensor farthest = farthest_points(all, kept);
  const std::vector<float> want(farthest.data<float>(), farthest.data<float>() + taken * 3);
  CHECK(prepared(*preparation, 299, {}) == want);

  // Without scale and shift the points of training are some of those kept, all different.
  std::set<std::array<float, 3>> pool, seen;
  for (int64_t i = 0; i < kept; ++i)
    pool.insert({farthest.data<float>()[i * 3], farthest.data<float>()[i * 3 + 1],
                 farthest.data<float>()[i * 3 + 2]});
  for (uint32_t epoch = 0; epoch < 20; ++epoch) {
    const std::vector<float> part = prepared(*preparation, 299, {.training = true, .epoch = epoch});
    std::set<std::array<float, 3>> different;
    for (size_t i = 0; i < size_t(taken); ++i)
      different.insert({part[i * 3], part[i * 3 + 1], part[i * 3 + 2]});
    CHECK(different.size() == size_t(taken));
    seen.insert(different.begin(), different.end());
  }
  CHECK(seen == pool);
  CHECK_THROWS_AS(clouds.preparation({.shape = {P + 1, 3}}), Error);
  CHECK_THROWS_AS(clouds.preparation({.shape = {3, 32, 32}}), Error);
}

TEST_CASE("clouds are scaled by axis and moved, uniformly, by seed, epoch and sample alone") {
  const int64_t n = 2000;
  // Points 0 and e1 + e2 + e3: shift and scale can be read off.
  std::vector<float> points(size_t(n * 6), 0.0f);
  for (size_t i = 0; i < size_t(n); ++i) std::fill_n(points.begin() + long(i * 6 + 3), 3, 1.0f);
  const PointClouds clouds(Shape{n, 2, 3}, points);
  const auto preparation = clouds.preparation({.cloud = {.scale = 1.5, .shift = 0.2}});
  std::vector<double> moves[6];
  double products = 0;
  for (int64_t i = 0; i < n; ++i) {
    const std::vector<float> cloud = prepared(*preparation, i, {.training = true, .seed = 1, .epoch = 2});
    const size_t zero = cloud[0] < cloud[3] ? 0 : 3;
    double values[6];
    for (size_t axis = 0; axis < 3; ++axis) {
      values[axis] = cloud[zero + axis];                                 // the shift
      values[3 + axis] = double(cloud[3 - zero + axis]) - values[axis];  // the scale
      CHECK(std::abs(values[axis]) <= 0.2);
      CHECK(values[3 + axis] >= 1 / 1.5 - 1e-6);
      CHECK(values[3 + axis] <= 1.5 + 1e-6);
    }
    for (size_t k = 0; k < 6; ++k) moves[k].push_back(values[k]);
    products += (values[3] - 13.0 / 12) * (values[4] - 13.0 / 12);
  }
  for (size_t k = 0; k < 6; ++k) CHECK((k < 3 ? even(moves[k], -0.2, 0.2) : even(moves[k], 1 / 1.5, 1.5)));
  CHECK(std::abs(products / double(n)) < 0.006);  // the axes are scaled each for itself

  const Occasion at{.training = true, .seed = 1, .epoch = 2};
  CHECK(prepared(*preparation, 7, at) == prepared(*preparation, 7, at));
  CHECK(prepared(*preparation, 7, at) != prepared(*preparation, 8, at));
  CHECK(prepared(*preparation, 7, at) !=
        prepared(*preparation, 7, {.training = true, .seed = 1, .epoch = 3}));
  CHECK(prepared(*preparation, 7, at) !=
        prepared(*preparation, 7, {.training = true, .seed = 2, .epoch = 2}));
}

TEST_CASE("votes are augmented samples in the set's order") {
  Dataset set;
  set.name = "point-clouds";
  set.class_names = {"a", "b"};
  set.labels = {0, 1, 1};
  set.samples = std::make_shared<PointClouds>(Shape{3, 4, 3}, random_points(36));
  LoaderOptions options{
      .training = false, .batch_size = 2, .prepare = {.cloud = {.scale = 1.5, .shift = 0.2}}};
  Loader plain(set, options);
  options.vote = true;
  Loader vote(set, options);
  options.seed = 1;
  Loader another(set, options);
  CHECK(plain.steps_per_epoch() == 2);
  const Batch &a = plain.next(), &b = vote.next(), &c = another.next();
  CHECK(a.indices == std::vector<int64_t>{0, 1});
  CHECK(b.indices == a.indices);
  CHECK(b.labels == a.labels);
  CHECK(a.inputs != b.inputs);
  CHECK(b.inputs != c.inputs);
}
