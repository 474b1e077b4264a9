#include "train/superclass.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "data/loader.h"
#include "engine/base/nearest_name.h"
#include "engine/base/rng.h"
#include "engine/io/atomic_file.h"
#include "engine/io/printable.h"
#include "nn/moe/random_partition.h"
#include "train/toml.h"

namespace tessera {
namespace {

constexpr size_t kTopPredictions = 5;
constexpr uint64_t kFileBytesMax = 1 << 24;

// Adds the probabilities of the likeliest classes to a row of the confusion.
void add_prediction(const float* logits, int64_t K, double* row) {
  std::vector<int64_t> order(static_cast<size_t>(K));
  std::iota(order.begin(), order.end(), 0);
  const auto top = order.begin() + int64_t(std::min(size_t(K), kTopPredictions));
  std::partial_sort(order.begin(), top, order.end(), [=](int64_t a, int64_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  });
  double total = 0;
  for (int64_t k = 0; k < K; ++k) total += std::exp(double(logits[k] - logits[order[0]]));
  for (auto k = order.begin(); k != top; ++k)
    row[*k] += std::exp(double(logits[*k] - logits[order[0]])) / total;
}

Superclasses coarse_superclasses(const Dataset& data, int64_t groups) {
  TESSERA_CHECK_AS(Exit::usage, !data.coarse_labels.empty(), "model.moe.superclasses = coarse: ", data.name,
                   " has no super-classes of its own; name a file, or random");
  TESSERA_CHECK_AS(Exit::usage, int64_t(data.coarse_names.size()) == groups, "model.moe.experts = ", groups,
                   ", but ", data.name, " has ", data.coarse_names.size(), " super-classes");
  Superclasses superclass(data.class_names.size(), -1);
  for (size_t i = 0; i < data.labels.size(); ++i) {
    int32_t& own = superclass[size_t(data.labels[i])];
    TESSERA_CHECK_AS(Exit::data, own < 0 || own == data.coarse_labels[i], data.name, ": the class ",
                     printable(data.class_names[size_t(data.labels[i])]), " is in two super-classes, ", own,
                     " and ", data.coarse_labels[i]);
    own = data.coarse_labels[i];
  }
  const auto missing = std::find(superclass.begin(), superclass.end(), -1);
  TESSERA_CHECK_AS(Exit::data, missing == superclass.end(), data.name, ": no image of the class ",
                   printable(data.class_names[size_t(missing - superclass.begin())]));
  return superclass;
}

Superclasses random_superclasses(int64_t classes, int64_t groups, uint64_t seed) {
  const Permutation permutation(uint64_t(classes),
                                Draw{.seed = seed, .stream = Stream::partition, .site = UINT32_MAX});
  Superclasses superclass;
  for (int64_t k = 0; k < classes; ++k)
    superclass.push_back(int32_t(part_of(int64_t(permutation.at(uint64_t(k))), classes, groups)));
  return superclass;
}

}  // namespace

Confusion confusion(Replicas& replicas, const Dataset& data, const Normalization& normalization,
                    int64_t first, int64_t limit) {
  constexpr int64_t kBatch = 256;
  const int64_t K = data.classes(), end = limit > 0 ? std::min(data.count(), first + limit) : data.count();
  Loader loader(data, {.training = false,
                       .batch_size = std::min(kBatch, end),
                       .prepare = {.shape = replicas.input_shape(), .normalization = normalization},
                       .limit = end});
  Confusion seen{K, 0, std::vector<double>(size_t(K * K), 0.0)};
  std::vector<float> logits(size_t(kBatch * K));
  loader.seek(0, first / kBatch);
  for (int64_t step = first / kBatch; step < loader.steps_per_epoch(); ++step) {
    const Batch& batch = loader.next();
    replicas.forward({batch.inputs, {}, batch.size()}, logits.data());
    for (int64_t b = 0; b < batch.size(); ++b) {
      if (batch.indices[size_t(b)] < first) continue;
      add_prediction(&logits[size_t(b * K)], K, &seen.rows[size_t(batch.labels[size_t(b)] * K)]);
      ++seen.images;
    }
  }
  return seen;
}

std::string unseen_classes(const Confusion& confusion, const std::vector<std::string>& class_names) {
  std::vector<std::string> unseen;
  for (int64_t k = 0; k < confusion.classes; ++k) {
    const auto row = confusion.rows.begin() + k * confusion.classes;
    if (std::all_of(row, row + confusion.classes, [](double p) { return p == 0; }))
      unseen.push_back(class_names[size_t(k)]);
  }
  if (unseen.empty()) return "";
  return text("note: none of the ", confusion.images, " images is of ", unseen.size(),
              unseen.size() == 1 ? " class, " : " classes, such as ", printable(unseen[0]),
              ": only what is taken for them says where they belong; hold out more images");
}

void check_held_out(const Dataset& training, int64_t trained_on) {
  const bool some_left = trained_on > 0 && training.count() > trained_on;
  const std::string seen = trained_on > 0 ? text("the first ", trained_on) : std::string("all");
  TESSERA_CHECK_AS(Exit::usage, some_left, "the model was trained on ", seen, " of the ", training.count(),
                   " training images of ", training.name,
                   ": none are held out. Train it with data.limit; or, in tessera superclass, say how many "
                   "they were by --trained-on, or take --split test, whose images then are no longer unseen");
}

void check_dense(const ModelConfig& model, const std::string& file) {
  TESSERA_CHECK_AS(
      Exit::usage, !model.is_moe(), file,
      ": super-classes are what a dense model confuses, and this is a mixture of experts; ",
      model.moe.router == MoeRouter::random ? "fuse it first, by tessera fuse" : "train a dense one");
}

Graph confusion_graph(const Confusion& confusion) {
  const int64_t K = confusion.classes;
  std::vector<double> p = confusion.rows;
  for (int64_t k = 0; k < K; ++k) {
    double* const row = p.data() + k * K;
    const double sum = std::accumulate(row, row + K, 0.0);
    for (int64_t j = 0; j < K; ++j) row[j] = j == k || sum == 0 ? 0 : row[j] / sum;
  }
  Graph graph{K, std::vector<double>(size_t(K * K))};
  for (int64_t k = 0; k < K; ++k)
    for (int64_t j = 0; j < K; ++j)
      graph.weights[size_t(k * K + j)] = p[size_t(k * K + j)] + p[size_t(j * K + k)];
  return graph;
}

std::string superclasses_to_toml(const Superclasses& superclass, const std::vector<std::string>& class_names,
                                 const std::string& comment) {
  std::ostringstream out;
  out << "# " << harmless(comment) << "\n";
  const int32_t groups = superclass.empty() ? 0 : 1 + *std::max_element(superclass.begin(), superclass.end());
  for (int32_t g = 0; g < groups; ++g) {
    out << "\n[[group]]\nclasses = [\n";  // a line each: names may have dots (parse_toml)
    for (size_t k = 0; k < superclass.size(); ++k)
      if (superclass[k] == g) out << "  " << toml_value(class_names[k]) << ",\n";
    out << "]\n";
  }
  return out.str();
}

Superclasses superclasses_from_toml(const std::string& source, const std::string& file_name,
                                    const std::vector<std::string>& class_names, int64_t groups) {
  const toml::table table = parse_toml(source, file_name);
  const toml::array* list = table["group"].as_array();
  TESSERA_CHECK_AS(Exit::usage, list && list->is_array_of_tables(), file_name,
                   ": holds no list of [[group]], each with classes = [\"name\", ...]");
  TESSERA_CHECK_AS(Exit::usage, int64_t(list->size()) == groups, "model.moe.experts = ", groups, ", but ",
                   file_name, " has ", list->size(), " groups");
  Superclasses superclass(class_names.size(), -1);
  for (size_t g = 0; g < list->size(); ++g) {
    const toml::array* classes = (*list)[g].as_table()->get_as<toml::array>("classes");
    TESSERA_CHECK_AS(Exit::usage, classes && !classes->empty(), file_name, ": group ", g + 1,
                     " has no classes = [\"name\", ...]");
    for (const toml::node& node : *classes) {
      const auto name = node.value<std::string>();
      TESSERA_CHECK_AS(Exit::usage, name, file_name, ": group ", g + 1, ": a class that is no string");
      const auto found = std::find(class_names.begin(), class_names.end(), *name);
      TESSERA_CHECK_AS(Exit::usage, found != class_names.end(), file_name, ": the class ", printable(*name),
                       " is not known; did you mean ", printable(nearest_name(*name, class_names)), "?");
      int32_t& own = superclass[size_t(found - class_names.begin())];
      TESSERA_CHECK_AS(Exit::usage, own < 0, file_name, ": the class ", printable(*name),
                       " is in the groups ", own + 1, " and ", g + 1);
      own = int32_t(g);
    }
  }
  for (size_t k = 0; k < superclass.size(); ++k)
    TESSERA_CHECK_AS(Exit::usage, superclass[k] >= 0, file_name, ": the class ", printable(class_names[k]),
                     " is in no group");
  return superclass;
}

Superclasses find_superclasses(const std::string& source, const Dataset& data, int64_t groups,
                               uint64_t seed) {
  if (source == "coarse") return coarse_superclasses(data, groups);
  if (source == "random") {
    TESSERA_CHECK_AS(Exit::usage, groups <= data.classes(), "model.moe.experts = ", groups,
                     ": more than the ", data.classes(), " classes of ", data.name);
    return random_superclasses(data.classes(), groups, seed);
  }
  return superclasses_from_toml(read_text(source, kFileBytesMax, Exit::usage), source, data.class_names,
                                groups);
}

void fill_superclasses(RunConfig& config) {
  MoeConfig& moe = config.model.moe;
  if (!config.model.is_moe() || moe.superclasses == "none" || !moe.groups.empty()) return;
  const Dataset data = load_dataset(config.data.folder, Split::test, config.data.name);
  for (const int32_t group : find_superclasses(moe.superclasses, data, moe.experts, config.train.seed))
    moe.groups += text(moe.groups.empty() ? "" : ",", group);
  validate(config.model);
}

}  // namespace tessera
