// tessera: one program, one verb a task.
#include <csignal>
#include <cstring>
#include <iostream>
#include <new>

#include "cli/commands.h"
#include "engine/base/check.h"
#include "engine/base/nearest_name.h"

namespace tessera::cli {

const std::vector<Command>& commands() {
  static const std::vector<Command> list{train_command(),      check_command(),
                                         eval_command(),       predict_command(),
                                         fuse_command(),       info_command(),
                                         list_command(),       bench_command(),
                                         study_ewa_command(),  study_diversity_command(),
                                         superclass_command(), reproduce_command()};
  return list;
}

namespace {

// A line each of the verbs whose names begin so.
std::string verbs(const std::string& first = {}) {
  std::string lines;
  for (const Command& command : commands())
    if (command.name.starts_with(first))
      lines += "  " + command.name + std::string(17 - command.name.size(), ' ') + command.summary + '\n';
  return lines;
}

std::string help() {
  return "Tessera trains Vision Transformers whose feed-forward layers are experts,\n"
         "averages the experts after every step, and fuses them into a plain ViT.\n\n"
         "  tessera VERB ...          does it\n"
         "  tessera VERB --help       explains it\n"
         "  tessera --version\n\nVerbs\n" +
         verbs() + R"(
From images to a fused model
  tessera check --preset fashion-mnist --preview sheet.png
  tessera train --preset fashion-mnist-ewa --out runs/ewa
  tessera eval runs/ewa/model.safetensors
  tessera fuse runs/ewa/model.safetensors -o vit.safetensors
  tessera eval vit.safetensors --data /usr/share/datasets/fashion-mnist
  tessera predict vit.safetensors shoe.png
  tessera info vit.safetensors

Results go to standard output (as JSON with --json), progress and errors to standard error.
Exit codes: 0 done, 1 other failure, 2 usage or configuration, 3 data, 4 weights or
checkpoint file, or one that cannot be written, 5 training diverged, 6 device or memory,
7 a check of the result failed, 130 and 143 interrupted after saving.
)";
}

// The verb that the words begin with, in one word or two, which are taken away.
const Command& take_command(std::vector<std::string>& words) {
  const size_t count = words[0] == "study" && words.size() > 1 ? 2 : 1;
  const std::string name = count == 2 ? words[0] + ' ' + words[1] : words[0];
  words.erase(words.begin(), words.begin() + int64_t(count));
  std::vector<std::string> names;
  for (const Command& command : commands()) {
    if (command.name == name) return command;
    names.push_back(command.name);
  }
  fail(Exit::usage, "the verb '", name, "' is not known; did you mean '", nearest_name(name, names),
       "'? `tessera --help` lists all");
}

int run(std::vector<std::string> words) {
  TESSERA_CHECK_AS(Exit::usage, !words.empty(), "no verb; `tessera --help` lists all");
  if (words[0] == "help") {
    words.erase(words.begin());
    words.push_back("--help");
  }
  if (words[0] == "--help" || words[0] == "-h") {
    std::cout << help();
    return 0;
  }
  if (words[0] == "--version") {
    std::cout << "tessera " TESSERA_VERSION "\n";
    return 0;
  }
  if (words[0] == "study" && (words.size() == 1 || words[1] == "--help" || words[1] == "-h")) {
    std::cout << "Studies; `tessera study STUDY --help` explains one\n" << verbs("study ");
    return 0;
  }
  const Command& command = take_command(words);
  Arguments arguments(command.name, command.summary, command.notes);
  const Action action = command.arguments(arguments);
  return arguments.parse(words) ? action() : 0;
}

int report(Exit code, const char* message) {
  std::cerr << "tessera: error: " << message << std::endl;
  return int(code);
}

}  // namespace
}  // namespace tessera::cli

int main(int argc, char** argv) {
  using tessera::Exit;
  // A reader that has gone away or a file at its limit is a failed write, which is reported, not a sudden
  // end.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  std::ios::sync_with_stdio(false);
  try {
    const int code = tessera::cli::run({argv + 1, argv + argc});
    TESSERA_CHECK(std::cout.flush(), "cannot write the results to standard output: ", std::strerror(errno));
    return code;
  } catch (const tessera::Error& error) {
    return tessera::cli::report(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return tessera::cli::report(Exit::device, "out of memory; a smaller batch or model needs less");
  } catch (const std::exception& error) {
    return tessera::cli::report(Exit::other, error.what());
  }
}
