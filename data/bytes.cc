#include "data/bytes.h"

#include <fstream>

#include "engine/base/check.h"

namespace tessera {

std::vector<uint8_t> read_file(const std::filesystem::path& path, uint64_t max_bytes) {
  namespace fs = std::filesystem;
  const std::string file = path.string();
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  TESSERA_CHECK_AS(Exit::data, fs::exists(status), file, ": no such file; check the path");
  TESSERA_CHECK_AS(Exit::data, !fs::is_directory(status), file, ": is a folder, expected a file");
  // A device or a pipe has no size to check, and may never end.
  TESSERA_CHECK_AS(Exit::data, fs::is_regular_file(status), file, ": is not a regular file");
  const uintmax_t size = fs::file_size(path, error);
  TESSERA_CHECK_AS(Exit::data, !error, file, ": its size cannot be read (", error.message(), ")");
  TESSERA_CHECK_AS(Exit::data, size <= max_bytes, file, ": ", size, " bytes, the limit is ", max_bytes);

  std::ifstream in(path, std::ios::binary);
  TESSERA_CHECK_AS(Exit::data, in.is_open(), file, ": cannot be opened; check its permissions");
  std::vector<uint8_t> bytes(size);
  in.read(reinterpret_cast<char*>(bytes.data()), std::streamsize(size));
  TESSERA_CHECK_AS(Exit::data, uintmax_t(in.gcount()) == size, file, ": read ", in.gcount(), " of ", size,
                   " bytes; is it being written?");
  return bytes;
}

}  // namespace tessera
