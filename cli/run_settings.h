// The flags by which a verb takes a run's settings.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cli/arguments.h"
#include "train/config.h"

namespace tessera::cli {

struct RunSettings {
  std::string preset, file;
  std::vector<std::string> set;
  std::vector<std::pair<std::string, std::string>> shortcuts;  // --lr 1e-3 stands for optim.lr=1e-3
};

// `to` must live until the arguments have been parsed.
void declare(Arguments& args, RunSettings& to);

// Defaults < preset < file < flags.
RunConfig effective_config(const RunSettings& given);

}  // namespace tessera::cli
