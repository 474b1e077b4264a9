// A small model of each architecture, for what all of them must do.
#pragma once

#include <string>
#include <vector>

#include "models/config.h"

namespace tessera::testing {

// For images of 3 channels and 8 x 8 pixels, with experts in the blocks that `moe` names.
inline std::vector<ModelConfig> small_models(const std::string& moe = "none") {
  ModelConfig vit;
  vit.image_size = 8;
  vit.classes = 5;
  vit.depth = 4;
  vit.dim = 12;
  vit.heads = 3;
  vit.moe.blocks = moe;

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
  ModelConfig tokens = small_models("every-2")[0];
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

}  // namespace tessera::testing
