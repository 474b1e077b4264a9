// IDX, the format of the MNIST family: two zero bytes, a type byte, the rank, the dims as big-endian u32,
// then the values, row-major. Plain or gzip-compressed.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "data/bytes.h"

namespace tessera {

struct IdxArray {
  std::vector<int64_t> dims;
  std::vector<uint8_t> values;
};

// Parses an IDX file of unsigned bytes with exactly `rank` dims, none of them 0; gzip is recognised by its
// magic. The values must fill the file to its last byte. Memory is taken only for sizes that the file can
// really hold, so neither a lying header nor a gzip bomb asks for more. Error(Exit::data) names `what`, the
// file.
IdxArray parse_idx(Bytes bytes, std::string_view what, int rank);

}  // namespace tessera
