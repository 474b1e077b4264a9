// tessera predict: the likeliest classes of single images.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <numeric>

#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/output.h"
#include "data/resize.h"
#include "engine/io/printable.h"
#include "train/replicas.h"

namespace tessera::cli {
namespace {

struct PredictOptions {
  std::string weights, data, name, split = "test";
  std::vector<std::string> files;
  std::vector<int64_t> indices;
  int64_t top = 5, threads = 0;
  bool json = false;
};

// The square in the middle, at the model's size and with its channels.
Image fit_to_model(const Image& image, const ModelFile& file) {
  const ModelConfig& c = file.config();
  const int64_t side = c.image_size;
  if (image.height == side && image.width == side) return to_channels(image, c.channels);
  const Window seen = centre_window(image.height, image.width, side, side, file.crop);
  return to_channels(resize(image.view(), seen, side, side, Filter::bicubic), c.channels);
}

struct Guess {
  int64_t index;
  double probability;
};

// softmax(logits), the largest first.
std::vector<Guess> guesses(const std::vector<float>& logits, int64_t top) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  std::vector<Guess> all;
  double total = 0;
  for (size_t k = 0; k < logits.size(); ++k) {
    all.push_back({int64_t(k), std::exp(double(logits[k] - largest))});
    total += all.back().probability;
  }
  TESSERA_CHECK_AS(Exit::diverged, std::isfinite(total), "the model's output is not finite");
  for (Guess& guess : all) guess.probability /= total;
  const size_t kept = std::min(all.size(), size_t(top));
  std::partial_sort(all.begin(), all.begin() + int64_t(kept), all.end(), [](const Guess& a, const Guess& b) {
    return a.probability != b.probability ? a.probability > b.probability : a.index < b.index;
  });
  all.resize(kept);
  return all;
}

class Predictor {
 public:
  Predictor(const PredictOptions& options, const ModelFile& file)
      : options_(options), file_(file), replicas_(*file.model, {.workers = 1}) {}

  // `what` names the sample whose prepared values these are; `label` is its true class where that is known.
  void predict(const nlohmann::ordered_json& what, const std::vector<float>& values,
               const std::string& label = {}) {
    std::vector<float> logits(size_t(file_.config().classes));
    replicas_.forward({values, {}, 1}, logits.data());
    const std::vector<Guess> top = guesses(logits, options_.top);
    if (options_.json) {
      nlohmann::ordered_json entry = what;
      if (!label.empty()) entry["label"] = label;
      for (const Guess& guess : top)
        entry["top"].push_back({{"class", file_.class_name(guess.index)},
                                {"index", guess.index},
                                {"probability", guess.probability}});
      results_.push_back(entry);
      return;
    }
    for (const auto& [key, value] : what.items())
      std::cout << (value.is_string() ? value.get<std::string>() : key + " " + value.dump());
    std::cout << (label.empty() ? "" : ", labelled " + harmless(label)) << '\n';
    Table table("lrl");
    for (const Guess& guess : top)
      table.add({"", percent(guess.probability), harmless(file_.class_name(guess.index))});
    table.print();
  }

  void finish() const {
    if (options_.json) print_json(results_);
  }

 private:
  const PredictOptions& options_;
  const ModelFile& file_;
  Replicas replicas_;
  nlohmann::ordered_json results_ = nlohmann::ordered_json::array();
};

int predict_files(const PredictOptions& o, const ModelFile& file) {
  TESSERA_CHECK_AS(Exit::usage, !file.config().is_of_points(), file.path,
                   ": takes point clouds, which no image file is; give --index N, of a data set");
  Normalization norm;
  if (file.normalization) {
    norm = *file.normalization;
  } else {
    norm.mean.assign(size_t(file.config().channels), 0.5f);
    norm.std = norm.mean;
    warn(
        text(file.path, " does not say how its images were normalised; 0.5 is taken for mean and deviation"));
  }
  const ModelConfig& c = file.config();
  const Normalizer normalizer(c.channels, norm);
  Predictor predictor(o, file);
  for (const std::string& path : o.files) {
    const Image image = fit_to_model(load_image(path), file);
    std::vector<float> values(image.pixels.size());
    normalizer.apply(image.view(), {}, values.data());
    predictor.predict({{"file", path}}, values);
  }
  predictor.finish();
  return 0;
}

int predict_indices(const PredictOptions& o, const ModelFile& file) {
  const Dataset data = load_data_for(file, data_folder(file, o.data), split_by_name(o.split), o.name);
  const auto preparation = data.samples->preparation(prepare_options(file, data));
  std::vector<float> values(size_t(preparation->shape().count()));
  Predictor predictor(o, file);
  for (const int64_t i : o.indices) {
    TESSERA_CHECK_AS(Exit::usage, i >= 0 && i < data.count(), "--index ", i, ": ", data.name, " has ",
                     data.count(), " images, from 0 to ", data.count() - 1);
    preparation->prepare(i, {}, values);
    predictor.predict({{"index", i}}, values, data.class_names[size_t(data.labels[size_t(i)])]);
  }
  predictor.finish();
  return 0;
}

int run(const PredictOptions& o) {
  TESSERA_CHECK_AS(Exit::usage, o.files.empty() != o.indices.empty(),
                   "give either image files, or --index with --data");
  use_threads(o.threads);
  const ModelFile file = load_model_file(o.weights);
  return o.files.empty() ? predict_indices(o, file) : predict_files(o, file);
}

}  // namespace

Command predict_command() {
  return {"predict", "the likeliest classes of PNG, JPEG or PGM files, or of a data set's images",
          R"(The square in the middle of an image is resized to what the model takes.

  tessera predict vit.safetensors shoe.png bag.jpg --top 3
  tessera predict vit.safetensors --data /usr/share/datasets/fashion-mnist --index 0 1 2)",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<PredictOptions>();
            args.required("WEIGHTS", o->weights, "Weights file, or a run's folder for its last checkpoint");
            args.rest("FILES", o->files, "Images");
            args.option("--data", "DIR", o->data, "Folder of a data set; else the one it was trained on");
            args.option("--index", "N", o->indices, "Images of the data set, counted from 0");
            args.option("--name", "SET", o->name, "mnist or fashion-mnist, which IDX files do not tell");
            args.option("--split", "SPLIT", o->split, "test or train");
            args.option("-k,--top", o->top, 1, "How many classes to show");
            args.option("--threads", o->threads, 0, "Threads; 0: all");
            args.flag("--json", o->json, "The results as JSON");
            return [o] { return run(*o); };
          }};
}

}  // namespace tessera::cli
