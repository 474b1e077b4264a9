#include "data/cifar.h"

#include "engine/base/check.h"

namespace tessera {
namespace {

constexpr size_t kPixels = size_t(CifarRecords::kChannels * CifarRecords::kSide * CifarRecords::kSide);

// `ranges[i]` bounds the i-th label byte; the last one is the class.
CifarRecords parse(Bytes bytes, std::string_view what, std::span<const int> ranges) {
  const size_t record = ranges.size() + kPixels;
  TESSERA_CHECK_AS(Exit::data, !bytes.empty(), what, ": empty, expected records of ", record, " bytes");
  TESSERA_CHECK_AS(Exit::data, bytes.size() % record == 0, what, ": ", bytes.size(),
                   " bytes are no whole number of records of ", record,
                   " bytes; truncated, or another format?");
  const size_t count = bytes.size() / record;

  CifarRecords records;
  records.images.reserve(count * kPixels);
  records.labels.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const Bytes one = bytes.subspan(i * record, record);
    for (size_t j = 0; j < ranges.size(); ++j) {
      TESSERA_CHECK_AS(Exit::data, one[j] < ranges[j], what, ": record ", i, " has label ", int{one[j]},
                       ", expected below ", ranges[j]);
    }
    if (ranges.size() == 2) records.coarse_labels.push_back(one[0]);
    records.labels.push_back(one[ranges.size() - 1]);
    records.images.insert(records.images.end(), one.begin() + ranges.size(), one.end());
  }
  return records;
}

}  // namespace

CifarRecords parse_cifar10(Bytes bytes, std::string_view what) {
  constexpr int kRanges[] = {10};
  return parse(bytes, what, kRanges);
}

CifarRecords parse_cifar100(Bytes bytes, std::string_view what) {
  constexpr int kRanges[] = {20, 100};
  return parse(bytes, what, kRanges);
}

}  // namespace tessera
