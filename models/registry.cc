#include "models/registry.h"

#include "engine/base/nearest_name.h"
#include "engine/io/printable.h"
#include "models/cait.h"
#include "models/mobile_vmoe.h"
#include "models/pit.h"
#include "models/point_transformer.h"
#include "models/rep_vgg.h"
#include "models/swin.h"
#include "models/t2t.h"
#include "models/vit.h"

namespace tessera {
namespace {

template <class M>
std::unique_ptr<Model> make(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype) {
  return std::make_unique<M>(config, seed, dtype);
}

const std::vector<Architecture>& architectures() {
  static const std::vector<Architecture> list{
      {.name = "vit", .make = make<Vit>, .cost = vit_cost, .distilled = true, .stem = true},
      {.name = "pit", .make = make<Pit>, .cost = pit_cost, .stages = true},
      {.name = "swin",
       .make = make<Swin>,
       .cost = swin_cost,
       .stages = true,
       .windows = true,
       .check = check_swin},
      {.name = "cait", .make = make<Cait>, .cost = cait_cost, .head_dim = true, .check = check_cait},
      {.name = "t2t", .make = make<T2t>, .cost = t2t_cost, .check = check_t2t},
      {.name = "rep_vgg",
       .make = make<RepVgg>,
       .cost = rep_vgg_cost,
       .stages = true,
       .branches = true,
       .attention = false,
       .check = check_rep_vgg},
      {.name = "point_transformer",
       .make = make<PointTransformer>,
       .cost = point_transformer_cost,
       .points = true,
       .check = check_points},
      {.name = "mobile_vmoe",
       .make = make<MobileVmoe>,
       .cost = mobile_vmoe_cost,
       .image_router = true,
       .check = check_mobile_vmoe},
  };
  return list;
}

// The entry of this name; `what` is what it is called.
template <class T>
const T& by_name(const std::vector<T>& entries, const std::string& name, const char* what,
                 const char* advice) {
  std::vector<std::string> names;
  for (const T& entry : entries) {
    if (entry.name == name) return entry;
    names.push_back(entry.name);
  }
  fail(Exit::usage, what, " ", printable(name), " is not known; did you mean '", nearest_name(name, names),
       "'?", advice);
}

// ViT and DeiT at 224 pixels: patch 16, depth 12, MLP ratio 4 (Dosovitskiy et al., 2021; Touvron et al.,
// 2021).
RegisteredModel at_224(const std::string& name, const std::string& summary, int64_t dim, int64_t heads,
                       double drop_path, bool distilled = false) {
  ModelConfig c;
  c.name = name;
  c.image_size = 224;
  c.classes = 1000;
  c.patch = 16;
  c.depth = 12;
  c.dim = dim;
  c.heads = heads;
  c.mlp_ratio = 4;
  c.drop_path = drop_path;
  c.distilled = distilled;
  return {name, summary, c};
}

// The ViT of "Vision Transformer for Small-Size Datasets" (arXiv 2112.13492), and what is common to that
// paper's others: 8 x 8 patches (7 x 7 at 28 pixels), depth 9, dim 192, 12 heads, MLP ratio 2, no qkv bias,
// Xavier weights, constant stochastic depth.
RegisteredModel small_image(const std::string& name, const std::string& summary, int64_t size,
                            int64_t channels, int64_t classes) {
  ModelConfig c;
  c.name = name;
  c.image_size = size;
  c.channels = channels;
  c.classes = classes;
  c.patch = size > 32 ? 8 : 4;
  c.qkv_bias = false;
  c.init = WeightInit::xavier;
  c.drop_path = 0.1;
  c.drop_path_linear = false;
  return {name, summary, c};
}

// That paper's PiT: 16 x 16 patches, three stages.
RegisteredModel pit_small_image(const std::string& name, const std::string& summary, int64_t size,
                                int64_t classes) {
  RegisteredModel model = small_image(name, summary, size, 3, classes);
  ModelConfig& c = model.config;
  c.architecture = "pit";
  c.patch /= 2;
  c.depth = c.heads = 0;
  c.dim = 96;
  c.depths = "2,6,4";
  c.stage_heads = "2,4,8";
  return model;
}

// That paper's T2T-ViT: 8 x 8 patches by soft splits; weights and stochastic depth start as timm's.
RegisteredModel t2t_small_image(const std::string& name, const std::string& summary, int64_t size,
                                int64_t classes) {
  RegisteredModel model = small_image(name, summary, size, 3, classes);
  ModelConfig& c = model.config;
  c.architecture = "t2t";
  c.depth = 12;
  c.dim = 256;
  c.heads = 4;
  c.init = WeightInit::trunc_normal;
  c.drop_path_linear = true;
  return model;
}

// That paper's Swin: 16 x 16 patches, windows of 4 x 4. Weights start as timm's; its code leaves them to
// PyTorch.
RegisteredModel swin_small_image(const std::string& name, const std::string& summary, int64_t size,
                                 int64_t classes) {
  ModelConfig c;
  c.name = name;
  c.architecture = "swin";
  c.image_size = size;
  c.classes = classes;
  c.patch = size / 16;
  c.depth = 0;
  c.dim = 96;
  c.heads = 0;
  c.depths = "2,6,4";
  c.stage_heads = "3,6,12";
  c.window = 4;
  c.drop_path = 0.1;
  return {name, summary, c};
}

// That paper's CaiT: 8 x 8 patches, 24 blocks and 2 class blocks, 4 heads of 64 channels.
RegisteredModel cait_small_image(const std::string& name, const std::string& summary, int64_t size,
                                 int64_t classes) {
  RegisteredModel model = small_image(name, summary, size, 3, classes);
  ModelConfig& c = model.config;
  c.architecture = "cait";
  c.patch = size / 8;
  c.depth = 24;
  c.heads = 4;
  c.head_dim = 64;
  return model;
}

// CaiT-XXS24 at 224 pixels (Touvron et al., 2021).
RegisteredModel cait_xxs24(const std::string& name, const std::string& summary) {
  RegisteredModel model = at_224(name, summary, 192, 4, 0.05);
  model.config.architecture = "cait";
  model.config.depth = 24;
  model.config.drop_path_linear = false;
  return model;
}

// The convolutional stem of "Scaled ReLU Matters" (arXiv 2109.03810): 3Conv+3BN+3ReLU+1Proj.
RegisteredModel with_conv_stem(RegisteredModel model, const std::string& name, int64_t first_kernel) {
  model.name = model.config.name = name;
  model.summary += ", convolutional stem";
  model.config.stem = {
      .strides = "2,1,1", .channels = 64, .kernel = first_kernel, .batch_norm = true, .relu = true};
  return model;
}

RegisteredModel rep_vgg(const std::string& name, const std::string& summary, int64_t size, int64_t channels,
                        int64_t classes) {
  ModelConfig c;
  c.name = name;
  c.architecture = "rep_vgg";
  c.image_size = size;
  c.channels = channels;
  c.classes = classes;
  c.patch = 1;
  c.depth = c.heads = 0;
  c.depths = "2,3,2";
  c.dim = 64;
  c.branches = "3x3,1x1,identity";
  return {name, summary, c};
}

// The classifier of Point-BERT and Point-MAE (Yu et al., 2022; Pang et al., 2022) as on ModelNet40.
RegisteredModel point_cloud(const std::string& name, const std::string& summary) {
  ModelConfig c;
  c.name = name;
  c.architecture = "point_transformer";
  c.image_size = c.patch = 1;  // of no meaning here; the channels are a point's coordinates
  c.classes = 40;
  c.depth = 12;
  c.dim = 384;
  c.heads = 6;
  c.mlp_ratio = 4;
  c.qkv_bias = false;
  c.drop_path = 0.1;
  c.points.count = 1024;
  return {name, summary, c};
}

// Of our own size, for two cores.
RegisteredModel small_point_cloud(const std::string& name, const std::string& summary) {
  RegisteredModel model = point_cloud(name, summary);
  ModelConfig& c = model.config;
  c.classes = 10;
  c.depth = 4;
  c.dim = 64;
  c.heads = 4;
  c.points = {.count = 512, .groups = 32, .group_size = 16, .width = 64, .head_dropout = 0.2};
  return model;
}

// A ViT with a Mobile V-MoE's experts in the last two layers (arXiv 2309.04354): E = 10 at 224 pixels.
RegisteredModel mobile(RegisteredModel model, const std::string& name, const std::string& summary) {
  model.name = model.config.name = name;
  model.summary = summary;
  model.config.architecture = "mobile_vmoe";
  model.config.moe.blocks = "final-2";
  model.config.moe.experts = 10;
  model.config.moe.router = MoeRouter::image;
  return model;
}

}  // namespace

const std::vector<RegisteredModel>& registered_models() {
  static const std::vector<RegisteredModel> models{
      at_224("vit_tiny_patch16_224", "ViT-Ti/16", 192, 3, 0),
      at_224("vit_small_patch16_224", "ViT-S/16", 384, 6, 0),
      at_224("vit_base_patch16_224", "ViT-B/16", 768, 12, 0),
      at_224("deit_tiny_patch16_224", "DeiT-Ti/16, stochastic depth 0.1", 192, 3, 0.1),
      at_224("deit_small_patch16_224", "DeiT-S/16, stochastic depth 0.1", 384, 6, 0.1),
      at_224("deit_base_patch16_224", "DeiT-B/16, stochastic depth 0.1", 768, 12, 0.1),
      at_224("deit_tiny_distilled_patch16_224", "DeiT-Ti/16 with a distillation token", 192, 3, 0.1, true),
      at_224("deit_small_distilled_patch16_224", "DeiT-S/16 with a distillation token", 384, 6, 0.1, true),
      at_224("deit_base_distilled_patch16_224", "DeiT-B/16 with a distillation token", 768, 12, 0.1, true),
      small_image("vit_small_image_32", "ViT for 32 x 32 RGB images (CIFAR)", 32, 3, 100),
      mobile(at_224("", "", 192, 3, 0.1), "mobile_vmoe_tiny_patch16_224", "Mobile V-MoE of DeiT-Ti/16"),
      mobile(small_image("", "", 32, 3, 100), "mobile_vmoe_small_image_32", "Mobile V-MoE for CIFAR"),
      small_image("vit_small_image_28", "ViT for 28 x 28 grey images (MNIST family)", 28, 1, 10),
      small_image("vit_small_image_64", "ViT for 64 x 64 RGB images (Tiny-ImageNet)", 64, 3, 200),
      pit_small_image("pit_small_image_32", "PiT for 32 x 32 RGB images (CIFAR)", 32, 100),
      pit_small_image("pit_small_image_64", "PiT for 64 x 64 RGB images (Tiny-ImageNet)", 64, 200),
      t2t_small_image("t2t_small_image_32", "T2T-ViT for 32 x 32 RGB images (CIFAR)", 32, 100),
      t2t_small_image("t2t_small_image_64", "T2T-ViT for 64 x 64 RGB images (Tiny-ImageNet)", 64, 200),
      swin_small_image("swin_small_image_32", "Swin for 32 x 32 RGB images (CIFAR)", 32, 100),
      swin_small_image("swin_small_image_64", "Swin for 64 x 64 RGB images (Tiny-ImageNet)", 64, 200),
      cait_small_image("cait_small_image_32", "CaiT for 32 x 32 RGB images (CIFAR)", 32, 100),
      cait_small_image("cait_small_image_64", "CaiT for 64 x 64 RGB images (Tiny-ImageNet)", 64, 200),
      cait_xxs24("cait_xxs24_224", "CaiT-XXS24, stochastic depth 0.05"),
      with_conv_stem(at_224("", "DeiT-Ti/16", 192, 3, 0.1), "deit_tiny_conv_stem_224", 7),
      with_conv_stem(at_224("", "DeiT-S/16", 384, 6, 0.1), "deit_small_conv_stem_224", 7),
      with_conv_stem(at_224("", "DeiT-B/16", 768, 12, 0.1), "deit_base_conv_stem_224", 7),
      with_conv_stem(small_image("", "ViT for 32 x 32 RGB images", 32, 3, 100),
                     "vit_conv_stem_small_image_32", 3),
      with_conv_stem(small_image("", "ViT for 28 x 28 grey images", 28, 1, 10),
                     "vit_conv_stem_small_image_28", 3),
      with_conv_stem(small_image("", "ViT for 64 x 64 RGB images", 64, 3, 200),
                     "vit_conv_stem_small_image_64", 3),
      rep_vgg("rep_vgg_small_image_32", "RepVGG for 32 x 32 RGB images", 32, 3, 100),
      rep_vgg("rep_vgg_small_image_28", "RepVGG for 28 x 28 grey images", 28, 1, 10),
      point_cloud("point_transformer", "point-cloud transformer (ModelNet40)"),
      small_point_cloud("point_transformer_small", "point-cloud transformer for a CPU (ModelNet10)"),
  };
  return models;
}

const Architecture& architecture_by_name(const std::string& name) {
  return by_name(architectures(), name, "model.architecture", "");
}

ModelConfig model_by_name(const std::string& name) {
  return by_name(registered_models(), name, "model", " `tessera list models` shows all").config;
}

}  // namespace tessera
