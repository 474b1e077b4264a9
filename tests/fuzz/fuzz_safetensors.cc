// libFuzzer target: whatever the bytes, reading ends in tensors inside the file or in Error(Exit::file).
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "engine/io/safetensors.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void read_all(const tessera::SafetensorsFile& file, tessera::ByteView whole) {
  for (const tessera::TensorEntry& entry : file.entries()) {
    require(file.find(entry.name) == &entry);
    const tessera::ByteView bytes = file.bytes(entry);
    require(bytes.data() >= whole.data() && bytes.data() + bytes.size() <= whole.data() + whole.size());
    const size_t count = size_t(entry.count());
    require(count * size_t(tessera::dtype_bits(entry.dtype)) == bytes.size() * 8);
    std::vector<float> floats(count);
    std::vector<double> doubles(count);
    try {
      file.read_f32(entry, floats);
      file.read_f64(entry, doubles);
    } catch (const tessera::Error& error) {
      require(error.code() == tessera::Exit::file);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const tessera::ByteView whole(reinterpret_cast<const std::byte*>(data), size);
  try {
    const tessera::SafetensorsFile file(whole, "fuzz");
    read_all(file, whole);
  } catch (const tessera::Error& error) {
    require(error.code() == tessera::Exit::file);
  }
  return 0;
}
