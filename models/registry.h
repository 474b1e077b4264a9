// Architectures, and models by timm's names.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/flops.h"
#include "models/model.h"

namespace tessera {

struct Architecture {
  std::string name;
  std::unique_ptr<Model> (*make)(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype);
  ModelCost (*cost)(const ModelConfig& config);
  bool stages = false;        // has stages, each with a depth and a width: model.depths
  bool points = false;        // takes point clouds: model.points
  bool distilled = false;     // can have a distillation token
  bool head_dim = false;      // can have heads of another size than dim / heads: model.head_dim
  bool windows = false;       // attends in windows: model.window
  bool stem = false;          // takes model.stem
  bool branches = false;      // has convolutions of branches: model.branches
  bool attention = true;      // with heads, which stages have their own numbers of
  bool image_router = false;  // has a router of images, and none of another kind
  // Rules of its own on a configuration that keeps the common ones; throws (usage).
  void (*check)(const ModelConfig& config) = nullptr;
};

// Each is an error (usage) naming the nearest name where there is none of this name.
const Architecture& architecture_by_name(const std::string& name);

struct RegisteredModel {
  std::string name, summary;
  ModelConfig config;
};

const std::vector<RegisteredModel>& registered_models();

ModelConfig model_by_name(const std::string& name);

}  // namespace tessera
