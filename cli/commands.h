// The verbs of the program, one file each.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cli/arguments.h"

namespace tessera::cli {

// Runs a verb whose arguments have been parsed and gives the exit code. Failures are thrown as Error.
using Action = std::function<int()>;

struct Command {
  std::string name;
  std::string summary;                          // one line of the program's help
  std::string notes;                            // what the verb's help says below its arguments
  std::function<Action(Arguments&)> arguments;  // declares the arguments
};

Command train_command();
Command check_command();
Command eval_command();
Command predict_command();
Command fuse_command();
Command info_command();
Command list_command();
Command bench_command();
Command study_diversity_command();
Command study_ewa_command();
Command reproduce_command();
Command superclass_command();

const std::vector<Command>& commands();

// What `tessera list` prints, which other verbs may print too.
int print_list(const std::string& what, bool json);

}  // namespace tessera::cli
