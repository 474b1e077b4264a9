#include "train/log.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/check.h"
#include "engine/io/atomic_file.h"

namespace tessera {

RunLog::RunLog(const std::string& path, int64_t last_step, bool epoch_ends) : path_(path) {
  if (std::filesystem::exists(path)) {
    std::istringstream former(read_text(path, uint64_t{1} << 32));
    std::string kept;
    for (std::string line; std::getline(former, line);) {
      const auto json = nlohmann::json::parse(line, nullptr, false);
      if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) break;
      const int64_t step = json["step"].get<int64_t>();
      if (step > last_step || (step == last_step && epoch_ends && json.value("kind", "") == "epoch")) break;
      kept += line + "\n";
    }
    write_file_atomically(path, kept);
  }
  file_ = std::fopen(path.c_str(), "a");
  TESSERA_CHECK_AS(Exit::other, file_, path, ": cannot be opened to write the log: ", std::strerror(errno));
}

RunLog::~RunLog() { std::fclose(file_); }

void RunLog::write(const nlohmann::ordered_json& line) {
  const std::string words = line.dump() + "\n";
  const bool written =
      std::fwrite(words.data(), 1, words.size(), file_) == words.size() && std::fflush(file_) == 0;
  TESSERA_CHECK_AS(Exit::other, written, path_, ": the log cannot be written: ", std::strerror(errno),
                   "; free some space and resume the run");
}

}  // namespace tessera
