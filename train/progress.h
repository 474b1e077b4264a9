// One line of progress on stderr: redrawn on a terminal, and a new line now and then elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace tessera {

class ProgressLine {
 public:
  // `total` and `done` in steps; `show` false keeps quiet.
  ProgressLine(int64_t total, int64_t done, bool show);
  // Redraws at most ten times a second (on a terminal) or every ten seconds (elsewhere). The ETA counts from
  // the second step of this process, the first being slower.
  void update(int64_t done, const std::string& words);
  // Ends the line and prints another.
  void note(const std::string& words);

 private:
  using Clock = std::chrono::steady_clock;
  int64_t total_, first_;
  bool show_, terminal_;
  Clock::time_point second_step_, drawn_;
  bool open_ = false;
};

// 83 as "1:23", 5025 as "1:23:45".
std::string clock_time(double seconds);

}  // namespace tessera
