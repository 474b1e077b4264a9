// Samples that are images: where their pixels lie, and how one becomes the numbers that a model sees.
#pragma once

#include <vector>

#include "data/image.h"
#include "data/samples.h"

namespace tessera {

// An image of a set, in memory while the set is, or while the Image is that it was decoded into.
struct ImageView {
  int64_t channels, height, width;
  const uint8_t* pixels;  // (C, H, W)
};

class ImageSet : public Samples {
 public:
  // `own` is filled where the pixels do not lie in memory.
  virtual ImageView image(int64_t index, Image& own) const = 0;

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
  ImageView image(int64_t index, Image& own) const override;
  ImageView image(int64_t index) const;

  const std::vector<uint8_t>& pixels() const { return pixels_; }

 private:
  Shape shape_;
  std::vector<uint8_t> pixels_;
};

}  // namespace tessera
