#include "data/image_set.h"

#include "engine/base/check.h"

namespace tessera {
namespace {

class ImagePreparation : public Preparation {
 public:
  ImagePreparation(const ImageSet& images, const PrepareOptions& options)
      : images_(images),
        shape_(images.shape()),
        augment_(options.augment),
        normalizer_(shape_[0], shape_[1], shape_[2], options.normalization) {
    TESSERA_CHECK_AS(Exit::usage, options.shape.rank() == 0 || options.shape == shape_, "images ", shape_,
                     ", but the model takes ", options.shape);
    TESSERA_CHECK_AS(Exit::usage, augment_.padding >= 0, "crop padding ", augment_.padding,
                     ", expected 0 or more");
  }

  Shape shape() const override { return shape_; }

  void prepare(int64_t index, const Occasion& at, std::span<float> out) const override {
    Image own;
    const ImageView image = images_.image(index, own);
    const CropFlip move = at.training ? draw_crop_flip(augment_, at.seed, at.epoch, index) : CropFlip{};
    normalizer_.apply(image.pixels, move, out.data());
  }

 private:
  const ImageSet& images_;
  const Shape shape_;
  const AugmentOptions augment_;
  const Normalizer normalizer_;
};

}  // namespace

std::unique_ptr<Preparation> ImageSet::preparation(const PrepareOptions& options) const {
  return std::make_unique<ImagePreparation>(*this, options);
}

MemoryImages::MemoryImages(const Shape& shape, std::vector<uint8_t> pixels)
    : shape_(shape), pixels_(std::move(pixels)) {
  TESSERA_CHECK_AS(Exit::data, shape.count() > 0 && int64_t(pixels_.size()) % shape.count() == 0, "images ",
                   shape, ": ", pixels_.size(), " bytes of pixels are no whole number of them");
}

ImageView MemoryImages::image(int64_t index) const {
  return {shape_[0], shape_[1], shape_[2], pixels_.data() + index * shape_.count()};
}

ImageView MemoryImages::image(int64_t index, Image&) const { return image(index); }

}  // namespace tessera
