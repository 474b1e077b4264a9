// The run's log: one JSON object a line, flushed line by line.
#pragma once

#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace tessera {

class RunLog {
 public:
  // Opens `path` to append. Of a log that is there, what a resumed run writes again is dropped: lines of
  // steps after `last_step`, a half-written last line, and, where an epoch still has to end at that step, the
  // line of that epoch.
  RunLog(const std::string& path, int64_t last_step, bool epoch_ends);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  void write(const nlohmann::ordered_json& line);

 private:
  std::string path_;
  std::FILE* file_ = nullptr;
};

}  // namespace tessera
