#include "models/patch_embed.h"

#include "nn/reparam.h"

namespace tessera {
namespace {

// The convolutions before the projection, in order.
std::vector<ConvOptions> stem_convs(const ModelConfig& c) {
  std::vector<ConvOptions> convs;
  for (const int64_t stride : stem_strides(c.stem)) {
    const int64_t in = convs.empty() ? c.channels : c.stem.channels;
    const int64_t kernel = convs.empty() ? c.stem.kernel : 3;
    convs.push_back({.in = in,
                     .out = c.stem.channels,
                     .kernel = kernel,
                     .stride = stride,
                     .padding = kernel / 2,
                     .norm = c.stem.batch_norm});
  }
  return convs;
}

// The projection of what the convolutions leave of a patch.
ConvOptions projection(const ModelConfig& c) {
  const bool first = stem_strides(c.stem).empty();
  const int64_t in = first ? c.channels : c.stem.channels, side = stem_patch(c);
  return {.in = in,
          .out = c.dim,
          .kernel = side,
          .stride = side,
          .init = linear_init(c.init, in * side * side, c.dim),
          .norm = first && c.stem.batch_norm};
}

std::vector<ConvNorm> make_convs(const Scope& scope, const ModelConfig& config) {
  std::vector<ConvNorm> convs;
  for (const ConvOptions& options : stem_convs(config)) {
    const size_t place = 3 * convs.size();  // a convolution, its batch norm, its ReLU
    convs.emplace_back(scope / std::to_string(place), scope / std::to_string(place + 1), options);
  }
  return convs;
}

}  // namespace

PatchEmbed::PatchEmbed(const Scope& scope, const ModelConfig& config)
    : convs_(make_convs(scope / "conv", config)),
      proj_(scope / "proj", scope / "norm", projection(config)),
      relu_(config.stem.relu) {}

Tensor PatchEmbed::forward(const Tensor& images, const Pass& pass) const {
  Tensor x = images;
  for (const ConvNorm& conv : convs_) x = pass.show(conv.name, activate(conv.forward(x, pass)));
  if (proj_.norm) {
    x = patches(proj_.forward(x, pass), 1);
  } else {  // one product
    const int64_t D = proj_.weight.size(0), side = proj_.stride;
    x = linear(patches(x, side), proj_.weight.reshape({D, proj_.weight.count() / D}), proj_.bias);
  }
  return pass.show("patch_embed", convs_.empty() ? activate(x) : x);
}

void PatchEmbed::fold_norms(NamedTensors& parameters) const {
  for (const ConvNorm& conv : convs_) fold_among(parameters, conv);
  fold_among(parameters, proj_);
}

ModelCost patch_embed_cost(const ModelConfig& config) {
  std::vector<ConvOptions> convs = stem_convs(config);
  convs.push_back(projection(config));
  ModelCost cost;
  int64_t side = config.image_size;
  for (const ConvOptions& conv : convs) {
    side /= conv.stride;
    cost += conv_cost(conv, side);
  }
  return cost;
}

}  // namespace tessera
