#include "models/flops.h"

#include <doctest/doctest.h>

#include "models/vit.h"
#include "tests/small_models.h"

namespace tessera {
namespace {

// ViTs of patch 32 at 224 pixels, as in fig. 3a of Mobile V-MoEs (arXiv 2309.04354), counted by hand in
// MFLOPs; the paper's own numbers, which count element-wise work too, lie 0.5 to 2.5 % higher.
TEST_CASE("FLOPs of the sizes of Mobile V-MoEs") {
  struct Size {
    int64_t depth, dim;
    double counted, paper;
  };
  for (const Size& size :
       {Size{12, 384, 2285.8, 2297}, Size{9, 384, 1743.5, 1752}, Size{6, 384, 1201.1, 1207},
        Size{12, 192, 612.1, 618}, Size{9, 192, 473.6, 478}, Size{6, 192, 335.1, 338},
        Size{12, 96, 173.3, 176}, Size{9, 96, 137.3, 140}, Size{6, 96, 101.2, 103}, Size{12, 64, 86.1, 88},
        Size{9, 64, 69.4, 71}, Size{6, 64, 52.7, 54}}) {
    ModelConfig config;
    config.image_size = 224;
    config.patch = 32;
    config.classes = 1000;
    config.mlp_ratio = 4;
    config.depth = size.depth;
    config.dim = size.dim;
    CAPTURE(size.depth);
    CAPTURE(size.dim);
    const double mflops = double(cost(config).forward_flops) / 1e6;
    CHECK(std::abs(mflops - size.counted) <= 0.05001);
    CHECK(mflops < size.paper);
    CHECK(mflops > 0.97 * size.paper);
  }
}

TEST_CASE("parameters are counted as the model has them") {
  for (const bool qkv_bias : {false, true})
    for (const char* blocks : {"none", "every-2", "0,1,2"}) {
      ModelConfig config;
      config.image_size = 12;
      config.channels = 2;
      config.classes = 7;
      config.depth = 3;
      config.dim = 24;
      config.heads = 3;
      config.mlp_ratio = 2.5;
      config.qkv_bias = qkv_bias;
      config.moe.blocks = blocks;
      config.moe.experts = 3;
      int64_t parameters = 0;
      const Vit model(config, 0);
      for (const auto& p : model.parameters().parameters()) parameters += p.value.count();
      CAPTURE(blocks);
      CHECK(cost(config).parameters == parameters);
      CHECK(cost(config).forward_flops == cost(fused_config(config)).forward_flops);
    }
}

TEST_CASE("and so are those of the other architectures") {
  for (const char* blocks : {"none", "every-2", "0,1,3"})
    for (ModelConfig config : testing::small_models(blocks))
      for (const bool qkv_bias : {false, true}) {
        CAPTURE(config.name);
        config.qkv_bias = qkv_bias;
        config.widen = {};
        const ModelCost narrow = cost(config);
        config.widen = {"1", 3};
        const ModelCost expected = cost(config);
        CHECK(expected.forward_flops > narrow.forward_flops);
        CHECK(expected.parameters == make_model(config, std::nullopt)->parameters().parameter_count());
        CHECK(expected.forward_flops == cost(fused_config(config)).forward_flops);
      }
}

TEST_CASE("operations of the largest models can be counted") {
  ModelConfig vit;
  vit.image_size = 16320;
  vit.patch = 64;
  vit.channels = 1024;
  vit.classes = 1 << 20;
  vit.depth = 1024;
  vit.dim = vit.heads = 8192;
  vit.mlp_ratio = 4;
  vit.moe.blocks = "every-1";
  vit.moe.router = MoeRouter::token;
  vit.moe.experts = 1024;
  vit.moe.routing.k = 16;
  ModelConfig cait = vit;
  cait.architecture = "cait";
  cait.heads = 128;
  cait.head_dim = 256;
  vit.stem = {.strides = "1,1", .channels = 1024, .kernel = 31};
  for (const ModelConfig& config : {vit, cait}) {
    CAPTURE(config.architecture);
    validate(config);
    CHECK(training_flops(cost(config)) > int64_t(1) << 62);
  }
}

}  // namespace
}  // namespace tessera
