#include "data/point_clouds.h"

#include <algorithm>
#include <cmath>

#include "data/augment/dice.h"
#include "engine/base/check.h"
#include "engine/base/rng.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// Of a cloud of P points, for a model that takes `taken`: 1200 for 1024, and so on.
int64_t kept_points(int64_t P, int64_t taken) { return std::min(P, (taken * 75 + 63) / 64); }

class CloudPreparation : public Preparation {
 public:
  CloudPreparation(const PointClouds& clouds, int64_t P, const PrepareOptions& options)
      : taken_(options.shape.rank() == 0 ? P : options.shape[0]),
        kept_(kept_points(P, taken_)),
        points_(taken_ == P ? clouds.points() : clouds.farthest(kept_)),
        augment_(options.cloud) {
    TESSERA_CHECK_AS(Exit::usage, augment_.scale >= 1 && augment_.shift >= 0, "points: scale ",
                     augment_.scale, " and shift ", augment_.shift, ", expected from 1 and from 0 on");
  }

  Shape shape() const override { return {taken_, 3}; }

  void prepare(int64_t index, const Occasion& at, std::span<float> out) const override {
    const float* const cloud = points_.data() + index * kept_ * 3;
    if (!at.training) {
      std::copy_n(cloud, out.size(), out.data());
      return;
    }
    Draw draw = draw_of(at, Site::cloud_order);
    draw.site = draw.block(uint64_t(index))[0];  // a permutation of its own for each cloud
    const Permutation order(uint64_t(kept_), draw);
    Dice dice(at, Site::cloud, index);
    for (size_t axis = 0; axis < 3; ++axis) {
      const auto scale = float(dice.uniform(1 / augment_.scale, augment_.scale));
      const auto shift = float(dice.uniform(-augment_.shift, augment_.shift));
      for (size_t i = 0; i < size_t(taken_); ++i)
        out[i * 3 + axis] = cloud[order.at(i) * 3 + axis] * scale + shift;
    }
  }

 private:
  const int64_t taken_, kept_;
  const std::vector<float>& points_;
  const CloudAugment augment_;
};

}  // namespace

PointClouds::PointClouds(const Shape& shape, std::vector<float> points)
    : shape_(shape), points_(std::move(points)) {
  TESSERA_CHECK_AS(
      Exit::data,
      shape.rank() == 3 && shape[2] == 3 && shape.count() == int64_t(points_.size()) && shape.count() > 0,
      "point clouds ", shape, ": ", points_.size(), " numbers, expected (n,points,3)");
  const auto wrong = std::find_if(points_.begin(), points_.end(), [](float v) { return !std::isfinite(v); });
  TESSERA_CHECK_AS(Exit::data, wrong == points_.end(), "point clouds: cloud ",
                   (wrong - points_.begin()) / shape.count(1, 3), " has a coordinate that is not finite");
}

const std::vector<float>& PointClouds::farthest(int64_t kept) const {
  const int64_t P = shape_[1];
  const std::lock_guard lock(mutex_);
  std::vector<float>& found = farthest_[kept];
  if (found.empty()) {
    const Device::Scope on_host{Device()};
    constexpr int64_t kClouds = 256;  // at a time
    found.resize(size_t(count() * kept * 3));
    for (int64_t first = 0; first < count(); first += kClouds) {
      Tensor clouds({std::min(kClouds, count() - first), P, 3}, DType::f32);
      std::copy_n(points_.data() + first * P * 3, clouds.count(), clouds.mutable_data<float>());
      const Tensor farthest = farthest_points(clouds, kept);
      std::copy_n(farthest.data<float>(), farthest.count(), found.data() + first * kept * 3);
    }
  }
  return found;
}

std::unique_ptr<Preparation> PointClouds::preparation(const PrepareOptions& options) const {
  const int64_t P = shape_[1];
  const Shape& wanted = options.shape;
  TESSERA_CHECK_AS(Exit::usage,
                   wanted.rank() == 0 || (wanted.rank() == 2 && wanted[0] <= P && wanted[1] == 3),
                   "clouds of ", P, " points, but the model takes ", wanted);
  return std::make_unique<CloudPreparation>(*this, P, options);
}

}  // namespace tessera
