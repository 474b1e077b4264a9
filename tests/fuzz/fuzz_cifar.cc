// libFuzzer: any bytes as a CIFAR file end in whole records with labels in range, or an Error(Exit::data).
#include <cstdlib>

#include "data/cifar.h"
#include "engine/base/check.h"

namespace {

template <class Parse>
void run(Parse parse, tessera::Bytes bytes, int classes) {
  try {
    const tessera::CifarRecords records = parse(bytes, "fuzz");
    if (records.labels.empty() || records.images.size() != records.labels.size() * 3072) abort();
    for (const int32_t label : records.labels) {
      if (label < 0 || label >= classes) abort();
    }
  } catch (const tessera::Error& error) {
    if (error.code() != tessera::Exit::data) abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run(tessera::parse_cifar10, {data, size}, 10);
  run(tessera::parse_cifar100, {data, size}, 100);
  return 0;
}
