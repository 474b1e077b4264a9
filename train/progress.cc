#include "train/progress.h"

#include <unistd.h>

#include <cstdio>

namespace tessera {

std::string clock_time(double seconds) {
  const int64_t s = int64_t(seconds + 0.5);
  char out[48];
  if (s >= 3600)
    std::snprintf(out, sizeof out, "%lld:%02lld:%02lld", static_cast<long long>(s / 3600),
                  static_cast<long long>(s / 60 % 60), static_cast<long long>(s % 60));
  else
    std::snprintf(out, sizeof out, "%lld:%02lld", static_cast<long long>(s / 60),
                  static_cast<long long>(s % 60));
  return out;
}

ProgressLine::ProgressLine(int64_t total, int64_t done, bool show)
    : total_(total), first_(done), show_(show), terminal_(isatty(STDERR_FILENO) != 0), drawn_(Clock::now()) {}

void ProgressLine::update(int64_t done, const std::string& words) {
  const auto now = Clock::now();
  if (done == first_ + 1) second_step_ = now;
  const double pause = terminal_ ? 0.1 : 10;
  if (!show_ || std::chrono::duration<double>(now - drawn_).count() < pause) return;
  drawn_ = now;
  std::string eta = "?";
  if (done > first_ + 1) {
    const double per_step =
        std::chrono::duration<double>(now - second_step_).count() / double(done - first_ - 1);
    eta = clock_time(per_step * double(total_ - done));
  }
  std::fprintf(stderr, "%sstep %lld/%lld  %s  ETA %s%s", terminal_ ? "\r" : "", static_cast<long long>(done),
               static_cast<long long>(total_), words.c_str(), eta.c_str(), terminal_ ? "\033[K" : "\n");
  open_ = terminal_;
}

void ProgressLine::note(const std::string& words) {
  if (!show_) return;
  std::fprintf(stderr, "%s%s\n", open_ ? "\r\033[K" : "", words.c_str());
  open_ = false;
}

}  // namespace tessera
