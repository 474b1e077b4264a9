// libFuzzer: any bytes as an .npy file, of floats or of whole numbers, end in an array or an
// Error(Exit::data).
#include <cstdlib>

#include "data/npy.h"
#include "engine/base/check.h"

namespace {

template <class Parse>
void run(Parse parse, tessera::Bytes bytes, int rank) {
  try {
    const auto array = parse(bytes, "fuzz", rank);
    if (array.shape.rank() != rank || array.shape.count() != int64_t(array.values.size())) abort();
  } catch (const tessera::Error& error) {
    if (error.code() != tessera::Exit::data) abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run(tessera::parse_npy_floats, {data, size}, 3);
  run(tessera::parse_npy_integers, {data, size}, 1);
  return 0;
}
