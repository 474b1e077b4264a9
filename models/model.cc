#include "models/model.h"

#include "models/registry.h"

namespace tessera {

Model::Model(const ModelConfig& config, DType dtype) : config_(config), parameters_(dtype) {
  validate(config);
}

void Model::check_images(const Tensor& images) const {
  Dims dim(config_.architecture.c_str());
  dim(images, "images(B,C,H,W)");
  TESSERA_CHECK(
      dim['C'] == config_.channels && dim['H'] == config_.image_size && dim['W'] == config_.image_size,
      config_.architecture, ": images", images.shape(), " for a model of ", config_.channels,
      " channels and ", config_.image_size, " x ", config_.image_size, " pixels");
}

std::unique_ptr<Model> make_model(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype) {
  return architecture_by_name(config.architecture).make(config, seed, dtype);
}

std::vector<StackedParameter> stacked_parameters(const Model& model) {
  std::vector<StackedParameter> stacked;
  for (const auto& p : model.parameters().parameters())
    if (p.experts > 1) stacked.push_back({p.offset, p.experts, p.value.count() / p.experts});
  return stacked;
}

}  // namespace tessera
