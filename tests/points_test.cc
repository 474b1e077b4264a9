// Farthest-point sampling and nearest neighbours against the plainest code that does the same.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "engine/base/parallel.h"
#include "engine/ops/ops.h"
#include "tests/random_inputs.h"

namespace tessera {
namespace {

using Point = std::array<double, 3>;
using Cloud = std::vector<Point>;

// On a grid of that step, where it is not 0.
Tensor random_clouds(int64_t B, int64_t P, DType dtype, double step = 0) {
  Tensor points = normal({B, P, 3});
  for (int64_t i = 0; step > 0 && i < points.count(); ++i) {
    double& value = points.mutable_data<double>()[i];
    value = std::round(value / step) * step;
  }
  return points.to(dtype);
}

Cloud cloud_of(const Tensor& points, int64_t b) {
  Cloud cloud(size_t(points.size(1)));
  for (size_t i = 0; i < cloud.size(); ++i)
    for (size_t c = 0; c < 3; ++c)
      cloud[i][c] = points.at((b * points.size(1) + int64_t(i)) * 3 + int64_t(c));
  return cloud;
}

double squared(const Point& a, const Point& b) {
  double sum = 0;
  for (size_t c = 0; c < 3; ++c) sum += (a[c] - b[c]) * (a[c] - b[c]);
  return sum;
}

// Every distance to every point taken, anew for each choice.
Cloud farthest(const Cloud& cloud, int64_t G) {
  Cloud taken = {cloud[0]};
  while (int64_t(taken.size()) < G) {
    size_t best = 0;
    double largest = -1;
    for (size_t i = 0; i < cloud.size(); ++i) {
      double nearest = INFINITY;
      for (const Point& other : taken) nearest = std::min(nearest, squared(cloud[i], other));
      if (nearest > largest) {
        largest = nearest;
        best = i;
      }
    }
    taken.push_back(cloud[best]);
  }
  return taken;
}

// A stable sort of the whole cloud.
Cloud nearest(const Cloud& cloud, const Point& centre, int64_t k) {
  Cloud sorted = cloud;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const Point& a, const Point& b) { return squared(a, centre) < squared(b, centre); });
  sorted.resize(size_t(k));
  for (Point& point : sorted)
    for (size_t c = 0; c < 3; ++c) point[c] -= centre[c];
  return sorted;
}

bool same_points(const Tensor& got, int64_t first, const Cloud& want) {
  for (size_t i = 0; i < want.size(); ++i)
    for (size_t c = 0; c < 3; ++c)
      if (got.at((first + int64_t(i)) * 3 + int64_t(c)) != want[i][c]) return false;
  return true;
}

TEST_CASE("farthest points are those of the plain search") {
  for (const auto [B, P, G] : {std::array<int64_t, 3>{3, 50, 17}, {2, 33, 33}, {1, 1, 1}, {5, 200, 1}}) {
    CAPTURE(P);
    const Tensor points = random_clouds(B, P, DType::f64), got = farthest_points(points, G);
    REQUIRE(got.shape() == Shape{B, G, 3});
    for (int64_t b = 0; b < B; ++b) CHECK(same_points(got, b * G, farthest(cloud_of(points, b), G)));
  }
  // A grid has many equal distances: the first of equal points is taken, in f32 as in f64, on one thread too.
  const Tensor grid = random_clouds(2, 300, DType::f64, 0.5);
  CHECK(same_points(farthest_points(grid, 40), 40, farthest(cloud_of(grid, 1), 40)));
  CHECK(same_points(farthest_points(grid.to(DType::f32), 40), 40, farthest(cloud_of(grid, 1), 40)));
  const int threads = thread_count();
  set_thread_count(1);
  CHECK(same_points(farthest_points(grid, 40), 40, farthest(cloud_of(grid, 1), 40)));
  set_thread_count(threads);
}

TEST_CASE("a shorter sampling is the beginning of a longer one") {
  const Tensor points = random_clouds(1, 90, DType::f32);
  CHECK(same_points(farthest_points(points, 60), 0, cloud_of(farthest_points(points, 7), 0)));
}

TEST_CASE("nearest points are those of a sort, nearest first") {
  for (const double step : {0.0, 0.5})
    for (const auto [B, P, G, k] : {std::array<int64_t, 4>{3, 50, 7, 9}, {2, 33, 5, 33}, {1, 1, 1, 1}}) {
      CAPTURE(P);
      const Tensor points = random_clouds(B, P, DType::f64, step), centres = farthest_points(points, G);
      const Tensor got = nearest_points(points, centres, k);
      REQUIRE(got.shape() == Shape{B, G, k, 3});
      for (int64_t b = 0; b < B; ++b)
        for (int64_t g = 0; g < G; ++g)
          CHECK(same_points(got, (b * G + g) * k,
                            nearest(cloud_of(points, b), cloud_of(centres, b)[size_t(g)], k)));
    }
}

TEST_CASE("groups do not depend on the order of the points") {
  const int64_t P = 80, k = 12;
  const Tensor points = random_clouds(1, P, DType::f32), centres = random_clouds(1, 5, DType::f32);
  Tensor shuffled(points.shape(), DType::f32);
  const Permutation order(uint64_t(P), Draw{.seed = 2});
  for (int64_t i = 0; i < P; ++i)
    std::copy_n(points.data<float>() + int64_t(order.at(uint64_t(i))) * 3, 3,
                shuffled.mutable_data<float>() + i * 3);
  const Tensor groups = nearest_points(points, centres, k), again = nearest_points(shuffled, centres, k);
  for (int64_t i = 0; i < groups.count(); ++i) REQUIRE(groups.at(i) == again.at(i));
}

TEST_CASE("point ops stay inside the cloud whatever the coordinates, and refuse gradients and bad counts") {
  Tensor points = random_clouds(2, 20, DType::f32);
  std::fill_n(points.mutable_data<float>(), points.count(), NAN);
  CHECK(nearest_points(points, farthest_points(points, 5), 4).shape() == Shape{2, 5, 4, 3});
  CHECK_THROWS_AS(farthest_points(points, 21), Error);
  CHECK_THROWS_AS(farthest_points(points, 0), Error);
  CHECK_THROWS_AS(nearest_points(points, random_clouds(2, 3, DType::f32), 21), Error);
  CHECK_THROWS_AS(nearest_points(points, random_clouds(1, 3, DType::f32), 2), Error);
  Tape tape;
  const Tape::Scope record(&tape);
  Tensor wanted = random_clouds(2, 20, DType::f32);
  wanted.require_grad();
  CHECK_THROWS_AS(farthest_points(wanted, 3), Error);
  CHECK_THROWS_AS(nearest_points(points, farthest_points(points, 3).require_grad(), 3), Error);
}

}  // namespace
}  // namespace tessera
