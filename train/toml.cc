#define TOML_IMPLEMENTATION
#include "train/toml.h"

#include "engine/base/check.h"

namespace tessera {

toml::table parse_toml(const std::string& source, const std::string& name) {
  try {
    return toml::parse(source, name);
  } catch (const toml::parse_error& error) {
    const auto& at = error.source().begin;
    fail(Exit::usage, name, ":", at.line, ":", at.column, ": ", error.description());
  }
}

}  // namespace tessera
