#include "train/recipe.h"

#include <algorithm>
#include <sstream>

#include "engine/base/nearest_name.h"
#include "train/toml.h"

namespace tessera {

// Generated from recipes/*.toml when building: name and text of each.
extern const std::vector<std::pair<std::string, std::string>> kRecipeFiles;

namespace {

std::string as_text(const toml::table& table) {
  std::ostringstream out;
  out << table;
  return out.str();
}

// Takes the keys of one table of a recipe; those that nobody asked for are errors.
class Reader {
 public:
  Reader(const toml::table& table, std::string where) : table_(table), where_(std::move(where)) {}

  template <class T>
  std::optional<T> value(const char* key) {
    const toml::node* node = find(key);
    if (!node) return std::nullopt;
    const auto value = node->value<T>();
    if (!value) wrong(key, "is of another type");
    return value;
  }
  std::string words(const char* key) { return value<std::string>(key).value_or(""); }
  std::vector<std::string> settings(const char* key) {
    const toml::node* node = find(key);
    if (!node) return {};
    if (!node->is_table()) wrong(key, "is no table");
    toml::table own = *node->as_table();
    std::vector<std::string> texts;
    if (const auto preset = own["preset"].value<std::string>()) {
      try {
        texts.push_back(preset_by_name(*preset).toml);
        texts.push_back("data.folder = ''\n");  // which a recipe leaves to the user
      } catch (const Error& error) {
        wrong(key, text("is over no preset: ", error.what()));
      }
      own.erase("preset");
    }
    texts.push_back(as_text(own));
    return texts;
  }
  const toml::array* tables(const char* key) {
    const toml::node* node = find(key);
    if (!node) return nullptr;
    if (!node->is_array_of_tables()) wrong(key, "is no list of tables");
    return node->as_array();
  }
  void finish() const {
    for (const auto& [key, node] : table_)
      if (const std::string name(key.str()); std::find(asked_.begin(), asked_.end(), name) == asked_.end())
        wrong(name, "is not a key here; did you mean '" + nearest_name(name, asked_) + "'?");
  }
  [[noreturn]] void wrong(const std::string& key, const std::string& why) const {
    fail(Exit::usage, where_, ": ", key, " ", why);
  }

 private:
  const toml::node* find(const char* key) {
    asked_.emplace_back(key);
    return table_.get(key);
  }

  const toml::table& table_;
  std::string where_;
  std::vector<std::string> asked_;
};

// The arms of all combinations of the axes' values.
std::vector<RecipeArm> combinations(const std::vector<RecipeAxis>& axes) {
  std::vector<RecipeArm> arms(1);
  for (const RecipeAxis& axis : axes) {
    std::vector<RecipeArm> longer;
    for (const RecipeArm& arm : arms)
      for (const RecipeArm& value : axis.values) {
        RecipeArm both = arm;
        both.name += (arm.name.empty() ? "" : ", ") + value.name;
        for (const auto settings : {&RecipeArm::run, &RecipeArm::tiny, &RecipeArm::full})
          (both.*settings).insert((both.*settings).end(), (value.*settings).begin(), (value.*settings).end());
        longer.push_back(std::move(both));
      }
    arms = std::move(longer);
  }
  return arms;
}

// What arms and the values of axes have in common.
RecipeArm read_arm(Reader& reader) {
  RecipeArm arm;
  arm.name = reader.words("name");
  arm.run = reader.settings("run");
  arm.tiny = reader.settings("tiny");
  arm.full = reader.settings("full");
  return arm;
}

// `arm` among those of its list, whose names must differ.
void add_named(std::vector<RecipeArm>& arms, RecipeArm arm, const Reader& reader) {
  const bool taken = std::any_of(arms.begin(), arms.end(), [&](const auto& a) { return a.name == arm.name; });
  if (arm.name.empty() || taken) reader.wrong("name", "must be there, and another one than those above");
  arms.push_back(std::move(arm));
}

RecipeAxis read_axis(const toml::table& table, const std::string& where) {
  Reader reader(table, where);
  RecipeAxis axis{reader.words("name"), {}};
  if (const toml::array* values = reader.tables("value"))
    for (const toml::node& node : *values) {
      Reader value(*node.as_table(), text(where, ", value ", axis.values.size() + 1));
      RecipeArm arm = read_arm(value);
      value.finish();
      add_named(axis.values, std::move(arm), value);
    }
  reader.finish();
  if (axis.name.empty() || axis.values.empty())
    reader.wrong("name", "and at least one [[axis.value]] must be there");
  return axis;
}

}  // namespace

Recipe parse_recipe(const std::string& source, const std::string& name) {
  const toml::table table = parse_toml(source, "recipe " + name);
  Reader whole(table, "recipe " + name);
  Recipe recipe{name,
                whole.words("title"),
                whole.words("paper"),
                whole.words("notes"),
                whole.words("measured"),
                whole.value<int64_t>("votes").value_or(1),
                whole.settings("run"),
                whole.settings("tiny"),
                whole.settings("full"),
                {},
                {}};
  if (const toml::array* arms = whole.tables("arm"))
    for (const toml::node& node : *arms) {
      Reader reader(*node.as_table(), text("recipe ", name, ", arm ", recipe.arms.size() + 1));
      RecipeArm arm = read_arm(reader);
      arm.start_from = reader.words("start_from");
      arm.compare_to = reader.words("compare_to");
      arm.superclasses_from = reader.words("superclasses_from");
      arm.reported = reader.value<double>("reported");
      if (const auto only = reader.value<std::string>("only")) {
        if (*only != "tiny" && *only != "full") reader.wrong("only", "is '" + *only + "', not tiny or full");
        arm.only = *only == "tiny" ? Scale::tiny : Scale::full;
      }
      arm.fuse = reader.value<bool>("fuse").value_or(false);
      reader.finish();
      for (const auto& [key, other] : {std::pair{"start_from", &arm.start_from},
                                       {"superclasses_from", &arm.superclasses_from},
                                       {"compare_to", &arm.compare_to}})
        if (!other->empty() &&
            std::none_of(recipe.arms.begin(), recipe.arms.end(), [&, other = other](const RecipeArm& above) {
              return above.name == *other && (!above.only || above.only == arm.only);
            }))
          reader.wrong(key, "names no arm above: '" + *other + "'");
      add_named(recipe.arms, std::move(arm), reader);
    }
  if (const toml::array* axes = whole.tables("axis")) {
    if (!recipe.arms.empty()) whole.wrong("axis", "cannot stand beside arms");
    for (const toml::node& node : *axes)
      recipe.axes.push_back(
          read_axis(*node.as_table(), text("recipe ", name, ", axis ", recipe.axes.size() + 1)));
    recipe.arms = combinations(recipe.axes);
  }
  whole.finish();
  if (recipe.arms.empty()) whole.wrong("arm", "is missing: a recipe has at least one [[arm]]");
  for (const Scale scale : {Scale::tiny, Scale::full})
    for (const RecipeArm& arm : arms_at(recipe, scale)) {
      const RunConfig config = config_of(recipe, arm, scale);
      validate(config);
      if (recipe.votes < 1 || (recipe.votes > 1 && !config.model.is_of_points()))
        whole.wrong("votes", text("is ", recipe.votes, ": at least 1, and more for point clouds alone"));
    }
  return recipe;
}

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all = [] {
    std::vector<Recipe> parsed;
    for (const auto& [name, source] : kRecipeFiles) parsed.push_back(parse_recipe(source, name));
    return parsed;
  }();
  return all;
}

const Recipe& recipe_by_name(const std::string& name) {
  std::vector<std::string> names;
  for (const Recipe& recipe : recipes()) {
    if (recipe.name == name) return recipe;
    names.push_back(recipe.name);
  }
  fail(Exit::usage, "recipe '", name, "' is not known; did you mean '", nearest_name(name, names),
       "'? `tessera list recipes` shows all");
}

std::vector<RecipeArm> arms_at(const Recipe& recipe, Scale scale) {
  std::vector<RecipeArm> arms = recipe.arms;
  std::erase_if(arms, [&](const RecipeArm& arm) { return arm.only.value_or(scale) != scale; });
  return arms;
}

RunConfig config_of(const Recipe& recipe, const RecipeArm& arm, Scale scale) {
  RunConfig config;
  const bool tiny = scale == Scale::tiny;
  const auto apply = [&](const std::vector<std::string>& texts, const std::string& what) {
    for (const std::string& settings : texts)
      apply_toml(config, settings, text("recipe ", recipe.name, ", ", what));
  };
  apply(recipe.run, "run");
  apply(tiny ? recipe.tiny : recipe.full, tiny ? "tiny" : "full");
  apply(arm.run, "arm " + arm.name);
  apply(tiny ? arm.tiny : arm.full, "arm " + arm.name);
  return config;
}

}  // namespace tessera
