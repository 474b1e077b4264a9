// Samples that are images: where their pixels lie, and how one becomes the numbers that a model sees.
#pragma once

#include <vector>

#include "data/image.h"
#include "data/samples.h"

namespace tessera {

// In evaluation the middle of an image is seen, this part of its shorter side.
inline constexpr double kEvaluationCrop = 0.875;

class ImageSet : public Samples {
 public:
  // Lies in the set's memory or in `own`, into which it is then decoded. `reduction` may be empty.
  virtual ImageView image(int64_t index, Image& own, const Reduction& reduction) const = 0;

  std::unique_ptr<Preparation> preparation(const PrepareOptions& options) const override;
};

// Images of one size, as bytes.
class MemoryImages : public ImageSet {
 public:
  // `pixels` (count, C, H, W). Error(Exit::data) where they do not fill it.
  MemoryImages(const Shape& shape, std::vector<uint8_t> pixels);

  int64_t count() const override { return int64_t(pixels_.size()) / shape_.count(); }
  Shape shape() const override { return shape_; }
  void add_to(Fingerprint& fingerprint) const override { fingerprint.add<uint8_t>(pixels_); }
  ImageView image(int64_t index, Image& own, const Reduction& reduction) const override;
  ImageView image(int64_t index) const;

  const std::vector<uint8_t>& pixels() const { return pixels_; }

 private:
  Shape shape_;
  std::vector<uint8_t> pixels_;
};

}  // namespace tessera
