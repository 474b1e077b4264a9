// tessera eval: a model's results on a labelled set.
#include <iostream>

#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/output.h"
#include "cuda/devices.h"
#include "engine/io/printable.h"
#include "train/evaluate.h"

namespace tessera::cli {
namespace {

struct EvalOptions {
  std::string weights, data, name, split = "test", device = "cpu";
  int64_t limit = 0, threads = 0, batch = 256, workers = 1, votes = 1, seed = 0;
  bool json = false, per_class = false;
};

void print(const EvalOptions& o, const ModelFile& file, const Dataset& data, const Evaluation& e) {
  if (o.json) {
    nlohmann::ordered_json json{{"weights", file.path}, {"data", data.name},
                                {"split", o.split},     {"samples", e.samples},
                                {"top1", e.top1},       {"top5", e.top5},
                                {"loss", e.loss},       {"images_per_s", e.images_per_second}};
    for (const auto& [name, values] : e.notes) json[name] = values;
    if (o.per_class)
      for (size_t k = 0; k < e.class_accuracy.size(); ++k)
        json["classes"].push_back({{"class", data.class_names[k]}, {"top1", e.class_accuracy[k]}});
    print_json(json);
    return;
  }
  Table table("lr");
  table.add({"images", grouped(e.samples)});
  table.add({"top-1", percent(e.top1)});
  if (data.classes() > 5) table.add({"top-5", percent(e.top5)});
  table.add({"loss", fixed(e.loss, 4)});
  if (const auto router = e.router_accuracy()) table.add({"router", percent(*router)});
  table.add({"images/s", fixed(e.images_per_second, 1)});
  table.print();
  if (!o.per_class) return;
  std::cout << '\n';
  Table classes("lr");
  for (size_t k = 0; k < e.class_accuracy.size(); ++k)
    classes.add({harmless(data.class_names[k]), percent(e.class_accuracy[k])});
  classes.print();
}

int run(const EvalOptions& o) {
  use_threads(o.threads);
  const Device device = device_by_name(o.device);
  const ModelFile file = load_model_file(o.weights);
  TESSERA_CHECK_AS(Exit::usage, o.votes == 1 || file.config().is_of_points(), "--votes ", o.votes,
                   ": only point clouds are voted on, and ", file.path, " takes images");
  const Dataset data = load_data_for(file, data_folder(file, o.data), split_by_name(o.split), o.name);
  file.model->parameters().move_to(device);
  const Device::Scope there(device);
  Replicas replicas(*file.model, {});
  print(o, file, data,
        evaluate(replicas, data, normalization_for(file, data), file.config().classes, o.batch, o.limit,
                 int(o.workers), {.count = o.votes, .seed = uint64_t(o.seed)}));
  return 0;
}

}  // namespace

Command eval_command() {
  return {"eval", "accuracy and loss of a weights file on a test set",
          R"(Every image once. Of a router that super-classes taught, the share of images whose
super-class it finds too. Takes dense models, mixtures of experts, fused models, a run's
checkpoint, and ViT or DeiT files of timm.

  tessera eval runs/ewa/best.safetensors --per-class)",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<EvalOptions>();
            args.required("WEIGHTS", o->weights, "Weights file, or a run's folder for its last checkpoint");
            args.option("--data", "DIR", o->data, "Folder of the data set; else the one it was trained on");
            args.option("--name", "SET", o->name, "mnist or fashion-mnist, which IDX files do not tell");
            args.option("--split", "SPLIT", o->split, "test or train");
            args.option("--limit", o->limit, 0, "Only the first N images; 0: all");
            args.option("--batch", o->batch, 1, "Images at a time");
            args.option("--device", "NAME", o->device, "auto, cpu, cuda or cuda:I");
            args.option("--votes", o->votes, 1, "Point clouds: mean logits of N augmented parts of each");
            args.option("--seed", o->seed, 0, "Of the votes");
            args.option("--threads", o->threads, 0, "Threads; 0: all");
            args.option("--workers", o->workers, 0, "Threads that read images ahead");
            args.flag("--per-class", o->per_class, "The accuracy of each class too");
            args.flag("--json", o->json, "The result as JSON");
            return [o] { return run(*o); };
          }};
}

}  // namespace tessera::cli
