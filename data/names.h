// Lists in text files, one entry a line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace tessera {

// Calls f(line, its number) for the lines that are not empty, without their ends. Error(Exit::data) names
// file and line where one is no UTF-8.
void each_line(const std::filesystem::path& file,
               const std::function<void(const std::string& line, int64_t number)>& f);

// Those lines.
std::vector<std::string> read_names(const std::filesystem::path& file);

}  // namespace tessera
