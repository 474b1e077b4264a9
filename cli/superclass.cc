// tessera superclass: groups of classes that a dense model confuses, for the experts of a Mobile V-MoE.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/output.h"
#include "engine/io/atomic_file.h"
#include "engine/io/printable.h"
#include "train/checkpoint.h"
#include "train/superclass.h"

namespace tessera::cli {
namespace {

struct SuperclassOptions {
  std::string weights, out, data, name, split = "train";
  int64_t experts = 10, trained_on = 0, limit = 0, threads = 0;
  bool json = false;
};

// The first training images that the model was trained on: as given, or as its run's settings say.
int64_t trained_on(const SuperclassOptions& o, const ModelFile& file) {
  if (o.trained_on > 0) return o.trained_on;
  return file.metadata.count(kRunKey) ? checkpoint_config(SafetensorsFile(file.path)).data.limit : 0;
}

void print(const Superclasses& superclass, const Dataset& data, const Graph& graph, const Confusion& seen) {
  const int64_t groups = 1 + *std::max_element(superclass.begin(), superclass.end());
  Table table("rrl");
  table.add({"group", "classes", ""});
  for (int64_t g = 0; g < groups; ++g) {
    std::string names;
    int64_t count = 0;
    for (size_t k = 0; k < superclass.size(); ++k)
      if (superclass[k] == g) {
        names += (names.empty() ? "" : ", ") + harmless(data.class_names[k]);
        ++count;
      }
    table.add({grouped(g + 1), grouped(count), names});
  }
  table.print();
  std::cout << "\nFrom " << grouped(seen.images) << " images; modularity "
            << fixed(modularity(graph, superclass), 3) << '\n';
}

int run(const SuperclassOptions& o) {
  use_threads(o.threads);
  const ModelFile file = load_model_file(o.weights);
  check_dense(file.config(), file.path);
  const Split split = split_by_name(o.split);
  const Dataset data = load_data_for(file, data_folder(file, o.data), split, o.name);
  int64_t first = 0;
  if (split == Split::train) {
    first = trained_on(o, file);
    check_held_out(data, first);
  }
  Replicas replicas(*file.model, {});
  const Confusion seen = confusion(replicas, data, normalization_for(file, data), first, o.limit);
  if (const std::string note = unseen_classes(seen, data.class_names); !note.empty())
    std::cerr << note << std::endl;
  const Graph graph = confusion_graph(seen);
  const Superclasses superclass = cluster(graph, o.experts);
  write_file_atomically(o.out, superclasses_to_toml(superclass, data.class_names,
                                                    text("Super-classes of ", data.name, ": what ", file.path,
                                                         " confuses on ", seen.images, " images of the ",
                                                         o.split, " split from ", first, " on")));
  if (o.json)
    print_json({{"out", o.out},
                {"images", seen.images},
                {"first", first},
                {"modularity", modularity(graph, superclass)},
                {"superclass", superclass}});
  else
    print(superclass, data, graph, seen);
  return 0;
}

}  // namespace

Command superclass_command() {
  return {"superclass", "group the classes that a dense model confuses, for a per-image router",
          R"(The model's confusions on images that it was not trained on make a graph of the classes,
whose communities (Louvain) are the groups: one for each expert of a Mobile V-MoE, which
takes the file as model.moe.superclasses. By default these images are the training images
after the first data.limit, which a run's checkpoint remembers; --split test takes the test
images, which then are no longer unseen.

  tessera train --preset cifar100 --set data.limit=45000 --out runs/dense
  tessera superclass runs/dense --experts 10 -o groups.toml)",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<SuperclassOptions>();
            args.required("WEIGHTS", o->weights, "Weights file, or a run's folder for its last checkpoint");
            args.required("-o,--out", o->out, "TOML file to write");
            args.option("--experts", o->experts, 2, "Groups");
            args.option("--data", "DIR", o->data, "Folder of the data set; else the one it was trained on");
            args.option("--name", "SET", o->name, "mnist or fashion-mnist, which IDX files do not tell");
            args.option("--split", "SPLIT", o->split, "train (what is held out of it) or test");
            args.option("--trained-on", o->trained_on, 0, "Training images that the model was trained on");
            args.option("--limit", o->limit, 0, "Only the first N images that are held out; 0: all");
            args.option("--threads", o->threads, 0, "Threads; 0: all");
            args.flag("--json", o->json, "The result as JSON");
            return [o] { return run(*o); };
          }};
}

}  // namespace tessera::cli
