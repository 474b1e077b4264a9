// How results look on standard output.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tessera::cli {

std::string grouped(int64_t number);            // 1,234,567
std::string fixed(double value, int decimals);  // 0.25
std::string percent(double share);              // 86.52 %
std::string operations(int64_t count);          // 2.286 GFLOPs
std::string duration(double seconds);           // 4.2 s, 3 min 12 s, 2 h 5 min

// Text as a file or a user gave it becomes valid UTF-8.
void print_json(const nlohmann::ordered_json& json);

// Rows of cells in columns. `alignment` has a letter for each column: l or r.
class Table {
 public:
  explicit Table(std::string alignment) : alignment_(std::move(alignment)) {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void print() const;

 private:
  std::string alignment_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace tessera::cli
