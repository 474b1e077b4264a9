// tessera info: what a safetensors file holds, or what this program can run on.
#include <iostream>

#include "cli/commands.h"
#include "cli/output.h"
#include "engine/io/printable.h"
#include "models/flops.h"
#include "models/weights.h"
#include "train/trainer.h"

namespace tessera::cli {
namespace {

struct InfoOptions {
  std::string file;
  bool devices = false, json = false;
};

// The model in the file; nothing, with the reason in `why_not`, where it holds none that is known here.
std::optional<ModelConfig> model_in(const SafetensorsFile& file, std::string& why_not) {
  try {
    return model_config_of(file);
  } catch (const Error& error) {
    why_not = error.what();
    return {};
  }
}

nlohmann::ordered_json json_of(const ModelConfig& config) {
  const ModelCost own = cost(config), fused = cost(fused_config(config));
  return {
      {"config", config_to_json(config)},      {"parameters", own.parameters},
      {"parameters_fused", fused.parameters},  {"parameters_an_image", own.parameters - own.idle_parameters},
      {"training_flops", training_flops(own)}, {"forward_flops", fused.forward_flops}};
}

void print_model(const ModelConfig& config) {
  const ModelCost own = cost(config), fused = cost(fused_config(config));
  std::cout << "\nModel\n";
  Table table("lll");
  const auto settings = config_to_json(config);
  for (const auto& [key, value] : settings.items())
    table.add({"", key, value.is_string() ? printable(value.get<std::string>()) : value.dump()});
  table.add({"", "parameters", grouped(own.parameters)});
  if (own.idle_parameters > 0)
    table.add({"", "parameters, an image", grouped(own.parameters - own.idle_parameters)});
  else if (config.is_moe())
    table.add({"", "parameters, fused", grouped(fused.parameters)});
  table.add({"", "training, an image", operations(training_flops(own))});
  table.add({"", "inference, an image", operations(fused.forward_flops)});
  table.print();
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out;
  for (const int64_t size : shape) out += (out.empty() ? "" : ",") + std::to_string(size);
  return "(" + out + ")";
}

int run(const InfoOptions& o) {
  TESSERA_CHECK_AS(Exit::usage, o.devices == o.file.empty(),
                   "info is of a FILE or of --devices: give one of them");
  if (o.devices) return print_list("devices", o.json);
  const SafetensorsFile file(weights_path(o.file));
  int64_t elements = 0, bytes = 0;
  for (const TensorEntry& entry : file.entries()) {
    elements += entry.count();
    bytes += int64_t(entry.end - entry.begin);
  }
  std::string why_not;
  const auto model = model_in(file, why_not);

  if (o.json) {
    nlohmann::ordered_json json{{"file", file.name()},
                                {"bytes", bytes},
                                {"elements", elements},
                                {"tensors", nlohmann::ordered_json::array()},
                                {"metadata", file.metadata()}};
    for (const TensorEntry& entry : file.entries())
      json["tensors"].push_back(
          {{"name", entry.name}, {"dtype", dtype_name(entry.dtype)}, {"shape", entry.shape}});
    json["model"] = model ? json_of(*model) : nlohmann::ordered_json();
    print_json(json);
    return 0;
  }
  std::cout << file.name() << ": " << grouped(int64_t(file.entries().size())) << " tensors, "
            << grouped(elements) << " elements, " << grouped(bytes) << " bytes\n";
  if (model)
    print_model(*model);
  else
    std::cout << "\nNo model of this program: " << why_not << '\n';
  if (!file.metadata().empty()) {
    std::cout << "\nMetadata\n";
    Table table("lll");
    for (const auto& [key, value] : file.metadata()) table.add({"", printable(key), printable(value)});
    table.print();
  }
  std::cout << "\nTensors\n";
  Table table("llrl");
  for (const TensorEntry& entry : file.entries())
    table.add({"", printable(entry.name), std::string(dtype_name(entry.dtype)), shape_text(entry.shape)});
  table.print();
  return 0;
}

}  // namespace

Command info_command() {
  return {"info", "tensors, parameters, FLOPs and metadata of any safetensors file, or the devices",
          R"(FLOPs are two for each multiply-add of the matrix products. A mixture of experts is
fused before inference: what that costs is shown.

  tessera info runs/ewa/model.safetensors
  tessera info --devices)",
          [](Arguments& args) -> Action {
            const auto o = std::make_shared<InfoOptions>();
            args.optional("FILE", o->file, "Safetensors file, or a run's folder for its last checkpoint");
            args.flag("--devices", o->devices, "What this program can run on, as `tessera list devices`");
            args.flag("--json", o->json, "The same as JSON");
            return [o] { return run(*o); };
          }};
}

}  // namespace tessera::cli
