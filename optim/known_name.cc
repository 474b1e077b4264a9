#include "optim/known_name.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "engine/base/check.h"

namespace tessera {

namespace {

// Levenshtein's distance, one row of its table at a time.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

}  // namespace

size_t known_name(std::string_view what, std::string_view name,
                  std::initializer_list<std::string_view> known) {
  std::string all;
  size_t nearest = 0, fewest = size_t(-1), index = 0;
  for (const std::string_view entry : known) {
    const size_t edits = distance(name, entry);
    if (edits == 0) return index;
    if (edits < fewest) fewest = edits, nearest = index;
    all.append(all.empty() ? "" : ", ").append(entry);
    ++index;
  }
  fail(Exit::usage, what, ": unknown name '", name, "', did you mean '", known.begin()[nearest],
       "'? Known are: ", all);
}

}  // namespace tessera
