// NumPy's .npy: a magic, a version, a header that is a Python dict ('descr', 'fortran_order', 'shape'), then
// the values.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "data/bytes.h"
#include "engine/base/shape.h"

namespace tessera {

template <class T>
struct NpyArray {
  Shape shape;
  std::vector<T> values;  // row-major
};

// An array of `rank` axes in C order, whose values fill the file to its last byte: of f2, f4 or f8, or of
// whole numbers of 1 to 8 bytes, of either byte order. Memory is taken only for values that the file holds.
// Pickled objects and structures are refused. Error(Exit::data) names `what`, the file.
NpyArray<float> parse_npy_floats(Bytes bytes, std::string_view what, int rank);
NpyArray<int64_t> parse_npy_integers(Bytes bytes, std::string_view what, int rank);

}  // namespace tessera
