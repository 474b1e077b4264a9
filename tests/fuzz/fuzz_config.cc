// libFuzzer: any bytes as a run's settings in TOML end in an Error(Exit::usage), or in a configuration that,
// written out, is read again as the same one, and whose model's cost can be counted.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "models/flops.h"
#include "train/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tessera::RunConfig config, again;
  try {
    tessera::apply_toml(config, std::string(reinterpret_cast<const char*>(data), size), "fuzz");
    tessera::validate(config);
  } catch (const tessera::Error& error) {
    if (error.code() != tessera::Exit::usage) abort();
    return 0;
  }
  const tessera::ModelCost cost = tessera::cost(config.model);
  if (cost.parameters <= 0 || cost.idle_parameters < 0 || tessera::training_flops(cost) <= 0) abort();
  tessera::apply_toml(again, tessera::to_toml(config), "written");
  if (tessera::config_to_json(again) != tessera::config_to_json(config)) abort();
  return 0;
}
