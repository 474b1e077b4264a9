// What a model is: everything that its file and its run must remember to build it again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/fields.h"
#include "nn/layers.h"
#include "nn/moe/experts.h"
#include "nn/moe/random_partition.h"
#include "nn/moe/router.h"

namespace tessera {

// What sends rows to experts: chance (EWA), a router of each layer for each token (V-MoE, naive MoE), or one
// router of the model for each image (Mobile V-MoE).
enum class MoeRouter { random, token, image };

// Feed-forward layers replaced by experts. No blocks: a dense model.
struct MoeConfig {
  std::string blocks = "none";  // none | every-n | last-n | final-n | a list such as 1,3,5
  int64_t experts = 4;
  ExpertInit init = ExpertInit::independent;
  MoeRouter router = MoeRouter::random;
  PartitionScope partition = PartitionScope::batch;  // of the router random
  RouterOptions routing;                             // of the others
  // What teaches the router of images: none (it learns end to end), coarse, random, or a file; see
  // train/superclass.h. Training writes what it finds there to `groups`: the super-class of each class, a
  // list such as 0,2,1.
  std::string superclasses = "none";
  std::string groups;
};

// MLPs that are wider than the model's others, such as those of the dense models that Mobile V-MoE is
// compared with (fig. 3d).
struct WidenConfig {
  std::string blocks = "none";  // as in MoeConfig
  int64_t times = 1;
};

// Of a model of point clouds; see models/point_transformer.h.
struct PointsConfig {
  int64_t count = 0;    // points of a cloud; 0: a model of images
  int64_t groups = 64;  // tokens, each of the points around a centre
  int64_t group_size = 32;
  int64_t width = 256;        // of a group's feature, and of the head's hidden layers
  double head_dropout = 0.5;  // in the head
};

// Blocks of one width in a row.
struct Stage {
  int64_t depth, dim, heads;
};

// What stands before the tokens (models/patch_embed.h).
struct StemConfig {
  std::string strides = "none";           // of its convolutions, such as 2,1,1; none: patches alone
  int64_t channels = 64;                  // after each convolution
  int64_t kernel = 7;                     // of the first; the others are 3 x 3
  bool batch_norm = false, relu = false;  // after each convolution, or, without any, after the projection

  bool any() const { return strides != "none" || batch_norm || relu; }
};

struct ModelConfig {
  std::string name = "vit_small_image_32";
  std::string architecture = "vit";  // one of models/registry.cc
  int64_t image_size = 32;
  int64_t channels = 3;
  int64_t classes = 100;
  int64_t patch = 4;
  int64_t depth = 9;
  int64_t dim = 192;
  int64_t heads = 12;
  // Of an architecture with stages, in place of depth and heads: lists such as 2,6,4. The width starts as dim
  // and doubles from each stage to the next.
  std::string depths;
  std::string stage_heads;
  int64_t head_dim = 0;  // channels of a head, where that is not dim / heads: CaiT
  int64_t window = 0;    // side of the windows of tokens that attention keeps to: Swin
  double mlp_ratio = 2;
  bool qkv_bias = true;
  bool distilled = false;  // DeiT's distillation token and its head beside the class token's
  WeightInit init = WeightInit::trunc_normal;
  double drop_path = 0;
  bool drop_path_linear = true;  // rising from 0 over the depth (timm), or the same everywhere
  double dropout = 0;
  std::string branches;  // of a convolution that is trained as several (nn/rep_conv.h): 3x3,1x1,identity
  StemConfig stem;
  WidenConfig widen;
  MoeConfig moe;
  PointsConfig points;

  int64_t prefix_tokens() const { return distilled ? 2 : 1; }  // before the patches': class, distillation
  int64_t tokens() const {
    return (is_of_points() ? points.groups : (image_size / patch) * (image_size / patch)) + prefix_tokens();
  }
  int64_t hidden(int64_t width) const { return int64_t(double(width) * mlp_ratio + 1e-6); }
  int64_t head_size() const { return head_dim > 0 ? head_dim : dim / heads; }
  bool is_of_points() const { return points.count > 0; }
  // Of one sample.
  Shape input_shape() const {
    return is_of_points() ? Shape{points.count, 3} : Shape{channels, image_size, image_size};
  }
  bool is_moe() const { return moe.blocks != "none"; }
  // Images that a router of tokens or images wants in one micro-batch.
  int64_t together() const { return is_moe() && moe.router != MoeRouter::random ? moe.routing.group : 1; }
};

// The words of a list such as 2,6,4.
std::vector<std::string> split_list(const std::string& list);

// The stages; of an architecture without them, one of all blocks.
std::vector<Stage> stages(const ModelConfig& config);
// Blocks of all stages. Their ids count through the stages.
int64_t total_depth(const ModelConfig& config);

// The super-class of each class (MoeConfig::groups); empty where there are none.
std::vector<int32_t> superclasses(const ModelConfig& config);

// Ids of the blocks that a placement names, ascending: every-n is n-1, 2n-1, ...; last-n the last n of the
// odd ids (V-MoE's conventions); final-n the last n of all (Mobile V-MoE). An error (usage) where it names
// none of `depth` blocks; `key` is the placement's.
std::vector<int64_t> moe_blocks(const std::string& placement, int64_t depth, const char* key = "moe.blocks");

// Strides of the stem's convolutions, and the side of the patches that are projected after them.
std::vector<int64_t> stem_strides(const StemConfig& stem);
int64_t stem_patch(const ModelConfig& config);

// All fields by their keys, for files, flags and help alike.
Fields fields(ModelConfig& config);
nlohmann::ordered_json config_to_json(const ModelConfig& config);
std::string config_to_text(const ModelConfig& config);  // the same as text, for weight files

// Throws (usage) with the key, the value and the rule that it breaks.
void validate(const ModelConfig& config);

}  // namespace tessera
