// Samples that are clouds of points, and how one becomes what a model sees: points(P,3).
#pragma once

#include <map>
#include <mutex>
#include <vector>

#include "data/samples.h"

namespace tessera {

// Clouds of one size. Where a model takes fewer points, it gets them as the public code of Point-BERT and
// Point-MAE does it: of each cloud farthest-point sampling keeps some 17 % more than it takes (1200 for
// 1024); in training a random part of those, and otherwise the farthest ones. Where it takes all there are,
// nothing is chosen. In training each axis is scaled, and the cloud moved (CloudAugment); points come in
// random order.
class PointClouds : public Samples {
 public:
  // `points` (count, P, 3). Error(Exit::data) where they do not fill it, or one is not finite.
  PointClouds(const Shape& shape, std::vector<float> points);

  int64_t count() const override { return shape_[0]; }
  Shape shape() const override { return {0, 3}; }  // as many points as the model takes, up to P
  void add_to(Fingerprint& fingerprint) const override { fingerprint.add<float>(points_); }
  std::unique_ptr<Preparation> preparation(const PrepareOptions& options) const override;

  const std::vector<float>& points() const { return points_; }
  // Each cloud's points that are farthest from each other, `kept` of P, in that order: (count, kept, 3). They
  // are searched once.
  const std::vector<float>& farthest(int64_t kept) const;

 private:
  Shape shape_;
  std::vector<float> points_;
  mutable std::mutex mutex_;
  mutable std::map<int64_t, std::vector<float>> farthest_;
};

}  // namespace tessera
