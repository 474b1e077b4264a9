#include "train/checkpoint.h"

#include <nlohmann/json.hpp>

namespace tessera {
namespace {

constexpr const char* kStateKey = "tessera.state";  // RunState

const std::string& metadata_of(const SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  TESSERA_CHECK_AS(Exit::file, found != file.metadata().end(), file.name(),
                   ": is no checkpoint of a run: it has no ", key,
                   " in its metadata; weights alone can be evaluated, predicted with and fused");
  return found->second;
}

}  // namespace

void save_checkpoint(const std::string& path, const RunConfig& config, const RunState& state,
                     const Model& model, const Buffers& buffers, const Metadata& metadata) {
  SafetensorsWriter writer;
  add_parameters(writer, model);
  for (const auto& buffer : buffers) add_tensor(writer, kOptimizerPrefix + buffer.name, *buffer.values);
  for (const auto& [key, value] : metadata) writer.metadata()[key] = value;
  writer.metadata()[kRunKey] = config_to_json(config).dump();
  writer.metadata()[kStateKey] = nlohmann::ordered_json{
      {"step", state.step},
      {"optimizer_steps", state.optimizer_steps},
      {"best_top1", state.best_top1},
      {"epoch_loss", state.epoch_loss},
      {"epoch_correct", state.epoch_correct},
      {"epoch_gradient_norm", state.epoch_gradient_norm},
      {"data_fingerprint",
       state.data_fingerprint}}.dump();
  writer.write(path);
}

RunConfig checkpoint_config(const SafetensorsFile& file) {
  RunConfig config;
  try {
    fields_from_json(fields(config), metadata_of(file, kRunKey));
    validate(config);
  } catch (const Error& error) {
    fail(Exit::file, file.name(), ": metadata ", kRunKey, ": ", error.what());
  }
  return config;
}

RunState load_checkpoint(const SafetensorsFile& file, Model& model, const Buffers& buffers) {
  load_parameters(model, file);
  for (const auto& buffer : buffers) {
    const std::string name = kOptimizerPrefix + buffer.name;
    const TensorEntry* entry = file.find(name);
    TESSERA_CHECK_AS(
        Exit::file, entry && entry->count() == buffer.values->count(), file.name(), ": ", name,
        entry ? text(" has ", entry->count(), " elements where ", buffer.values->count(), " are needed")
              : std::string(" is missing"));
    std::vector<float> values(size_t(entry->count()));
    file.read_f32(*entry, values);
    buffer.values->assign(std::span<const float>(values));
  }
  RunState state;
  const auto json = nlohmann::json::parse(metadata_of(file, kStateKey), nullptr, false);
  const auto number = [&](const char* key) -> const nlohmann::json& {
    TESSERA_CHECK_AS(Exit::file, json.is_object() && json.contains(key) && json[key].is_number(), file.name(),
                     ": metadata ", kStateKey, " has no number ", key);
    return json[key];
  };
  const auto integer = [&](const char* key) {
    TESSERA_CHECK_AS(Exit::file, number(key).is_number_integer(), file.name(), ": metadata ", kStateKey, ": ",
                     key, " is not an integer");
    return number(key).get<int64_t>();
  };
  state.step = integer("step");
  TESSERA_CHECK_AS(Exit::file, state.step >= 0, file.name(), ": metadata ", kStateKey,
                   ": step = ", state.step);
  state.best_top1 = number("best_top1").get<double>();
  state.epoch_loss = number("epoch_loss").get<double>();
  state.epoch_correct = integer("epoch_correct");
  state.epoch_gradient_norm = number("epoch_gradient_norm").get<double>();
  state.data_fingerprint = number("data_fingerprint").get<uint64_t>();
  state.optimizer_steps = integer("optimizer_steps");
  return state;
}

}  // namespace tessera
