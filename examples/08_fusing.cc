// 8. Fusing: train with experts, deploy without.
//
// Averaging keeps the experts close, so at the end each mixture collapses into one feed-forward layer whose
// weights are the mean. What is left is a plain ViT: no more parameters, no more time than without experts.
#include <iostream>

#include "models/fuse.h"
#include "models/registry.h"
#include "models/vit.h"

using namespace tessera;

int main() {
  ModelConfig config = model_by_name("vit_small_image_28");  // for 28 x 28 grey images
  config.depth = 4;
  config.moe.blocks = "every-2";  // experts in blocks 1 and 3
  config.moe.experts = 4;
  Vit model(config, 1);

  Tensor images({8, 1, 28, 28}, DType::f32);
  const Draw draw{.seed = 1};
  for (int64_t i = 0; i < images.count(); ++i)
    images.mutable_data<float>()[i] = float(draw.normal(uint64_t(i)));

  const auto fused = fuse(model);
  std::cout << "parameters: " << model.parameters().parameter_count() << " with experts, "
            << fused->parameters().parameter_count() << " fused\n";

  // These experts were never trained, let alone averaged: their mean is another function.
  const double apart = output_difference(model, *fused, images);
  std::cout << "experts as drawn: logits differ by " << apart << " of the largest\n";

  // With every expert at the mean, the mixture and the fused model are one function, up to rounding.
  set_experts_to_mean(model);
  const double together = output_difference(model, *fused, images);
  std::cout << "experts at their mean: " << together << '\n';
  return apart > 0.01 && together < 1e-5 ? 0 : 1;
}
