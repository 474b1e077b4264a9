// What every model is to training, files and the program. An architecture is one file in models/ that derives
// from this, and a line of models/registry.cc.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/config.h"
#include "nn/module.h"
#include "optim/experts_averaging.h"

namespace tessera {

class Model {
 public:
  virtual ~Model() = default;

  // images(B,C,H,W) to logits(B,K)
  virtual Tensor forward(const Tensor& images, const Pass& pass) const = 0;

  const ModelConfig& config() const { return config_; }
  ParameterStore& parameters() { return parameters_; }
  const ParameterStore& parameters() const { return parameters_; }

 protected:
  // Validates the configuration. The derived constructor declares parameters and then allocates the store.
  Model(const ModelConfig& config, DType dtype);
  // Images of another shape than the model's are an error.
  void check_images(const Tensor& images) const;

 private:
  ModelConfig config_;
  ParameterStore parameters_;
};

// Builds the model that the configuration describes and draws its first weights from `seed`; without one they
// are 0, to be loaded.
std::unique_ptr<Model> make_model(const ModelConfig& config, std::optional<uint64_t> seed,
                                  DType dtype = DType::f32);

// Where the experts lie in a model's flat buffer; empty for a dense one.
std::vector<StackedParameter> stacked_parameters(const Model& model);

}  // namespace tessera
