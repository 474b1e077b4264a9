#include "data/image_set.h"

#include <algorithm>
#include <cmath>

#include "data/augment/jitter.h"
#include "data/augment/policy.h"
#include "data/augment/resized_crop.h"
#include "engine/base/check.h"

namespace tessera {
namespace {

class ImagePreparation : public Preparation {
 public:
  ImagePreparation(const ImageSet& images, const PrepareOptions& options);

  Shape shape() const override { return shape_; }
  void prepare(int64_t index, const Occasion& at, std::span<float> out) const override;

 private:
  ImageView at_size(int64_t index, const Occasion& at, Image& own) const;
  Window window(int64_t index, const Occasion& at, int64_t height, int64_t width) const;

  const ImageSet& images_;
  const AugmentOptions augment_;
  const std::unique_ptr<const AugmentPolicy> policy_;
  const Normalizer normalizer_;
  Shape shape_;
  Surroundings around_;
};

ImagePreparation::ImagePreparation(const ImageSet& images, const PrepareOptions& options)
    : images_(images),
      augment_(options.augment),
      policy_(make_policy(augment_.policy)),
      normalizer_(images.shape()[0], options.normalization),
      shape_(options.shape.rank() == 0 ? images.shape() : options.shape) {
  const Shape own = images.shape();
  bool fits = shape_.rank() == own.rank() && shape_.count() > 0;
  for (int axis = 0; fits && axis < own.rank(); ++axis) fits = own[axis] == 0 || own[axis] == shape_[axis];
  TESSERA_CHECK_AS(Exit::usage, fits, "images ", own, ", but the model takes ", shape_);
  TESSERA_CHECK_AS(Exit::usage, augment_.padding >= 0, "crop padding ", augment_.padding,
                   ", expected 0 or more");
  around_.filter = augment_.filter;
  for (const float mean : options.normalization.mean)
    around_.fill.push_back(uint8_t(std::lround(std::clamp(mean, 0.0f, 1.0f) * 255)));
}

// What of an image of this size is seen. One of the model's size is taken as it is.
Window ImagePreparation::window(int64_t index, const Occasion& at, int64_t height, int64_t width) const {
  const int64_t H = shape_[1], W = shape_[2];
  if (at.training && augment_.resized_crop)
    return draw_resized_crop(augment_.least_area, Dice(at, Site::resized_crop, index), height, width);
  if (height == H && width == W) return {0, 0, double(H), double(W)};
  return centre_window(height, width, H, W, at.training ? 1 : kEvaluationCrop);
}

ImageView ImagePreparation::at_size(int64_t index, const Occasion& at, Image& own) const {
  const int64_t H = shape_[1], W = shape_[2];
  Window seen;
  double height = 0, width = 0;
  Image decoded;
  const ImageView image = images_.image(index, decoded, [&](int64_t h, int64_t w) {
    height = double(h), width = double(w);
    seen = window(index, at, h, w);
    int64_t factor = 8;
    while (factor > 1 && (seen.height < double(H * factor) || seen.width < double(W * factor))) factor /= 2;
    return factor;
  });
  if (image.height == H && image.width == W && seen.height == height && seen.width == width) {
    own = std::move(decoded);  // its memory stays where it is
    return image;
  }
  const double down = double(image.height) / height, right = double(image.width) / width;
  own = resize(image, {seen.top * down, seen.left * right, seen.height * down, seen.width * right}, H, W,
               augment_.filter);
  return own.view();
}

void ImagePreparation::prepare(int64_t index, const Occasion& at, std::span<float> out) const {
  Image own;
  const ImageView image = at_size(index, at, own);
  if (!at.training) return normalizer_.apply(image, {}, out.data());

  const CropFlip move = draw_crop_flip(augment_.padding, augment_.flip, at, index);
  if (policy_ || augment_.jitter > 0) {
    Image changed = crop_flip(image, move);
    if (policy_) {
      Dice dice(at, Site::policy, index);
      for (const ImageStep& step : policy_->draw(dice, shape_[1], shape_[2])) apply(changed, step, around_);
    }
    if (augment_.jitter > 0)
      for (const ImageStep& step : draw_jitter(augment_.jitter, Dice(at, Site::jitter, index)))
        apply(changed, step, around_);
    normalizer_.apply(changed.view(), {}, out.data());
  } else {
    normalizer_.apply(image, move, out.data());
  }
  const Rectangle erased = draw_erased(augment_.erase, Dice(at, Site::erase, index), shape_[1], shape_[2]);
  erase(out, shape_, erased, augment_.erase.mode, Dice(at, Site::noise, index));
}

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

ImageView MemoryImages::image(int64_t index, Image&, const Reduction& reduction) const {
  if (reduction) reduction(shape_[1], shape_[2]);
  return image(index);
}

}  // namespace tessera
