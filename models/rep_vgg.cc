#include "models/rep_vgg.h"

#include <algorithm>

namespace tessera {
namespace {

struct BlockPlan {
  std::string name;
  RepConvOptions options;
};

// All blocks in their order: the stem, then the stages'.
std::vector<BlockPlan> plan(const ModelConfig& c) {
  const std::vector<std::string> branches = split_list(c.branches);
  std::vector<BlockPlan> blocks{{"stem", {c.channels, c.dim, c.patch, branches}}};
  const std::vector<Stage> all = stages(c);
  for (size_t s = 0; s < all.size(); ++s)
    for (int64_t b = 0; b < all[s].depth; ++b)
      blocks.push_back(
          {text("stages.", s, ".", b), {blocks.back().options.out, all[s].dim, b == 0 ? 2 : 1, branches}});
  return blocks;
}

// `side`: of the block's input; out_side: of its output.
ModelCost branch_cost(const std::string& name, const RepConvOptions& o, int64_t side, int64_t out_side) {
  if (name == "identity") return {o.keeps_shape() ? 2 * o.out : 0, 0};
  ModelCost cost = conv_cost(
      {.in = o.in, .out = o.out, .kernel = name == "1x1" ? 1 : 3, .norm = name != kMergedBranch}, out_side);
  if (name == "1x1-3x3") cost += conv_cost({.in = o.in, .out = o.in, .kernel = 1}, side + 2);
  if (name == "1x3" || name == "3x1") cost.parameters -= 6 * o.in * o.out;
  return cost;
}

}  // namespace

RepVgg::RepVgg(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype) : Model(config, dtype) {
  const Scope scope(parameters());
  const std::vector<BlockPlan> blocks = plan(config);
  for (const BlockPlan& block : blocks)
    blocks_.push_back({block.name, RepConv(scope / block.name, block.options)});
  head_ =
      std::make_unique<Linear>(scope / "head" / "fc", blocks.back().options.out, config.classes, config.init);
  parameters().allocate(seed);
}

Tensor RepVgg::forward(const Tensor& images, const Pass& pass) const {
  check_images(images);
  Tensor x = images;
  for (const Block& block : blocks_) x = pass.show(block.name, relu(block.conv.forward(x, pass)));
  const int64_t B = x.size(0), C = x.size(1);
  return pass.show("head", head_->forward(mean(x.reshape({B, C, x.size(2) * x.size(3)}), 2)));
}

int64_t RepVgg::rows() const {
  const int64_t shrinks = config().patch << stages(config()).size(), side = config().image_size / shrinks;
  return std::max<int64_t>(1, side * side);
}

NamedTensors RepVgg::fused_parameters() const {
  NamedTensors parameters{{"head.fc.weight", head_->weight}, {"head.fc.bias", head_->bias}};
  for (const Block& block : blocks_) {
    const MergedConv merged = block.conv.merged();
    parameters[block.name + ".reparam_conv.weight"] = merged.weight;
    parameters[block.name + ".reparam_conv.bias"] = merged.bias;
  }
  return parameters;
}

ModelCost rep_vgg_cost(const ModelConfig& c) {
  const std::vector<BlockPlan> blocks = plan(c);
  ModelCost cost;
  int64_t side = c.image_size;
  for (const auto& [name, o] : blocks) {
    const int64_t out_side = (side - 1) / o.stride + 1;
    for (const std::string& branch : o.branches) cost += branch_cost(branch, o, side, out_side);
    side = out_side;
  }
  const int64_t C = blocks.back().options.out, K = c.classes;
  cost += {C * K + K, 2 * C * K};
  return cost;
}

void check_rep_vgg(const ModelConfig& c) {
  const std::vector<std::string> branches = split_list(c.branches);
  for (const std::string& branch : branches) {
    TESSERA_CHECK_AS(Exit::usage, std::ranges::count(kRepBranches, branch) == 1,
                     "model.branches = ", c.branches, ": '", branch,
                     "' is none; there are 3x3, 1x1, identity, 1x3, 3x1, 1x1-3x3, or merged alone");
    TESSERA_CHECK_AS(Exit::usage, std::ranges::count(branches, branch) == 1, "model.branches = ", c.branches,
                     ": '", branch, "' stands there twice");
    TESSERA_CHECK_AS(Exit::usage, branch != kMergedBranch || branches.size() == 1,
                     "model.branches = ", c.branches, ": ", kMergedBranch, " has no other branch beside it");
  }
  TESSERA_CHECK_AS(Exit::usage, c.branches != "identity",
                   "model.branches = identity: it needs a convolution beside it, such as 3x3");
  TESSERA_CHECK_AS(Exit::usage, !c.is_moe(), "model.moe.blocks = ", c.moe.blocks,
                   ": a model of architecture rep_vgg has no feed-forward layers");
}

}  // namespace tessera
