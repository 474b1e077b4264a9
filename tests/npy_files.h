// .npy files made up for tests.
#pragma once

#include <string>
#include <vector>

#include "tests/data_files.h"

namespace tessera::testing {

template <class T>
ByteVector bytes_of(const std::vector<T>& values) {
  const auto* raw = reinterpret_cast<const uint8_t*>(values.data());
  return {raw, raw + values.size() * sizeof(T)};
}

inline std::string npy_dict(const std::string& type, const std::string& shape,
                            const std::string& fortran = "False") {
  return "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
}

// A file of version `major`.0 whose header is `dict`, padded as NumPy does, before the values.
inline ByteVector npy_file(const std::string& dict, const ByteVector& values, int major = 1) {
  const size_t start = major == 1 ? 10 : 12;
  std::string header = dict;
  header.resize((start + dict.size() + 64) / 64 * 64 - start - 1, ' ');
  header += '\n';
  ByteVector bytes = {0x93, 'N', 'U', 'M', 'P', 'Y', uint8_t(major), 0};
  for (size_t i = 0; i < start - 8; ++i) bytes.push_back(uint8_t(header.size() >> (8 * i)));
  return joined(joined(bytes, ByteVector(header.begin(), header.end())), values);
}

}  // namespace tessera::testing
