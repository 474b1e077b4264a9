#include "models/model.h"

#include <algorithm>
#include <cmath>
#include <map>

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

std::vector<int64_t> parameter_depths(const Model& model) {
  const auto& parameters = model.parameters().parameters();
  std::vector<int64_t> depths;
  std::string block;  // the name of the newest, "blocks.3"
  int64_t depth = 0;
  size_t last = parameters.size();  // the last block's last parameter
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].name;
    if (const size_t at = name.rfind("blocks."); at != std::string::npos) {
      const std::string own = name.substr(0, name.find('.', at + 7));
      if (own != block) ++depth;
      block = own;
      last = i;
    }
    depths.push_back(depth);
  }
  for (size_t i = last + 1; i < depths.size(); ++i) ++depths[i];
  return depths;
}

std::vector<RateRange> layer_rates(const Model& model, double decay) {
  const auto& parameters = model.parameters().parameters();
  const std::vector<int64_t> depths = parameter_depths(model);
  const int64_t top = *std::max_element(depths.begin(), depths.end());
  TESSERA_CHECK_AS(Exit::usage, top > 0, "optim.layer_decay = ", decay, ": a model of architecture ",
                   model.config().architecture, " has no blocks to tell apart; leave it at 1");
  std::map<int64_t, double> begins;  // offset in the flat buffer -> factor
  for (size_t i = 0; i < parameters.size(); ++i)
    if (parameters[i].learned) begins[parameters[i].offset] = std::pow(decay, double(top - depths[i]));
  std::vector<RateRange> rates;
  for (auto at = begins.begin(); at != begins.end(); ++at) {
    const auto next = std::next(at);
    const int64_t end = next == begins.end() ? model.parameters().learned() : next->first;
    if (!rates.empty() && rates.back().factor == at->second)
      rates.back().end = end;
    else
      rates.push_back({end, at->second});
  }
  return rates;
}

std::vector<StackedParameter> stacked_parameters(const Model& model) {
  std::vector<StackedParameter> stacked;
  for (const auto& p : model.parameters().parameters())
    if (p.experts > 1) stacked.push_back({p.offset, p.experts, p.value.count() / p.experts});
  return stacked;
}

}  // namespace tessera
