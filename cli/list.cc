// tessera list: the names that other verbs take.
#include <iostream>
#include <map>

#include "cli/commands.h"
#include "cli/output.h"
#include "cuda/devices.h"
#include "engine/base/nearest_name.h"
#include "engine/base/parallel.h"
#include "engine/ops/cases.h"
#include "models/flops.h"
#include "models/registry.h"
#include "train/recipe.h"

namespace tessera::cli {
namespace {

struct ListOptions {
  std::string what;
  bool json = false;
};

// The columns' heads, then the rows, in text and in JSON.
struct Listing {
  std::string alignment;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
};

Listing models() {
  Listing list{"lrrrl", {"model", "parameters", "one image", "input", "summary"}, {}};
  for (const RegisteredModel& model : registered_models()) {
    const ModelCost own = cost(model.config);
    const ModelConfig& c = model.config;
    list.rows.push_back({model.name, grouped(own.parameters), operations(own.forward_flops),
                         c.is_of_points() ? text(c.points.count, " points")
                                          : text(c.channels, " x ", c.image_size, " x ", c.image_size),
                         model.summary});
    list.json.push_back({{"name", model.name},
                         {"summary", model.summary},
                         {"parameters", own.parameters},
                         {"forward_flops", own.forward_flops},
                         {"config", config_to_json(c)}});
  }
  return list;
}

Listing preset_names() {
  Listing list{"ll", {"preset", "summary"}, {}};
  for (const Preset& preset : presets()) {
    list.rows.push_back({preset.name, preset.summary});
    list.json.push_back({{"name", preset.name}, {"summary", preset.summary}});
  }
  return list;
}

Listing recipe_names() {
  Listing list{"ll", {"recipe", "what"}, {}};
  for (const Recipe& recipe : recipes()) {
    list.rows.push_back({recipe.name, recipe.title});
    list.json.push_back({{"name", recipe.name}, {"title", recipe.title}, {"paper", recipe.paper}});
  }
  return list;
}

Listing keys() {
  Listing list{"ll", {"key", "default"}, {}};
  const auto settings = config_to_json(RunConfig{});
  for (const auto& [key, value] : settings.items()) {
    list.rows.push_back({key, value.dump()});
    list.json.push_back({{"key", key}, {"default", value}});
  }
  return list;
}

Listing ops() {
  std::map<std::string, int64_t> shapes;
  for (const OpCase& op : op_cases()) shapes[op.op.substr(0, op.op.find('('))] += int64_t(op.shapes.size());
  Listing list{"lr", {"op", "shapes tested"}, {}};
  for (const auto& [name, count] : shapes) {
    list.rows.push_back({name, grouped(count)});
    list.json.push_back({{"op", name}, {"shapes", count}});
  }
  return list;
}

Listing devices() {
  Listing list{"ll", {"device", "what"}, {}};
  const auto add = [&](const std::string& name, const std::string& what) {
    list.rows.push_back({name, what});
    list.json.push_back({{"device", name}, {"what", what}});
  };
  add("cpu", text(thread_count(), " threads, products through ", TESSERA_ONEDNN ? "oneDNN" : "Eigen"));
  std::string why_none;
  const auto cards = cuda_devices(&why_none);
  if (!why_none.empty()) add("cuda", why_none);
  for (size_t i = 0; i < cards.size(); ++i) add(text("cuda:", i), cards[i]);
  return list;
}

}  // namespace

int print_list(const std::string& what, bool json) {
  const std::vector<std::pair<std::string, Listing (*)()>> listings{
      {"models", models}, {"presets", preset_names}, {"recipes", recipe_names}, {"keys", keys},
      {"ops", ops},       {"devices", devices}};
  std::vector<std::string> names;
  for (const auto& [name, make] : listings) {
    names.push_back(name);
    if (name != what) continue;
    const Listing list = make();
    if (json) {
      print_json(list.json);
      return 0;
    }
    Table table(list.alignment);
    table.add(list.head);
    for (const auto& row : list.rows) table.add(row);
    table.print();
    return 0;
  }
  fail(Exit::usage, "list '", what, "' is not known; did you mean '", nearest_name(what, names),
       "'? There are models, presets, recipes, keys, ops and devices");
}

Command list_command() {
  return {"list", "models, presets, recipes, configuration keys, the engine's ops, or devices",
          "  tessera list models\n  tessera list presets\n  tessera list recipes\n  tessera list keys\n  "
          "tessera list ops\n  tessera list devices",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<ListOptions>();
            args.required("WHAT", o->what, "models, presets, recipes, keys, ops or devices");
            args.flag("--json", o->json, "The same as JSON");
            return [o] { return print_list(o->what, o->json); };
          }};
}

}  // namespace tessera::cli
