// libFuzzer: any bytes as the model or the run in a weights file's metadata end in a model that is no larger
// than the file, or in an Error(Exit::file).
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "models/flops.h"
#include "models/weights.h"
#include "train/checkpoint.h"

namespace {

template <class Read>
void run(const std::string& file, Read read) {
  try {
    read(tessera::SafetensorsFile(std::as_bytes(std::span(file)), "fuzz"));
  } catch (const tessera::Error& error) {
    if (error.code() != tessera::Exit::file) abort();
  }
}

// A file of 4000 numbers that belong to no model.
std::string file_with(const char* key, const std::string& value) {
  constexpr int kBytes = 16000;
  const nlohmann::json header{
      {"__metadata__", {{key, value}}},
      {"x", {{"dtype", "F32"}, {"shape", {kBytes / 4}}, {"data_offsets", {0, kBytes}}}}};
  const std::string words = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const uint64_t length = words.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + words + std::string(kBytes, '\0');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string value(reinterpret_cast<const char*>(data), size);
  run(file_with(tessera::kModelKey, value), [](const tessera::SafetensorsFile& file) {
    const tessera::ModelCost cost = tessera::cost(tessera::model_config_of(file));
    if (cost.parameters <= 0 || tessera::training_flops(cost) <= 0) abort();
    tessera::load_model(file);
    abort();  // its one tensor is of no model
  });
  run(file_with(tessera::kRunKey, value), [](const auto& file) { tessera::checkpoint_config(file); });
  return 0;
}
