// Runs the built program as a user would: another process, its exit code and what it printed.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/places.h"
#include "tests/scratch_folder.h"

extern char** environ;

namespace tessera {

struct Finished {
  int code = -1;  // exit code; -signal where one killed it
  std::string out, err;
};

class Process {
 public:
  explicit Process(const std::vector<std::string>& arguments) {
    std::vector<std::string> words{kProgram};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, (folder_ / "out").c_str(), flags, 0600);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, (folder_ / "err").c_str(), flags, 0600);
    if (posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ) != 0) pid_ = -1;
    posix_spawn_file_actions_destroy(&actions);
  }

  void kill(int signal) const { ::kill(pid_, signal); }

  Finished wait() {
    Finished result;
    int status = 0;
    if (pid_ > 0 && waitpid(pid_, &status, 0) == pid_)
      result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    result.out = read(folder_ / "out");
    result.err = read(folder_ / "err");
    return result;
  }

  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  ScratchFolder folder_;
  pid_t pid_ = -1;
};

// Says so in the test's output where the program is not part of the build.
inline bool no_program() {
  if (!kProgram.empty()) return false;
  MESSAGE("skipped: the program was not built");
  return true;
}

inline Finished run_program(const std::vector<std::string>& arguments) { return Process(arguments).wait(); }

}  // namespace tessera
