// Models by timm's names.
#pragma once

#include <string>
#include <vector>

#include "models/config.h"

namespace tessera {

struct RegisteredModel {
  std::string name, summary;
  ModelConfig config;
};

const std::vector<RegisteredModel>& registered_models();

// An error (usage) naming the nearest name where `name` is not registered.
ModelConfig model_by_name(const std::string& name);

}  // namespace tessera
