#include "data/proportion.h"

#include <algorithm>

namespace tessera {

std::vector<ClassPlace> in_proportion(const std::vector<size_t>& sizes) {
  std::vector<ClassPlace> places;
  for (size_t k = 0; k < sizes.size(); ++k)
    for (size_t i = 0; i < sizes[k]; ++i) places.push_back({i, k});
  // By (i + 1/2) / size of the class.
  std::stable_sort(places.begin(), places.end(), [&](const ClassPlace& a, const ClassPlace& b) {
    return (2 * a.i + 1) * sizes[b.k] < (2 * b.i + 1) * sizes[a.k];
  });
  return places;
}

}  // namespace tessera
