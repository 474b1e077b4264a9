// Files written whole or not at all, and files read with a limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "engine/base/check.h"

namespace tessera {

using ByteView = std::span<const std::byte>;

// Makes `path` hold the pieces one after the other, or throws Error(Exit::file) and leaves the former file as
// it was. The bytes go to "<path>.tmp-<pid>-<n>" in the same folder, reach the disk, and only then take the
// name: a kill, a crash or a full disk at any moment leaves either the former file or the new one, each
// whole. Refuses a path that is something else than a file (a folder, a device).
void write_file_atomically(const std::string& path, std::span<const ByteView> pieces);
void write_file_atomically(const std::string& path, std::string_view content);

// Deletes what killed processes left of the above in `folder` (not below it) and returns how many files that
// was. Files of a process that still runs are kept. To be called before this process writes there. A folder
// that is not there has none.
int remove_stale_temporaries(const std::string& folder);

// The whole content of a file or a pipe. Throws Error(code) naming the path when it is missing, a folder, not
// readable or longer than `max_bytes`.
std::string read_text(const std::string& path, uint64_t max_bytes, Exit code = Exit::file);

// A regular file seen as memory, read-only. Replacing the file through write_file_atomically leaves the
// mapping as it was; truncating it in place does not (the process would get SIGBUS). Throws Error(Exit::file)
// as read_text does.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ByteView bytes() const { return {data_.get(), size_}; }

 private:
  std::shared_ptr<const std::byte> data_;
  size_t size_ = 0;
};

}  // namespace tessera
