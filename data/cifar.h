// The binary CIFAR files: records of label bytes and 3072 pixels, the planes R, G, B of 32 x 32, row-major.
// CIFAR-10 has one label byte, CIFAR-100 two: the super-class (coarse), then the class (fine).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "data/bytes.h"

namespace tessera {

struct CifarRecords {
  static constexpr int64_t kChannels = 3, kSide = 32;

  std::vector<uint8_t> images;  // (count, 3, 32, 32)
  std::vector<int32_t> labels;
  std::vector<int32_t> coarse_labels;  // empty for CIFAR-10
};

// One or more whole records, every label in its range. Error(Exit::data) names `what`, the file.
CifarRecords parse_cifar10(Bytes bytes, std::string_view what);
CifarRecords parse_cifar100(Bytes bytes, std::string_view what);

}  // namespace tessera
