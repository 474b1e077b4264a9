// The random numbers of augmentations.
#pragma once

#include <cmath>
#include <cstdint>

#include "engine/base/rng.h"

namespace tessera {

// Which time a sample is made ready: augmentations are drawn by this and the sample's index, by nothing else.
struct Occasion {
  bool training = false;  // else without augmentation
  uint64_t seed = 0;
  uint32_t epoch = 0;
  uint32_t repeat = 0;  // which of the sample's turns in this epoch
};

// What is drawn for: each has numbers of its own, so that one augmentation more changes no other.
enum class Site : uint32_t { crop_flip, resized_crop, policy, jitter, erase, noise, mix, cloud, cloud_order };

inline Draw draw_of(const Occasion& at, Site site) {
  constexpr uint32_t kSites = 16;
  return {at.seed, Stream::augment, at.epoch, uint32_t(site) + kSites * at.repeat};
}

// Those of one augmentation of one sample, one after the other.
class Dice {
 public:
  Dice(const Occasion& at, Site site, int64_t sample)
      : draw_(draw_of(at, site)), next_(uint64_t(sample) << kDrawBits) {}

  double uniform() { return double(draw_.uniform(next_++)); }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  bool chance(double p) { return uniform() < p; }
  int64_t below(int64_t n) { return int64_t(draw_.below(uint32_t(n), next_++)); }
  double sign() { return chance(0.5) ? 1 : -1; }
  double normal() { return draw_.normal(next_++); }
  double beta(double a);  // Beta(a, a)

 private:
  static constexpr int kDrawBits = 24;  // of one sample: enough for the noise of 2000 x 2000 x 3
  double gamma(double a);

  Draw draw_;
  uint64_t next_;
};

}  // namespace tessera
