// Small models of every architecture, weights and images for them.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "models/model.h"
#include "tests/random_inputs.h"

namespace tessera::testing {

// For images of 3 channels and 8 x 8 pixels, with experts in the blocks that `moe` names.
inline ModelConfig small_vit(const std::string& moe = "none") {
  ModelConfig c;
  c.name = "small_vit";
  c.image_size = 8;
  c.classes = 5;
  c.depth = 4;
  c.dim = 12;
  c.heads = 3;
  c.moe.blocks = moe;
  return c;
}

// One of each architecture, for what all of them must do.
inline std::vector<ModelConfig> small_models(const std::string& moe = "none") {
  const ModelConfig vit = small_vit(moe);

  ModelConfig swin = vit;
  swin.architecture = "swin";
  swin.patch = 1;
  swin.depth = swin.heads = 0;
  swin.depths = "2,2,1";
  swin.stage_heads = "2,3,4";
  swin.window = 2;

  ModelConfig pit = swin;
  pit.architecture = "pit";
  pit.window = 0;
  pit.init = WeightInit::xavier;

  ModelConfig t2t = vit;
  t2t.architecture = "t2t";
  t2t.patch = 4;
  t2t.dim = 24;

  ModelConfig cait = vit;
  cait.architecture = "cait";
  cait.patch = 2;
  cait.head_dim = 5;

  std::vector<ModelConfig> models{vit, swin, cait, pit, t2t};
  for (ModelConfig& c : models) c.name = "small_" + c.architecture;
  return models;
}

// With routers of tokens and of images.
inline std::vector<ModelConfig> routed_models() {
  ModelConfig tokens = small_vit("every-2");
  tokens.moe.router = MoeRouter::token;
  tokens.moe.experts = 3;
  tokens.moe.routing.k = 2;
  ModelConfig images = tokens;
  images.architecture = "mobile_vmoe";
  images.name = "small_mobile_vmoe";
  images.moe.blocks = "final-2";
  images.moe.router = MoeRouter::image;
  images.moe.groups = "0,1,2,0,1";
  return {tokens, images};
}

inline Tensor random_images(int64_t B, const ModelConfig& c, DType dtype = DType::f32) {
  return normal({B, c.channels, c.image_size, c.image_size}, Draw{.seed = 2}, dtype);
}

// Fills every parameter at random, so that biases and norms count too.
inline void scramble(Model& model) {
  for (const auto& p : model.parameters().parameters()) {
    Tensor value = p.value;
    const Tensor drawn = normal(value.shape(), Draw{.seed = 4, .site = uint32_t(p.offset)});
    for_float("scramble", value.dtype(), [&]<class T>() {
      for (int64_t i = 0; i < value.count(); ++i)
        value.mutable_data<T>()[i] = T((p.name.ends_with("norm.weight") ? 1 : 0) + 0.3 * drawn.at(i));
    });
  }
}

inline std::set<std::string> names_and_shapes(const Model& model) {
  std::set<std::string> all;
  for (const auto& p : model.parameters().parameters()) all.insert(text(p.name, p.value.shape()));
  return all;
}

}  // namespace tessera::testing
