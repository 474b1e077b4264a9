// tessera reproduce: the runs of a recipe side by side, with common seeds, and their table.
#include <algorithm>
#include <cmath>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/output.h"
#include "cuda/devices.h"
#include "engine/base/parallel.h"
#include "engine/io/atomic_file.h"
#include "engine/io/printable.h"
#include "models/fuse.h"
#include "train/chart.h"
#include "train/checkpoint.h"
#include "train/recipe.h"
#include "train/superclass.h"
#include "train/trainer.h"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;

struct ReproduceOptions {
  std::string recipe, scale = "tiny", data, out, device;
  std::vector<std::string> set;
  int64_t seeds = 3, threads = 0;
  bool quiet = false, json = false;
};

// One arm with one seed.
struct Outcome {
  double top1 = 0;                // of the model that counts: fused, where the arm says so
  std::optional<double> mixture;  // before fusing
  std::optional<double> voted;    // by votes, of the model that counts
  std::optional<double> router;   // share of the images whose super-class it finds
  std::optional<double> seconds;  // of a run done in one go
  bool diverged = false;
  std::string made;  // when, where and by what
};

constexpr const char* kResult = "/result.json";
constexpr uint64_t kResultBytesMax = 1 << 16;

std::string file_safe(std::string name) {
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '-';
  return name;
}

std::string plural(size_t count, const char* what) { return text(count, " ", what, count == 1 ? "" : "s"); }

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name"))
      return harmless(line.substr(std::min(line.size(), line.find(':') + 2)));
  return "unknown processor";
}

// The day, the machine and the program of a run that ends now.
std::string made_here(const Device& device) {
  const std::time_t now = std::time(nullptr);
  std::ostringstream out;
  out << std::put_time(std::gmtime(&now), "%F") << ", ";
  if (device.is_cuda())
    out << cuda_devices().at(size_t(device.index));
  else
    out << processor_name() << ", " << plural(size_t(thread_count()), "thread");
  out << ", tessera " << TESSERA_VERSION;
  return out.str();
}

nlohmann::ordered_json to_json(const Outcome& outcome) {
  nlohmann::ordered_json json{{"top1", outcome.top1}, {"diverged", outcome.diverged}};
  if (outcome.seconds) json["seconds"] = *outcome.seconds;
  if (outcome.mixture) json["mixture_top1"] = *outcome.mixture;
  if (outcome.voted) json["voted_top1"] = *outcome.voted;
  if (outcome.router) json["router_accuracy"] = *outcome.router;
  if (!outcome.made.empty()) json["made"] = outcome.made;
  return json;
}

void write_outcome(const std::string& folder, const Outcome& outcome) {
  write_file_atomically(folder + kResult, to_json(outcome).dump() + "\n");
}

std::optional<Outcome> read_outcome(const std::string& folder) {
  if (!fs::exists(folder + kResult)) return std::nullopt;
  const auto json = nlohmann::json::parse(read_text(folder + kResult, kResultBytesMax), nullptr, false);
  TESSERA_CHECK_AS(Exit::file, json.is_object() && json.contains("top1") && json["top1"].is_number(), folder,
                   kResult, ": no result of a run; remove the folder and start again");
  const auto number = [&](const char* key) {
    return json.contains(key) ? std::optional(json[key].get<double>()) : std::nullopt;
  };
  return Outcome{
      json["top1"],      number("mixture_top1"),        number("voted_top1"),  number("router_accuracy"),
      number("seconds"), json.value("diverged", false), json.value("made", "")};
}

// What stops the whole command between two steps.
struct Interrupted {
  int signal;
};

// Of a run's weights, fused or as they are.
double final_top1(const RunConfig& config, const std::string& weights, bool fused, const Votes& votes) {
  const SafetensorsFile file(weights);
  auto model = load_model(file);
  if (fused) model = fuse(*model);
  const Device device = device_by_name(config.train.device);
  model->parameters().move_to(device);
  const Device::Scope there(device);
  const Dataset test = load_dataset(config.data.folder, Split::test, config.data.name);
  Replicas replicas(*model, {.dtype = config.train.dtype});
  return evaluate(replicas, test, normalization(test.name), config.model.classes, 256, config.data.test_limit,
                  0, votes)
      .top1;
}

class Reproduction {
 public:
  Reproduction(const ReproduceOptions& o, const Recipe& recipe, Scale scale)
      : o_(o), recipe_(recipe), scale_(scale) {
    folder_ = (o.out.empty() ? "runs/reproduce" : o.out) + "/" + recipe.name + "-" + o.scale;
  }

  const std::string& folder() const { return folder_; }

  // By arm and seed.
  std::vector<std::vector<Outcome>> run() {
    for (const RecipeArm& arm : recipe_.arms) check(arm);  // before the first of them takes its hours
    std::vector<std::vector<Outcome>> outcomes(recipe_.arms.size());
    for (int64_t seed = 0; seed < o_.seeds; ++seed)
      for (size_t arm = 0; arm < recipe_.arms.size(); ++arm)
        outcomes[arm].push_back(outcome_of(recipe_.arms[arm], seed));
    return outcomes;
  }

 private:
  std::string run_folder(const std::string& arm, int64_t seed) const {
    return text(folder_, "/", file_safe(arm), "-seed", seed);
  }

  RunConfig config(const RecipeArm& arm, int64_t seed) const {
    RunConfig config = config_of(recipe_, arm, scale_);
    apply_settings(config, key_values(o_.set));
    if (!o_.data.empty()) config.data.folder = o_.data;
    TESSERA_CHECK_AS(Exit::usage, !config.data.folder.empty(), "recipe ", recipe_.name,
                     " needs the data set ", config.data.name, ": give its folder by --data DIR");
    config.train.seed += uint64_t(seed);
    if (o_.threads > 0) config.train.threads = int(o_.threads);
    if (!o_.device.empty()) config.train.device = o_.device;
    if (!arm.start_from.empty()) config.train.init = RunFiles{run_folder(arm.start_from, seed)}.model();
    if (!arm.superclasses_from.empty())
      config.model.moe.superclasses = run_folder(arm.name, seed) + "-superclasses.toml";
    validate(config);
    return config;
  }

  void check(const RecipeArm& arm) {
    const RunConfig settings = config(arm, 0);
    const ModelConfig& model = settings.model;
    TESSERA_CHECK_AS(Exit::usage,
                     !device_by_name(settings.train.device).is_cuda() || !model.is_moe() ||
                         model.moe.router == MoeRouter::random,
                     "recipe ", recipe_.name, ", arm ", arm.name, ": no router runs on ",
                     settings.train.device, " yet; take --device cpu");
    if (held_out_ || arm.superclasses_from.empty() || read_outcome(run_folder(arm.name, 0))) return;
    check_held_out(load_dataset(settings.data.folder, Split::train, settings.data.name), settings.data.limit);
    held_out_ = true;
  }

  // A run is never taken for one with other settings: they are kept beside its folder.
  void keep_settings(const std::string& folder, const std::string& settings) const {
    const std::string file = folder + ".toml";
    std::error_code error;
    fs::create_directories(folder_, error);
    TESSERA_CHECK(fs::is_directory(folder_), folder_, ": cannot be made: ", error.message());
    if (!fs::exists(file)) return write_file_atomically(file, settings);
    RunConfig begun;  // where the file is of an older version, what it does not name yet has its default
    apply_toml(begun, read_text(file, kResultBytesMax), file);
    TESSERA_CHECK_AS(Exit::usage, to_toml(begun) == settings, folder,
                     ": was begun with other settings, which are in ", file,
                     "; name another folder by --out, or remove this one and that file");
  }

  void write_superclasses(const RecipeArm& arm, int64_t seed, const RunConfig& settings) const {
    constexpr int64_t kImages = 10000;
    const SafetensorsFile teacher(RunFiles{run_folder(arm.superclasses_from, seed)}.last());
    const auto model = load_model(teacher);
    check_dense(model->config(), teacher.name());
    const Device device = device_by_name(settings.train.device);
    model->parameters().move_to(device);
    const Device::Scope there(device);
    const int64_t first = checkpoint_config(teacher).data.limit;
    const Dataset data = load_dataset(settings.data.folder, Split::train, settings.data.name);
    check_held_out(data, first);
    Replicas replicas(*model, {});
    const Confusion seen = confusion(replicas, data, normalization(data.name), first, kImages);
    if (const std::string note = unseen_classes(seen, data.class_names); !note.empty())
      std::cerr << note << std::endl;
    write_file_atomically(
        settings.model.moe.superclasses,
        superclasses_to_toml(cluster(confusion_graph(seen), settings.model.moe.experts), data.class_names,
                             text("What ", teacher.name(), " confuses on ", seen.images,
                                  " training images from ", first, " on")));
  }

  Outcome outcome_of(const RecipeArm& arm, int64_t seed) {
    const std::string folder = run_folder(arm.name, seed);
    const RunConfig settings = config(arm, seed);
    keep_settings(folder, to_toml(settings));
    if (const auto former = read_outcome(folder)) return *former;
    std::cerr << "== " << arm.name << ", seed " << settings.train.seed << std::endl;
    const Progress progress = o_.quiet ? Progress::quiet : Progress::automatic;
    Outcome outcome;
    try {
      const bool begun = fs::exists(RunFiles{folder}.last());
      if (!begun && !arm.superclasses_from.empty()) write_superclasses(arm, seed, settings);
      const RunResult result = begun ? resume(folder, progress) : train(settings, folder, progress);
      if (result.interrupted) throw Interrupted{result.interrupted};
      outcome.top1 = result.test.top1;
      if (!begun) outcome.seconds = result.seconds;
      outcome.router = result.test.router_accuracy();
      if (arm.fuse) {
        outcome.mixture = result.test.top1;
        outcome.top1 = final_top1(settings, RunFiles{folder}.model(), true, {});
      }
      if (recipe_.votes > 1)
        outcome.voted = final_top1(settings, RunFiles{folder}.model(), arm.fuse,
                                   {.count = recipe_.votes, .seed = settings.train.seed});
    } catch (const Error& error) {
      if (error.code() != Exit::diverged) throw;
      std::cerr << error.what() << std::endl;  // a result as well
      outcome.diverged = true;
    }
    outcome.made = made_here(device_by_name(settings.train.device));
    write_outcome(folder, outcome);
    return outcome;
  }

  const ReproduceOptions& o_;
  const Recipe& recipe_;
  Scale scale_;
  std::string folder_;
  bool held_out_ = false;  // there are images that no arm trains on
};

struct Statistics {
  double mean = 0, deviation = 0;  // the sample's
  size_t count = 0;

  explicit Statistics(const std::vector<double>& values) : count(values.size()) {
    for (const double v : values) mean += v / double(count);
    for (const double v : values) deviation += (v - mean) * (v - mean);
    deviation = count > 1 ? std::sqrt(deviation / double(count - 1)) : 0;
  }
  std::string percent(const char* sign = "") const {
    if (count == 0) return "-";
    const std::string shown = (mean >= 0 ? sign : "") + fixed(100 * mean, 2);
    return count > 1 ? shown + " ± " + fixed(100 * deviation, 2) : shown;
  }
};

// A line an arm: what was measured, the difference to another arm seed by seed, and the paper's number.
// Columns that nothing stands in are left out.
std::vector<std::vector<std::string>> table_of(const Recipe& recipe,
                                               const std::vector<std::vector<Outcome>>& outcomes) {
  std::vector<std::vector<std::string>> rows{{"", "top-1 %", text("by ", recipe.votes, " votes"),
                                              "before fusing", "difference", "router %", "reported",
                                              "time a run"}};
  for (size_t a = 0; a < recipe.arms.size(); ++a) {
    const RecipeArm& arm = recipe.arms[a];
    const auto beside = size_t(
        std::find_if(recipe.arms.begin(), recipe.arms.begin() + long(a),
                     [&](const RecipeArm& b) { return arm.compare_to.empty() || b.name == arm.compare_to; }) -
        recipe.arms.begin());
    std::vector<double> top1, voted, mixture, paired, router, seconds;
    size_t diverged = 0;
    for (size_t s = 0; s < outcomes[a].size(); ++s) {
      const Outcome &own = outcomes[a][s], &other = outcomes[beside][s];
      diverged += own.diverged;
      if (own.diverged) continue;
      top1.push_back(own.top1);
      if (own.seconds) seconds.push_back(*own.seconds);
      if (own.voted) voted.push_back(*own.voted);
      if (own.mixture) mixture.push_back(*own.mixture);
      if (own.router) router.push_back(*own.router);
      if (beside != a && !other.diverged) paired.push_back(own.top1 - other.top1);
    }
    std::string measured = Statistics(top1).percent();
    if (diverged > 0) measured += text(" (", plural(diverged, "run"), " diverged)");
    std::string difference = Statistics(paired).percent("+");
    if (!arm.compare_to.empty() && !paired.empty()) difference += " to " + arm.compare_to;
    rows.push_back({arm.name, measured, Statistics(voted).percent(), Statistics(mixture).percent(),
                    difference, Statistics(router).percent(),
                    arm.reported ? fixed(*arm.reported, 2) : "not known to us",
                    seconds.empty() ? "-" : duration(Statistics(seconds).mean)});
  }
  for (size_t c = rows[0].size(); c-- > 0;)
    if (std::all_of(rows.begin() + 1, rows.end(), [&](const auto& row) { return row[c] == "-"; }))
      for (auto& row : rows) row.erase(row.begin() + long(c));
  return rows;
}

// What stands above a table: what was measured before, and what this one is.
std::string preface(const Recipe& recipe, const ReproduceOptions& o) {
  std::string words;
  if (!recipe.measured.empty()) words += "Measured by us: " + recipe.measured + "\n\n";
  if (o.scale == "tiny")
    words += "This is not the paper's scale: the numbers stand for themselves alone.\n\n";
  for (size_t i = 0; i < o.set.size(); ++i)
    words += (i ? ", " : "Not the recipe's own settings: with ") + o.set[i];
  words += (o.set.empty() ? "" : ".\n\n") + plural(size_t(o.seeds), "seed") +
           ": mean and standard deviation; differences are taken seed by seed, to the first line where no "
           "other is named.\n";
  return words;
}

std::string markdown(const Recipe& recipe, const ReproduceOptions& o,
                     const std::vector<std::vector<Outcome>>& outcomes,
                     const std::vector<std::vector<std::string>>& rows) {
  std::ostringstream out;
  out << "## " << recipe.name << ", scale " << o.scale << "\n\n"
      << recipe.title << ". " << recipe.paper << ".\n"
      << recipe.notes << "\n\n"
      << preface(recipe, o) << "\nMade by `tessera reproduce " << recipe.name << " --scale " << o.scale
      << " --seeds " << o.seeds << "`.\n\n";
  std::set<std::string> made;
  for (const auto& arm : outcomes)
    for (const Outcome& outcome : arm)
      if (!outcome.made.empty()) made.insert(outcome.made);
  for (const std::string& words : made) out << "- " << words << '\n';
  out << '\n';
  for (size_t r = 0; r < rows.size(); ++r) {
    out << '|';
    for (const std::string& cell : rows[r]) out << ' ' << cell << " |";
    out << '\n';
    if (r > 0) continue;
    out << '|';
    for (size_t c = 0; c < rows[r].size(); ++c) out << (c ? "--:|" : ":--|");
    out << '\n';
  }
  return out.str();
}

// The means of a recipe of axes: the last one's values beside each other, the others' below.
HeatMap heat_map(const Recipe& recipe, const std::vector<std::vector<Outcome>>& outcomes) {
  HeatMap map{recipe.title + ": top-1 in %", {}, {}, {}};
  const std::vector<RecipeArm>& columns = recipe.axes.back().values;
  for (const RecipeArm& column : columns) map.columns.push_back(column.name);
  for (size_t a = 0; a < outcomes.size(); ++a) {
    std::string row = recipe.arms[a].name;
    row.resize(row.size() - std::min(row.size(), columns[a % columns.size()].name.size() + 2));
    if (a % columns.size() == 0) map.rows.push_back(row);
    double sum = 0;
    for (const Outcome& outcome : outcomes[a]) sum += outcome.diverged ? NAN : 100 * outcome.top1;
    map.values.push_back(std::round(100 * sum / double(outcomes[a].size())) / 100);
  }
  return map;
}

nlohmann::ordered_json to_json(const Recipe& recipe, const ReproduceOptions& o,
                               const std::vector<std::vector<Outcome>>& outcomes) {
  nlohmann::ordered_json json{{"recipe", recipe.name},
                              {"scale", o.scale},
                              {"seeds", o.seeds},
                              {"set", o.set},
                              {"arms", nlohmann::json::array()}};
  for (size_t a = 0; a < recipe.arms.size(); ++a) {
    nlohmann::ordered_json arm{{"name", recipe.arms[a].name}, {"runs", nlohmann::json::array()}};
    if (recipe.arms[a].reported) arm["reported_percent"] = *recipe.arms[a].reported;
    for (const Outcome& outcome : outcomes[a]) arm["runs"].push_back(to_json(outcome));
    json["arms"].push_back(arm);
  }
  return json;
}

int run(const ReproduceOptions& o) {
  TESSERA_CHECK_AS(Exit::usage, o.scale == "tiny" || o.scale == "full", "--scale ", o.scale,
                   ": not tiny or full");
  use_threads(o.threads);
  const bool is_file = o.recipe.ends_with(".toml");
  Recipe recipe =
      is_file ? parse_recipe(read_text(o.recipe, 1 << 20, Exit::usage), fs::path(o.recipe).stem().string())
              : recipe_by_name(o.recipe);
  const Scale scale = o.scale == "full" ? Scale::full : Scale::tiny;
  recipe.arms = arms_at(recipe, scale);
  TESSERA_CHECK_AS(Exit::usage, !recipe.arms.empty(), "recipe ", recipe.name, " has no arm at the scale ",
                   o.scale, "; take --scale ", o.scale == "full" ? "tiny" : "full");
  Reproduction reproduction(o, recipe, scale);
  std::vector<std::vector<Outcome>> outcomes;
  try {
    outcomes = reproduction.run();
  } catch (const Interrupted& interrupted) {
    std::cerr << "tessera: interrupted and saved; the same command goes on" << std::endl;
    return 128 + interrupted.signal;
  }
  const auto rows = table_of(recipe, outcomes);
  write_file_atomically(reproduction.folder() + "/table.md", markdown(recipe, o, outcomes, rows));
  write_file_atomically(reproduction.folder() + "/table.json", to_json(recipe, o, outcomes).dump(2) + "\n");
  if (!recipe.axes.empty())
    write_file_atomically(reproduction.folder() + "/heat_map.svg", to_svg(heat_map(recipe, outcomes)));
  if (o.json) {
    print_json(to_json(recipe, o, outcomes));
    return 0;
  }
  std::cout << recipe.title << '\n'
            << recipe.paper << '\n'
            << recipe.notes << "\n\n"
            << preface(recipe, o) << '\n';
  Table table("l" + std::string(rows[0].size() - 1, 'r'));
  for (const auto& row : rows) table.add(row);
  table.print();
  std::cout << "\nwrote " << reproduction.folder() << "/table.md and table.json"
            << (recipe.axes.empty() ? "" : ", heat_map.svg") << '\n';
  return 0;
}

}  // namespace

Command reproduce_command() {
  return {"reproduce", "a paper's table: a method and its baseline side by side, over seeds",
          R"(Trains every arm of a recipe with the same seeds and writes a table: mean and standard
deviation, the difference to the baseline seed by seed, and the paper's number where it
is known. What was done stays done: the same command goes on where it stopped. The scale
tiny takes minutes on a CPU and is not the paper's; full is. RECIPE may be a file.toml.

  tessera list recipes
  tessera reproduce ewa-cifar100 --data ~/cifar-100-binary)",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<ReproduceOptions>();
            args.required("RECIPE", o->recipe, "Name of a recipe, or a file");
            args.option("--scale", "SCALE", o->scale, "tiny or full");
            args.option("--seeds", o->seeds, 1, "Runs of every arm");
            args.option("--data", "DIR", o->data, "Folder of the data set");
            args.option("--set", "KEY=VALUE", o->set, "Any setting, for all arms");
            args.option("--device", "NAME", o->device, "auto, cpu, cuda or cuda:I");
            args.option("--threads", o->threads, 0, "Threads; 0: all");
            args.option("-o,--out", "DIR", o->out, "Folder for the runs; else runs/reproduce");
            args.flag("-q,--quiet", o->quiet, "No progress on standard error");
            args.flag("--json", o->json, "The result as JSON");
            return [o] { return run(*o); };
          }};
}

}  // namespace tessera::cli
