#include "models/config.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "models/registry.h"

namespace tessera {
namespace {

int64_t parse_count(const std::string& placement, std::string_view digits) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  TESSERA_CHECK_AS(Exit::usage, error == std::errc() && end == digits.data() + digits.size() && value >= 0,
                   "model.moe.blocks '", placement, "': '", digits,
                   "' is not a number; it is none, every-2, last-2 or a list such as 1,3,5");
  return value;
}

}  // namespace

std::vector<int64_t> moe_blocks(const std::string& placement, int64_t depth) {
  std::vector<int64_t> ids;
  const std::string_view text = placement;
  if (text == "none") return ids;
  if (text.starts_with("every-")) {
    const int64_t n = parse_count(placement, text.substr(6));
    for (int64_t id = n - 1; n > 0 && id < depth; id += n) ids.push_back(id);
  } else if (text.starts_with("last-")) {
    const int64_t n = parse_count(placement, text.substr(5));
    for (int64_t id = 1; id < depth; id += 2) ids.push_back(id);
    TESSERA_CHECK_AS(Exit::usage, n <= int64_t(ids.size()), "model.moe.blocks '", placement,
                     "': a model of depth ", depth, " has only ", ids.size(), " odd blocks");
    ids.erase(ids.begin(), ids.end() - n);
  } else {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t comma = std::min(text.find(',', begin), text.size());
      ids.push_back(parse_count(placement, text.substr(begin, comma - begin)));
      TESSERA_CHECK_AS(Exit::usage, ids.back() < depth, "model.moe.blocks '", placement, "': block ",
                       ids.back(), " does not exist in a model of depth ", depth);
      begin = comma + 1;
    }
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  }
  TESSERA_CHECK_AS(Exit::usage, !ids.empty(), "model.moe.blocks '", placement,
                   "' names no block of a model of depth ", depth);
  return ids;
}

Fields fields(ModelConfig& c) {
  static constexpr std::string_view kWeightInits[] = {"trunc-normal", "xavier"};
  static constexpr std::string_view kExpertInits[] = {"alike", "independent"};
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
          {"mlp_ratio", c.mlp_ratio},
          {"qkv_bias", c.qkv_bias},
          {"distilled", c.distilled},
          {"init", c.init, kWeightInits},
          {"drop_path", c.drop_path},
          {"drop_path_linear", c.drop_path_linear},
          {"dropout", c.dropout},
          {"moe.blocks", c.moe.blocks},
          {"moe.experts", c.moe.experts},
          {"moe.init", c.moe.init, kExpertInits},
          {"moe.partition", c.moe.partition, kPartitions}};
}

nlohmann::ordered_json config_to_json(const ModelConfig& config) {
  ModelConfig copy = config;  // fields could be written to
  return fields_to_json(fields(copy));
}

void validate(const ModelConfig& c) {
  architecture_by_name(c.architecture);
  // Bounds that keep every count of parameters and operations within 63 bits.
  const auto positive = [](const char* key, int64_t value, int64_t highest) {
    TESSERA_CHECK_AS(Exit::usage, value > 0 && value <= highest, "model.", key, " = ", value,
                     ": must be from 1 to ", highest);
  };
  positive("image_size", c.image_size, 16384);
  positive("channels", c.channels, 1024);
  positive("classes", c.classes, 1 << 20);
  positive("patch", c.patch, 1024);
  positive("depth", c.depth, 1024);
  positive("dim", c.dim, 8192);
  positive("heads", c.heads, 8192);
  positive("moe.experts", c.moe.experts, 1024);
  TESSERA_CHECK_AS(Exit::usage, c.image_size % c.patch == 0, "model.patch = ", c.patch,
                   " does not divide image_size = ", c.image_size);
  TESSERA_CHECK_AS(Exit::usage, c.dim % c.heads == 0, "model.heads = ", c.heads,
                   " does not divide dim = ", c.dim);
  TESSERA_CHECK_AS(Exit::usage, c.mlp_ratio > 0 && c.mlp_ratio <= 64 && c.hidden() > 0,
                   "model.mlp_ratio = ", c.mlp_ratio, ": must be above 0 and at most 64");
  for (const auto& [key, rate] : {std::pair{"drop_path", c.drop_path}, {"dropout", c.dropout}})
    TESSERA_CHECK_AS(Exit::usage, rate >= 0 && rate < 1, "model.", key, " = ", rate, ": must be in [0,1)");
  TESSERA_CHECK_AS(Exit::usage, c.tokens() <= 65536, "model.image_size = ", c.image_size, " in patches of ",
                   c.patch, " makes ", c.tokens(), " tokens; at most 65536 are possible");
  TESSERA_CHECK_AS(Exit::usage, !c.is_moe() || c.moe.experts > 1, "model.moe.experts = ", c.moe.experts,
                   ": a mixture has at least 2");
  moe_blocks(c.moe.blocks, c.depth);
}

}  // namespace tessera
