#include "models/config.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "engine/io/printable.h"
#include "models/registry.h"

namespace tessera {
namespace {

// A count in the value of a key that has this form. Lists are read again for every block, so that nothing in
// them may be long for nothing.
int64_t parse_count(const char* key, const std::string& value, std::string_view digits, const char* form) {
  constexpr size_t kMostDigits = 19;
  int64_t count = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  TESSERA_CHECK_AS(Exit::usage,
                   error == std::errc() && end == digits.data() + digits.size() && count >= 0 &&
                       digits.size() <= kMostDigits,
                   "model.", key, " ", printable(value), ": ", printable(digits), " is not a number; it is ",
                   form);
  return count;
}

// Counts parted by commas.
std::vector<int64_t> parse_counts(const char* key, const std::string& value, const char* form) {
  std::vector<int64_t> counts;
  for (const std::string& word : split_list(value)) counts.push_back(parse_count(key, value, word, form));
  return counts;
}

constexpr const char* kPlacementForm = "none, every-2, last-2, final-2 or a list such as 1,3,5";

// Bounds that keep every count of parameters and operations within 63 bits. To train the deepest model of the
// widest layers on a sample takes 3 2^60 operations in its feed-forward layers (check_hidden), less than 2^61
// in its attention, and less than 2^61 in a stem's convolutions or in mixing CaiT's heads.
void check_bound(const char* key, int64_t value, int64_t highest) {
  TESSERA_CHECK_AS(Exit::usage, value > 0 && value <= highest, "model.", key, " = ", value,
                   ": must be from 1 to ", highest);
}

void check_stem(const ModelConfig& c) {
  constexpr size_t kMost = 16;
  const std::vector<int64_t> strides = stem_strides(c.stem);
  TESSERA_CHECK_AS(Exit::usage, strides.size() <= kMost, "model.stem.strides = ", c.stem.strides, ": of ",
                   strides.size(), " convolutions; at most ", kMost, " are possible");
  int64_t shrinks = 1;
  for (const int64_t stride : strides) {
    check_bound("stem.strides", stride, 16);
    shrinks *= stride;
    TESSERA_CHECK_AS(Exit::usage, c.patch % shrinks == 0, "model.stem.strides = ", c.stem.strides,
                     ": their product must divide model.patch = ", c.patch);
  }
  check_bound("stem.channels", c.stem.channels, 1024);
  check_bound("stem.kernel", c.stem.kernel, 31);
  TESSERA_CHECK_AS(Exit::usage, c.stem.kernel % 2 == 1, "model.stem.kernel = ", c.stem.kernel,
                   ": must be odd, to have a middle");
}

void check_stages(const ModelConfig& c) {
  constexpr int64_t kDepth = 1024, kWidth = 8192;
  if (c.depths.empty()) {
    TESSERA_CHECK_AS(Exit::usage, c.stage_heads.empty(), "model.stage_heads = ", c.stage_heads,
                     ": heads by stage need model.depths, a list such as 2,6,4");
    check_bound("depth", c.depth, kDepth);
    check_bound("heads", c.heads, kWidth);
  } else {
    TESSERA_CHECK_AS(Exit::usage, c.depth == 0 && c.heads == 0, "model.depth = ", c.depth,
                     " and model.heads = ", c.heads, ": must be 0 where model.depths = ", c.depths,
                     " and model.stage_heads give them by stage");
  }
  int64_t depth = 0;
  for (const Stage& stage : stages(c)) {
    check_bound("depths", stage.depth, kDepth);
    check_bound("stage_heads", stage.heads, kWidth);
    check_bound("dim", stage.dim, kWidth);
    TESSERA_CHECK_AS(Exit::usage, stage.dim % stage.heads == 0, "model.heads = ", stage.heads,
                     " does not divide dim = ", stage.dim);
    depth += stage.depth;
  }
  check_bound("depths", depth, kDepth);
}

// What a token goes through in the feed-forward layers of a stage, in all its experts together.
void check_hidden(const ModelConfig& c) {
  constexpr int64_t kMost = 1 << 19;
  for (const Stage& stage : stages(c)) {
    const int64_t hidden = c.hidden(stage.dim) * c.widen.times * c.moe.routing.k;
    TESSERA_CHECK_AS(Exit::usage, hidden <= kMost, "model.mlp_ratio = ", c.mlp_ratio,
                     ", model.widen.times = ", c.widen.times, " and model.moe.k = ", c.moe.routing.k,
                     ": make ", hidden, " hidden channels of dim = ", stage.dim, "; at most ", kMost,
                     " are possible");
  }
}

void check_routing(const ModelConfig& c) {
  const RouterOptions& r = c.moe.routing;
  check_bound("moe.group", r.group, 1 << 20);
  check_bound("moe.k", r.k, c.moe.experts);
  for (const auto& [key, value] : {std::pair{"noise", r.noise},
                                   {"importance", r.importance},
                                   {"load", r.load},
                                   {"capacity", r.capacity},
                                   {"superclass_loss", r.superclass_loss}})
    TESSERA_CHECK_AS(Exit::usage, value >= 0 && value <= 1e6, "model.moe.", key, " = ", value,
                     ": must be from 0 to 1e6");
  TESSERA_CHECK_AS(Exit::usage,
                   !c.is_moe() || c.moe.router == MoeRouter::image ||
                       (c.moe.superclasses == "none" && c.moe.groups.empty()),
                   "model.moe.superclasses = ", c.moe.superclasses,
                   ": only model.moe.router = image is taught super-classes");
  const std::vector<int32_t> groups = superclasses(c);
  TESSERA_CHECK_AS(Exit::usage, groups.empty() || int64_t(groups.size()) == c.classes,
                   "model.moe.groups has ", groups.size(), " entries for ", c.classes, " classes");
  for (const int32_t group : groups)
    TESSERA_CHECK_AS(Exit::usage, group < c.moe.experts, "model.moe.groups: ", group, " is none of the ",
                     c.moe.experts, " experts");
}

}  // namespace

std::vector<std::string> split_list(const std::string& list) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t comma = std::min(list.find(',', begin), list.size());
    words.push_back(list.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return words;
}

std::vector<int32_t> superclasses(const ModelConfig& c) {
  if (c.moe.groups.empty()) return {};
  const auto counts = parse_counts("moe.groups", c.moe.groups, "a list such as 0,2,1");
  std::vector<int32_t> groups;
  for (const int64_t count : counts) groups.push_back(int32_t(std::min<int64_t>(count, INT32_MAX)));
  return groups;
}

std::vector<Stage> stages(const ModelConfig& c) {
  if (c.depths.empty()) return {{c.depth, c.dim, c.heads}};
  constexpr const char* kForm = "a list such as 2,6,4";
  const std::vector<int64_t> depths = parse_counts("depths", c.depths, kForm);
  const std::vector<int64_t> heads = c.stage_heads.empty()
                                         ? std::vector<int64_t>(depths.size(), 1)  // there is no attention
                                         : parse_counts("stage_heads", c.stage_heads, kForm);
  constexpr size_t kMost = 16;  // with a width that doubles
  TESSERA_CHECK_AS(Exit::usage, depths.size() <= kMost && depths.size() == heads.size(),
                   "model.depths = ", c.depths, " has ", depths.size(),
                   " stages and model.stage_heads = ", c.stage_heads, " has ", heads.size(),
                   "; both must have the same number, at most ", kMost);
  std::vector<Stage> stages;
  for (size_t s = 0; s < depths.size(); ++s) stages.push_back({depths[s], c.dim << s, heads[s]});
  return stages;
}

int64_t total_depth(const ModelConfig& config) {
  int64_t depth = 0;
  for (const Stage& stage : stages(config)) depth += stage.depth;
  return depth;
}

std::vector<int64_t> moe_blocks(const std::string& placement, int64_t depth, const char* key) {
  std::vector<int64_t> ids;
  const std::string_view text = placement;
  if (text == "none") return ids;
  const auto count_after = [&](const char* word) {
    return parse_count(key, placement, text.substr(std::string_view(word).size()), kPlacementForm);
  };
  if (text.starts_with("every-")) {
    const int64_t n = count_after("every-");
    for (int64_t id = n - 1; n > 0 && id < depth; id += n) ids.push_back(id);
  } else if (text.starts_with("last-")) {
    const int64_t n = count_after("last-");
    for (int64_t id = 1; id < depth; id += 2) ids.push_back(id);
    TESSERA_CHECK_AS(Exit::usage, n <= int64_t(ids.size()), "model.", key, " ", printable(placement),
                     ": a model of depth ", depth, " has only ", ids.size(), " odd blocks");
    ids.erase(ids.begin(), ids.end() - n);
  } else if (text.starts_with("final-")) {
    const int64_t n = count_after("final-");
    TESSERA_CHECK_AS(Exit::usage, n <= depth, "model.", key, " ", printable(placement), ": a model of depth ",
                     depth, " has no ", n, " blocks");
    for (int64_t id = depth - n; id < depth; ++id) ids.push_back(id);
  } else {
    ids = parse_counts(key, placement, kPlacementForm);
    TESSERA_CHECK_AS(Exit::usage, int64_t(ids.size()) <= depth, "model.", key, " names ", ids.size(),
                     " blocks of a model of depth ", depth);
    for (const int64_t id : ids)
      TESSERA_CHECK_AS(Exit::usage, id < depth, "model.", key, " ", printable(placement), ": block ", id,
                       " does not exist in a model of depth ", depth);
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  }
  TESSERA_CHECK_AS(Exit::usage, !ids.empty(), "model.", key, " ", printable(placement),
                   " names no block of a model of depth ", depth);
  return ids;
}

std::vector<int64_t> stem_strides(const StemConfig& stem) {
  if (stem.strides == "none") return {};
  return parse_counts("stem.strides", stem.strides, "none or a list such as 2,1,1");
}

int64_t stem_patch(const ModelConfig& c) {
  int64_t patch = c.patch;
  for (const int64_t stride : stem_strides(c.stem)) patch /= stride;
  return patch;
}

Fields fields(ModelConfig& c) {
  static constexpr std::string_view kWeightInits[] = {"trunc-normal", "xavier"};
  static constexpr std::string_view kExpertInits[] = {"alike", "independent"};
  static constexpr std::string_view kRouters[] = {"random", "token", "image"};
  static constexpr std::string_view kVectors[] = {"cls", "mean"};
  static constexpr std::string_view kRoutes[] = {"predicted", "truth"};
  static constexpr std::string_view kPartitions[] = {"batch", "per-image", "replica"};
  return {{"name", c.name},
          {"architecture", c.architecture},
          {"image_size", c.image_size},
          {"channels", c.channels},
          {"classes", c.classes},
          {"patch", c.patch},
          {"depth", c.depth},
          {"dim", c.dim},
          {"heads", c.heads},
          {"depths", c.depths},
          {"stage_heads", c.stage_heads},
          {"head_dim", c.head_dim},
          {"window", c.window},
          {"mlp_ratio", c.mlp_ratio},
          {"qkv_bias", c.qkv_bias},
          {"distilled", c.distilled},
          {"init", c.init, kWeightInits},
          {"drop_path", c.drop_path},
          {"drop_path_linear", c.drop_path_linear},
          {"dropout", c.dropout},
          {"branches", c.branches},
          {"stem.strides", c.stem.strides},
          {"stem.channels", c.stem.channels},
          {"stem.kernel", c.stem.kernel},
          {"stem.batch_norm", c.stem.batch_norm},
          {"stem.relu", c.stem.relu},
          {"widen.blocks", c.widen.blocks},
          {"widen.times", c.widen.times},
          {"moe.blocks", c.moe.blocks},
          {"moe.experts", c.moe.experts},
          {"moe.init", c.moe.init, kExpertInits},
          {"moe.router", c.moe.router, kRouters},
          {"moe.partition", c.moe.partition, kPartitions},
          {"moe.k", c.moe.routing.k},
          {"moe.noise", c.moe.routing.noise},
          {"moe.importance", c.moe.routing.importance},
          {"moe.load", c.moe.routing.load},
          {"moe.group", c.moe.routing.group},
          {"moe.capacity", c.moe.routing.capacity},
          {"moe.batch_priority", c.moe.routing.batch_priority},
          {"moe.renormalize", c.moe.routing.renormalize},
          {"moe.image_vector", c.moe.routing.vector, kVectors},
          {"moe.routes", c.moe.routing.routes, kRoutes},
          {"moe.superclass_loss", c.moe.routing.superclass_loss},
          {"moe.superclasses", c.moe.superclasses},
          {"moe.groups", c.moe.groups},
          {"points.count", c.points.count},
          {"points.groups", c.points.groups},
          {"points.group_size", c.points.group_size},
          {"points.width", c.points.width},
          {"points.head_dropout", c.points.head_dropout}};
}

nlohmann::ordered_json config_to_json(const ModelConfig& config) {
  ModelConfig copy = config;  // fields could be written to
  return fields_to_json(fields(copy));
}

std::string config_to_text(const ModelConfig& config) { return config_to_json(config).dump(); }

void validate(const ModelConfig& c) {
  const Architecture& architecture = architecture_by_name(c.architecture);
  check_bound("image_size", c.image_size, 16384);
  check_bound("channels", c.channels, 1024);
  check_bound("classes", c.classes, 1 << 20);
  check_bound("patch", c.patch, 1024);
  check_bound("dim", c.dim, 8192);
  check_bound("moe.experts", c.moe.experts, 1024);
  TESSERA_CHECK_AS(Exit::usage, c.mlp_ratio > 0 && c.mlp_ratio <= 64 && c.hidden(c.dim) > 0,
                   "model.mlp_ratio = ", c.mlp_ratio, ": must be above 0 and at most 64");
  check_stages(c);
  TESSERA_CHECK_AS(Exit::usage, c.image_size % c.patch == 0, "model.patch = ", c.patch,
                   " does not divide image_size = ", c.image_size);
  check_stem(c);
  for (const auto& [key, rate] : {std::pair{"drop_path", c.drop_path}, {"dropout", c.dropout}})
    TESSERA_CHECK_AS(Exit::usage, rate >= 0 && rate < 1, "model.", key, " = ", rate, ": must be in [0,1)");
  TESSERA_CHECK_AS(Exit::usage, c.is_of_points() || c.tokens() <= 65536, "model.image_size = ", c.image_size,
                   " in patches of ", c.patch, " makes ", c.tokens(), " tokens; at most 65536 are possible");
  TESSERA_CHECK_AS(Exit::usage, !c.is_moe() || c.moe.experts > 1, "model.moe.experts = ", c.moe.experts,
                   ": a mixture has at least 2");
  moe_blocks(c.moe.blocks, total_depth(c));
  check_bound("widen.times", c.widen.times, 64);
  TESSERA_CHECK_AS(Exit::usage, c.widen.times == 1 || c.widen.blocks != "none",
                   "model.widen.times = ", c.widen.times,
                   ": model.widen.blocks = none widens no MLP; set it to such as final-2");
  TESSERA_CHECK_AS(
      Exit::usage,
      moe_blocks(c.widen.blocks, total_depth(c), "widen.blocks").empty() || architecture.attention,
      "model.widen.blocks = ", c.widen.blocks, ": a model of architecture ", c.architecture, " has no MLPs");
  check_routing(c);
  check_hidden(c);
  if (c.is_moe() && (c.moe.router == MoeRouter::image) != architecture.image_router)
    fail(Exit::usage, "model.moe.router: ",
         architecture.image_router ? "set it to image in a model of architecture "
                                   : "image is of the architecture mobile_vmoe, and not of ",
         c.architecture);
  TESSERA_CHECK_AS(Exit::usage, architecture.stages == !c.depths.empty(), "model.depths = '", c.depths,
                   "': a model of architecture ", c.architecture, " has ",
                   architecture.stages ? "stages; a list such as 2,6,4 gives their depths"
                                       : "no stages; model.depth gives its depth");
  TESSERA_CHECK_AS(Exit::usage, (architecture.stages && architecture.attention) == !c.stage_heads.empty(),
                   "model.stage_heads = '", c.stage_heads, "': a model of architecture ", c.architecture,
                   c.stage_heads.empty() ? " needs heads by stage, a list such as 2,4,8" : " has none");
  TESSERA_CHECK_AS(Exit::usage, architecture.branches == !c.branches.empty(), "model.branches = '",
                   c.branches, "': a model of architecture ", c.architecture,
                   c.branches.empty() ? " needs some, such as 3x3,1x1,identity" : " has none");
  TESSERA_CHECK_AS(Exit::usage, architecture.stem || !c.stem.any(), "model.stem: a model of architecture ",
                   c.architecture, " has no stem to choose");
  TESSERA_CHECK_AS(Exit::usage, architecture.distilled || !c.distilled, "model.distilled = true: a model of ",
                   "architecture ", c.architecture, " has no distillation token");
  TESSERA_CHECK_AS(Exit::usage,
                   c.head_dim == 0 || (architecture.head_dim && c.head_dim > 0 && c.head_dim <= 8192),
                   "model.head_dim = ", c.head_dim, ": a head of a model of architecture ", c.architecture,
                   architecture.head_dim ? " has 1 to 8192 channels; 0 stands for dim / heads"
                                         : " has always dim / heads channels");
  TESSERA_CHECK_AS(Exit::usage, c.heads * c.head_dim <= 32768, "model.head_dim = ", c.head_dim, ": makes ",
                   c.heads * c.head_dim, " channels in ", c.heads, " heads; at most 32768 are possible");
  TESSERA_CHECK_AS(Exit::usage, architecture.windows ? c.window > 0 && c.window <= 1024 : c.window == 0,
                   "model.window = ", c.window, ": a model of architecture ", c.architecture,
                   architecture.windows ? " has windows of 1 to 1024 tokens a side" : " has no windows");
  TESSERA_CHECK_AS(Exit::usage, architecture.points == c.is_of_points(),
                   "model.points.count = ", c.points.count, ": a model of architecture ", c.architecture,
                   " takes ", architecture.points ? "point clouds; from 1 to 65536 points" : "images");
  if (architecture.check) architecture.check(c);
}

}  // namespace tessera
