// libFuzzer: any bytes as an IDX file, plain or gzip, end in an array or an Error(Exit::data).
#include <cstdlib>

#include "data/idx.h"
#include "engine/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  for (const int rank : {1, 3}) {
    try {
      const tessera::IdxArray array = tessera::parse_idx({data, size}, "fuzz", rank);
      size_t values = 1;
      for (const int64_t dim : array.dims) values *= size_t(dim);
      if (values != array.values.size() || int(array.dims.size()) != rank) abort();
    } catch (const tessera::Error& error) {
      if (error.code() != tessera::Exit::data) abort();
    }
  }
  return 0;
}
