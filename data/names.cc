#include "data/names.h"

#include <sstream>

#include "data/bytes.h"
#include "engine/base/check.h"
#include "engine/io/printable.h"

namespace tessera {

void each_line(const std::filesystem::path& file,
               const std::function<void(const std::string& line, int64_t number)>& f) {
  constexpr uint64_t kListBytesMax = uint64_t{64} << 20;
  const std::vector<uint8_t> bytes = read_file(file, kListBytesMax);
  std::istringstream lines(std::string(bytes.begin(), bytes.end()));
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    TESSERA_CHECK_AS(Exit::data, is_utf8(line), file.string(), ":", number, ": ", printable(line, 80),
                     " is no UTF-8; save the file as UTF-8");
    if (!line.empty()) f(line, number);
  }
}

std::vector<std::string> read_names(const std::filesystem::path& file) {
  std::vector<std::string> names;
  each_line(file, [&](const std::string& line, int64_t) { names.push_back(line); });
  return names;
}

}  // namespace tessera
