// RepVGG (Ding et al., 2021, arXiv 2101.03697), with timm's names: stages of 3 x 3 convolutions, each trained
// as a sum of branches with a ReLU after it (nn/rep_conv.h), of which every stage's first halves the image
// and the width doubles from one to the next; then the mean over the pixels and a linear head. Fused it is a
// plain VGG: a 3 x 3 convolution with a bias and a ReLU, block after block.
//
// config.branches names the branches, config.patch is the stride of the stem, the block before the stages.
// The paper's models are made for 224 pixels; depths and widths for small images are our choice.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/flops.h"
#include "models/model.h"
#include "nn/rep_conv.h"

namespace tessera {

class RepVgg : public Model {
 public:
  RepVgg(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype = DType::f32);

  Tensor forward(const Tensor& images, const Pass& pass) const override;
  bool whole_batch() const override { return config().branches != kMergedBranch; }
  int64_t rows() const override;  // pixels that the last stage sees
  NamedTensors fused_parameters() const override;

 private:
  struct Block {
    std::string name;
    RepConv conv;
  };

  std::vector<Block> blocks_;  // the stem is the first
  std::unique_ptr<Linear> head_;
};

// The sum over all branches; a strip costs what the 3 x 3 kernel does as which it is computed.
ModelCost rep_vgg_cost(const ModelConfig& config);
void check_rep_vgg(const ModelConfig& config);

}  // namespace tessera
