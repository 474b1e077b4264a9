#include "train/toml.h"

#include <nlohmann/json.hpp>

#include "engine/base/check.h"

namespace tessera {
namespace {

// toml++ takes keys of any number of parts, a table in a table for each, and recurses through them.
void check_depth(const std::string& source, const std::string& name) {
  constexpr int kMost = 256;
  int line = 1, dots = 0;
  for (const char c : source) {
    if (c == '\n') {
      ++line;
      dots = 0;
    }
    TESSERA_CHECK_AS(Exit::usage, c != '.' || ++dots <= kMost, name, ":", line, ": more than ", kMost,
                     " dots in a line, which may be a key of as many parts; break the line");
  }
}

}  // namespace

toml::table parse_toml(const std::string& source, const std::string& name) {
  check_depth(source, name);
  try {
    return toml::parse(source, name);
  } catch (const toml::parse_error& error) {
    const auto& at = error.source().begin;
    fail(Exit::usage, name, ":", at.line, ":", at.column, ": ", error.description());
  }
}

std::string toml_value(const nlohmann::json& value) {
  std::string out;
  for (const char c : value.dump()) out += c == '\x7f' ? std::string("\\u007f") : std::string(1, c);
  return out;  // the only character that TOML escapes and JSON does not
}

}  // namespace tessera
