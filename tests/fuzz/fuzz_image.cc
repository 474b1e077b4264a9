// libFuzzer: any bytes as a PNG, JPEG, PGM or PPM end in a whole image or an Error(Exit::data).
#include <zlib.h>

#include <cstdlib>
#include <vector>

#include "data/resize.h"
#include "engine/base/check.h"

namespace {

// Puts right the checksums of what looks like a PNG, which hold a fuzzer back from all that lies behind them.
void repair_png(std::vector<uint8_t>& bytes) {
  for (size_t at = 8; at + 12 <= bytes.size();) {
    const uint64_t length =
        uint64_t{bytes[at]} << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3];
    if (length > bytes.size() - at - 12) return;
    const auto sum = crc32(0, bytes.data() + at + 4, uInt(length + 4));
    for (int i = 0; i < 4; ++i) bytes[at + 8 + length + i] = uint8_t(sum >> (24 - 8 * i));
    at += 12 + length;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr int64_t kPixels = 1 << 18;
  std::vector<uint8_t> bytes(data, data + size);
  if (size > 0 && data[0] == 0x89) repair_png(bytes);
  try {
    // Half of the runs decode at a quarter of the size.
    const auto reduction = [&](int64_t, int64_t) { return size % 2 ? 4 : 1; };
    const tessera::Image image = tessera::decode_image(bytes, "fuzz", kPixels, reduction);
    if (image.height * image.width > kPixels || image.height < 1 || image.width < 1) abort();
    if (image.pixels.size() != size_t(image.channels * image.height * image.width)) abort();
    resize(to_channels(image, 1), 7, 9);
  } catch (const tessera::Error& error) {
    if (error.code() != tessera::Exit::data) abort();
  }
  return 0;
}
