// What every model is to training, files and the program. An architecture is one file in models/ that derives
// from this, and a line of models/registry.cc.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/config.h"
#include "nn/module.h"
#include "optim/experts_averaging.h"
#include "optim/optimizer.h"

namespace tessera {

class Model {
 public:
  virtual ~Model() = default;

  // images(B,C,H,W), or samples of another input_shape(), to logits(B,K)
  virtual Tensor forward(const Tensor& images, const Pass& pass) const = 0;
  // Of one sample.
  Shape input_shape() const { return config_.input_shape(); }
  // Rows of one sample that the wide products have: micro-batches are sized by them.
  virtual int64_t rows() const { return config_.tokens(); }
  // Whether training needs the whole batch in one piece: for batch statistics.
  virtual bool whole_batch() const { return false; }
  // The weights of this model's fused form (fused_config) by name: a mixture's are the mean of its experts. A
  // model that training builds of more than inference needs, such as batch norms, overrides this.
  virtual NamedTensors fused_parameters() const;

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

// Each parameter's depth, in order of declaration: 0 before the first block, n in the n-th, and one more than
// there are blocks after the last. What stands between two blocks counts to the former; class attention
// counts to the head.
std::vector<int64_t> parameter_depths(const Model& model);

// Layer-wise learning rates (BEiT, arXiv 2106.08254): decay^(top - depth) for a parameter of that depth, in
// the order of the flat buffer.
std::vector<RateRange> layer_rates(const Model& model, double decay);

// What an optimizer's step takes.
template <class T>
FlatParameters<T> flat_parameters(Model& model, const Tensor& gradients) {
  ParameterStore& store = model.parameters();
  return {store.flat().mutable_data<T>(), gradients.data<T>(), store.learned(), store.decayed()};
}

}  // namespace tessera
