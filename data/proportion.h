// The order of a set that is given class by class.
#pragma once

#include <cstddef>
#include <vector>

namespace tessera {

// Sample `i` of class `k`.
struct ClassPlace {
  size_t i, k;
};

// All samples of classes of these sizes, each class's in their order and the classes mixed so that the first
// N, and the last N, have of every class in proportion to its size. Of classes of one size: the first of
// each, the second of each, and so on.
std::vector<ClassPlace> in_proportion(const std::vector<size_t>& sizes);

}  // namespace tessera
