#include "data/augment/policy.h"

#include "data/augment/affine.h"
#include "data/augment/auto_augment.h"
#include "data/augment/pixel_ops.h"
#include "data/augment/rand_augment.h"
#include "engine/base/check.h"

namespace tessera {

void apply(Image& image, const ImageStep& step, const Surroundings& around) {
  const double argument = step.argument;
  const auto moved = [&](const Affine& from) { image = transform(image, from, around.filter, around.fill); };
  switch (step.op) {
    case ImageOp::auto_contrast:
      return auto_contrast(image);
    case ImageOp::equalize:
      return equalize(image);
    case ImageOp::invert:
      return invert(image);
    case ImageOp::rotate:
      return moved(rotation(argument, image));
    case ImageOp::posterize:
      return posterize(image, int(argument));
    case ImageOp::solarize:
      return solarize(image, argument);
    case ImageOp::solarize_add:
      return solarize_add(image, int(argument));
    case ImageOp::color:
      return color(image, argument);
    case ImageOp::contrast:
      return contrast(image, argument);
    case ImageOp::brightness:
      return brightness(image, argument);
    case ImageOp::sharpness:
      return sharpness(image, argument);
    case ImageOp::shear_x:
      return moved(shear_x(argument));
    case ImageOp::shear_y:
      return moved(shear_y(argument));
    case ImageOp::translate_x:
      return moved(translation_x(argument));
    case ImageOp::translate_y:
      return moved(translation_y(argument));
  }
}

std::unique_ptr<const AugmentPolicy> make_policy(const std::string& name) {
  if (name == "none") return nullptr;
  auto policy = name.rfind("rand-", 0) == 0 ? rand_augment(name) : auto_augment(name);
  TESSERA_CHECK_AS(Exit::usage, policy != nullptr, "augmentation policy '", name,
                   "' is not known; there are none, cifar10, svhn, imagenet, and RandAugment such as "
                   "rand-m9-mstd0.5-inc1");
  return policy;
}

}  // namespace tessera
