// tessera study diversity: how alike a model's patch tokens are, layer by layer.
#include <filesystem>
#include <iostream>

#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/output.h"
#include "engine/io/atomic_file.h"
#include "train/chart.h"
#include "train/diversity.h"

namespace tessera::cli {
namespace {

struct DiversityOptions {
  std::vector<std::string> weights;
  std::string data, name, split = "test", out;
  int64_t limit = 256, threads = 0;
  bool json = false;
};

struct Measured {
  std::string path, model;
  std::vector<LayerSimilarity> layers;
};

Measured measure(const std::string& weights, const DiversityOptions& o) {
  const ModelFile file = load_model_file(weights);
  const Dataset data = load_data_for(file, data_folder(file, o.data), split_by_name(o.split), o.name);
  return {file.path, file.config().name,
          token_similarities(*file.model, data, normalization_for(file, data), o.limit)};
}

nlohmann::ordered_json to_json(const std::vector<Measured>& models, const DiversityOptions& o) {
  nlohmann::ordered_json json{{"images", o.limit}, {"split", o.split}, {"models", nlohmann::json::array()}};
  for (const Measured& m : models) {
    nlohmann::ordered_json layers = nlohmann::ordered_json::object();
    for (const LayerSimilarity& layer : m.layers) layers[layer.layer] = layer.similarity;
    json["models"].push_back({{"weights", m.path}, {"model", m.model}, {"similarity", layers}});
  }
  return json;
}

Chart chart_of(const std::vector<Measured>& models) {
  Chart chart{.title = "Patch tokens alike: mean cosine of all pairs",
              .x_label = "after block (0: the patch embedding)",
              .y_label = "similarity"};
  for (const Measured& m : models) {
    Series line{m.path, {}, {}};
    for (size_t i = 0; i < m.layers.size(); ++i) {
      line.x.push_back(double(i));
      line.y.push_back(m.layers[i].similarity);
    }
    chart.series.push_back(line);
  }
  return chart;
}

// Models side by side by the number of a layer.
void print(const std::vector<Measured>& models) {
  size_t most = 0;
  std::vector<std::string> head{""};
  for (const Measured& m : models) {
    most = std::max(most, m.layers.size());
    head.insert(head.end(), {m.path, ""});
  }
  Table table("l" + std::string(2 * models.size(), 'r'));
  table.add(head);
  for (size_t i = 0; i < most; ++i) {
    std::vector<std::string> row{text(i)};
    for (const Measured& m : models) {
      const bool there = i < m.layers.size();
      row.push_back(there ? m.layers[i].layer : "");
      row.push_back(there ? fixed(m.layers[i].similarity, 4) : "");
    }
    table.add(row);
  }
  table.print();
}

int run(const DiversityOptions& o) {
  TESSERA_CHECK_AS(Exit::usage, !o.weights.empty(), "no WEIGHTS: name one file or more");
  use_threads(o.threads);
  std::vector<Measured> models;
  for (const std::string& weights : o.weights) models.push_back(measure(weights, o));
  const nlohmann::ordered_json json = to_json(models, o);
  if (!o.out.empty()) {
    std::error_code error;
    std::filesystem::create_directories(o.out, error);
    TESSERA_CHECK(std::filesystem::is_directory(o.out), o.out, ": cannot be made: ", error.message());
    write_file_atomically(o.out + "/diversity.json", json.dump(1) + "\n");
    write_file_atomically(o.out + "/diversity.svg", to_svg(chart_of(models)));
  }
  if (o.json) {
    print_json(json);
    return 0;
  }
  print(models);
  if (!o.out.empty()) std::cout << "\nwrote " << o.out << "/diversity.json and diversity.svg\n";
  return 0;
}

}  // namespace

Command study_diversity_command() {
  return {"study diversity", "measure how alike the patch tokens are, layer by layer",
          R"(For every image, the mean cosine between all pairs of patch tokens after the patch
embedding and after each block, then the mean over the images: 1 where all tokens point
the same way; the lower, the more diverse they are. Several models of one data set are
shown side by side. With --out it writes diversity.json and diversity.svg.

  tessera study diversity runs/patchify runs/conv-stem --out runs/diversity)",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<DiversityOptions>();
            args.rest("WEIGHTS", o->weights, "Weights files, or runs' folders for their last checkpoints");
            args.option("--data", "DIR", o->data, "Folder of the data set; else the one it was trained on");
            args.option("--name", "SET", o->name, "mnist or fashion-mnist, which IDX files do not tell");
            args.option("--split", "SPLIT", o->split, "test or train");
            args.option("--limit", o->limit, 0, "Only the first N images; 0: all");
            args.option("-o,--out", "DIR", o->out, "Folder to write to");
            args.option("--threads", o->threads, 0, "Threads; 0: all");
            args.flag("--json", o->json, "The result as JSON");
            return [o] { return run(*o); };
          }};
}

}  // namespace tessera::cli
