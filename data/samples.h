// What the loader asks of a set, whatever its samples are and wherever they lie: a new kind of sample is a
// class that derives from Samples, and one that derives from Preparation.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "data/augment/options.h"
#include "data/fingerprint.h"
#include "data/normalize.h"
#include "engine/base/shape.h"

namespace tessera {

// Of point clouds, in training: each axis times a number from 1/scale to scale, and moved by at most `shift`.
struct CloudAugment {
  double scale = 1, shift = 0;
};

// How samples are made ready. Each kind of sample reads what concerns it.
struct PrepareOptions {
  Shape shape = {};                  // of what the model takes for one sample; empty: as the samples are
  Normalization normalization = {};  // images
  AugmentOptions augment = {};       // images, in training
  CloudAugment cloud = {};           // point clouds, in training
};

// Makes samples ready in one way. Several threads call it at a time.
class Preparation {
 public:
  virtual ~Preparation() = default;

  virtual Shape shape() const = 0;  // of one sample
  // Writes sample `index` as the model sees it, shape().count() numbers.
  virtual void prepare(int64_t index, const Occasion& occasion, std::span<float> out) const = 0;
};

class Samples {
 public:
  virtual ~Samples() = default;

  virtual int64_t count() const = 0;
  // Of one sample; a size of 0 follows the model.
  virtual Shape shape() const = 0;
  virtual void add_to(Fingerprint& fingerprint) const = 0;
  // It must not outlive these samples. Error(Exit::usage) for options that do not fit them.
  virtual std::unique_ptr<Preparation> preparation(const PrepareOptions& options) const = 0;
};

}  // namespace tessera
