// tessera check: what a data set holds, how fast it is read, and what training will see of it.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>

#include "cli/commands.h"
#include "cli/contact_sheet.h"
#include "cli/output.h"
#include "cli/run_settings.h"
#include "cuda/devices.h"
#include "data/survey.h"
#include "engine/base/parallel.h"
#include "engine/io/printable.h"
#include "train/trainer.h"

namespace tessera::cli {
namespace {

struct CheckOptions {
  RunSettings settings;
  std::string preview;
  int64_t limit = 0, step = 0;
  bool json = false;
};

struct Checked {
  std::string split;
  Dataset data;
  Survey survey;
};

std::string range(int64_t least, int64_t most) {
  return least == most ? grouped(least) : grouped(least) + " to " + grouped(most);
}

std::string numbers(const std::vector<double>& values) {
  std::string words;
  for (const double value : values) words += (words.empty() ? "" : " ") + fixed(value, 4);
  return words;
}

// Samples that the loader makes ready in a second, for at least this long.
double loader_speed(Loader& loader) {
  constexpr double kSeconds = 2;
  using Clock = std::chrono::steady_clock;
  loader.next();  // its threads start
  const auto start = Clock::now();
  double seconds = 0;
  for (int64_t samples = 0;;) {
    samples += loader.next().size();
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (seconds >= kSeconds) return double(samples) / seconds;
  }
}

nlohmann::ordered_json to_json(const Checked& c) {
  const Survey& s = c.survey;
  nlohmann::ordered_json json{{"split", c.split},
                              {"samples", c.data.count()},
                              {"classes", c.data.classes()},
                              {"class_samples", {s.smallest_class, s.largest_class}},
                              {"read", s.read},
                              {"unreadable", s.unreadable},
                              {"errors", s.errors},
                              {"left_out", c.data.notes}};
  if (!s.mean.empty()) {
    json["height"] = {s.least_height, s.most_height};
    json["width"] = {s.least_width, s.most_width};
    json["mean"] = s.mean;
    json["std"] = s.std;
  }
  return json;
}

void print(const std::vector<Checked>& splits) {
  Table table("lll");
  const auto row = [&](const char* head, auto cell) { table.add({head, cell(splits[0]), cell(splits[1])}); };
  row("", [](const Checked& c) { return c.split; });
  row("samples", [](const Checked& c) { return grouped(c.data.count()); });
  row("classes", [](const Checked& c) { return grouped(c.data.classes()); });
  row("of a class", [](const Checked& c) { return range(c.survey.smallest_class, c.survey.largest_class); });
  if (!splits[0].survey.mean.empty()) {
    row("height", [](const Checked& c) { return range(c.survey.least_height, c.survey.most_height); });
    row("width", [](const Checked& c) { return range(c.survey.least_width, c.survey.most_width); });
    row("mean", [](const Checked& c) { return numbers(c.survey.mean); });
    row("deviation", [](const Checked& c) { return numbers(c.survey.std); });
  }
  row("looked at", [](const Checked& c) { return grouped(c.survey.read); });
  row("unreadable", [](const Checked& c) { return grouped(c.survey.unreadable); });
  table.print();
  for (const Checked& c : splits) {
    for (const std::string& note : c.data.notes) std::cout << "note: " << printable(note, 400) << '\n';
    for (const std::string& error : c.survey.errors)
      std::cout << "unreadable: " << printable(error, 400) << '\n';
    if (size_t(c.survey.unreadable) > c.survey.errors.size())
      std::cout << "and " << grouped(c.survey.unreadable - int64_t(c.survey.errors.size())) << " more\n";
  }
}

std::string environment() {
  std::string words = text("tessera ", TESSERA_VERSION, ", ", thread_count(), " threads, products through ",
                           TESSERA_ONEDNN ? "oneDNN" : "Eigen");
  for (const std::string& card : cuda_devices()) words += ", " + card;
  return words;
}

int run(const CheckOptions& o) {
  const RunConfig config = effective_config(o.settings);
  TESSERA_CHECK_AS(Exit::usage, !config.data.folder.empty(),
                   "no data set: give --data DIR, or data.folder in the configuration");
  std::vector<Checked> splits;
  int64_t unreadable = 0;
  for (const auto& [split, word] : {std::pair{Split::train, "train"}, {Split::test, "test"}}) {
    Dataset data = load_dataset(config.data.folder, split, config.data.name);
    Survey found = survey(data, o.limit);
    unreadable += found.unreadable;
    splits.push_back({word, std::move(data), std::move(found)});
  }
  nlohmann::ordered_json json{{"environment", environment()},
                              {"data", splits[0].data.name},
                              {"folder", config.data.folder},
                              {"splits", {to_json(splits[0]), to_json(splits[1])}}};
  if (!o.json) {
    std::cout << environment() << "\n\n" << splits[0].data.name << " in " << config.data.folder << '\n';
    print(splits);
  }
  if (unreadable == 0) {
    const Dataset& train = splits[0].data;
    const Normalization norm = normalization(train.name);
    Shape shape = train.samples->shape();
    for (int axis = 0; axis < shape.rank(); ++axis)  // a size of 0 follows the model
      if (shape[axis] == 0) shape[axis] = config.model.image_size;
    if (shape.rank() == 2) shape = {};  // all points of a cloud
    const LoaderOptions options = training_options(config, shape, norm);
    Loader loader(train, options);
    const double speed = loader_speed(loader);
    json["loader"] = {{"workers", options.workers}, {"samples_per_s", speed}};
    if (!o.json)
      std::cout << "\nloader  " << grouped(std::llround(speed)) << " samples/s with " << options.workers
                << (options.workers == 1 ? " worker" : " workers") << ", as for training\n";
    if (!o.preview.empty()) {
      TESSERA_CHECK_AS(Exit::usage, shape.rank() == 3, "--preview: ", train.name, " holds no images");
      TESSERA_CHECK_AS(Exit::usage, o.step < loader.steps_per_epoch(), "--step ", o.step, ": an epoch has ",
                       loader.steps_per_epoch(), " steps, from 0");
      loader.seek(0, o.step);
      const ContactSheet sheet(loader.next(), options.prepare.shape, train, norm);
      sheet.write(o.preview);
      json["preview"] = {{"file", o.preview}, {"samples", sheet.labels()}};
      if (!o.json) {
        std::cout << "\nwrote " << o.preview << ", row by row:\n";
        sheet.print();
      }
    }
  }
  if (o.json) print_json(json);
  TESSERA_CHECK_AS(Exit::data, unreadable == 0, unreadable, " samples of ", config.data.folder,
                   " cannot be read; repair or remove them");
  return 0;
}

}  // namespace

Command check_command() {
  return {"check", "what a data set holds, whether all of it can be read, and how fast",
          R"(Reads every sample of both splits, then measures the loader as training would use it.
--preview writes a PNG with the first samples of a training batch as the model sees
them, augmented and mixed by the settings given.

  tessera check --data ~/flowers
  tessera check --preset cifar100-full --data ~/cifar-100-binary --preview sheet.png)",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<CheckOptions>();
            declare(args, o->settings);
            args.option("--preview", "FILE.png", o->preview, "Write a contact sheet of a training batch");
            args.option("--step", o->step, 0, "The step of the first epoch whose batch that is");
            args.option("--limit", o->limit, 0, "Look at the first N samples of a split only; 0: all");
            args.flag("--json", o->json, "The result as JSON");
            return [o] { return run(*o); };
          }};
}

}  // namespace tessera::cli
