// What a model makes of a batch, for tests that compare devices and types.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "engine/base/rng.h"
#include "tests/worst.h"
#include "train/config.h"
#include "train/replicas.h"

namespace tessera::testing {

// With experts, dropout and drop-path.
inline ModelConfig drawing_model() {
  RunConfig config;
  apply_settings(config, {{"model.name", "vit_small_image_32"},
                          {"model.dim", "48"},
                          {"model.depth", "3"},
                          {"model.heads", "3"},
                          {"model.drop_path", "0.2"},
                          {"model.dropout", "0.1"},
                          {"model.moe.blocks", "every-2"},
                          {"model.moe.experts", "3"}});
  return config.model;
}

// A batch of normal numbers.
struct SomeBatch {
  std::vector<float> images;
  std::vector<int32_t> labels;

  SomeBatch(const ModelConfig& config, int64_t B) : images(size_t(B * config.input_shape().count())) {
    for (size_t i = 0; i < images.size(); ++i) images[i] = float(Draw{.seed = 2}.normal(i));
    for (int64_t b = 0; b < B; ++b) labels.push_back(int32_t(b * 3 % config.classes));
  }
  BatchView view() const { return {images, labels, int64_t(labels.size())}; }
};

struct ModelStep {
  StepResult result;
  std::vector<float> gradients, logits;

  // Of `turns` times the same step.
  ModelStep(Model& model, const SomeBatch& some, int turns = 1, const std::string& dtype = "f32")
      : logits(some.labels.size() * size_t(model.config().classes)) {
    Replicas replicas(model, {.workers = 1, .dtype = dtype});
    for (int i = 0; i < turns; ++i)
      result = replicas.compute_gradients(some.view(), {.seed = 3, .step = 7}, 0.1);
    gradients = replicas.gradients().values<float>();
    replicas.forward(some.view(), logits.data());
  }
};

// What bf16 may change of a model's results: activations and operands are rounded by 2^-8 of themselves, and
// the errors of a sum's terms partly cancel.
inline void near_in_bf16(const ModelStep& half, const ModelStep& exact) {
  CHECK(half.result.loss != exact.result.loss);
  CHECK(half.result.loss == doctest::Approx(exact.result.loss).epsilon(0.001));
  CHECK(apart(half.logits, exact.logits) <= 0.015);
  CHECK(apart(half.gradients, exact.gradients) <= 0.015);
}

}  // namespace tessera::testing
