// Reading TOML by toml++, whose code is compiled once, in toml.cc.
#pragma once

#define TOML_HEADER_ONLY 0
#include <toml++/toml.h>

#include <string>

namespace tessera {

// The table of a TOML text; an error (usage) gives name, line and column.
toml::table parse_toml(const std::string& source, const std::string& name);

}  // namespace tessera
