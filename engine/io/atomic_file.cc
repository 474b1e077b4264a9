#include "engine/io/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemporaryMark = ".tmp-";
constexpr size_t kReadChunk = size_t{1} << 20;

std::string reason(int error) { return std::generic_category().message(error); }

const char* next_step(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "free some space or choose another folder";
    case EFBIG:
      return "raise the limit on file sizes (ulimit -f) or choose another file system";
    case EACCES:
    case EPERM:
    case EROFS:
      return "check the permissions or choose another folder";
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP:
      return "check the path";
    case EMFILE:
    case ENFILE:
      return "raise the limit on open files (ulimit -n)";
    default:
      return "check the disk";
  }
}

// A system call that a signal interrupted is made again.
template <class F>
auto retried(F&& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  // Linux frees the descriptor even when close reports an error, so it is never closed twice.
  bool close() { return ::close(std::exchange(fd_, -1)) == 0 || errno == EINTR; }

 private:
  int fd_;
};

// One write on its way: the temporary file goes unless it was renamed.
class PendingFile {
 public:
  PendingFile(const std::string& path, uint64_t total) : path_(path), total_(total) {
    static std::atomic<uint64_t> counter{0};
    struct stat former;
    if (::stat(path.c_str(), &former) == 0) {
      TESSERA_CHECK_AS(Exit::file, S_ISREG(former.st_mode), "cannot write '", path, "': it is ",
                       S_ISDIR(former.st_mode) ? "a folder" : "not a regular file",
                       "; give the name of a file");
    }
    temporary_ = text(path, kTemporaryMark, ::getpid(), '-', counter++);
    ::unlink(temporary_.c_str());  // from a killed process that had our id
    constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
    fd_.emplace(retried([&] { return ::open(temporary_.c_str(), kFlags, 0666); }));
    if (fd_->get() < 0) give_up(errno);
  }
  ~PendingFile() {
    if (!renamed_) ::unlink(temporary_.c_str());
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  void write(ByteView bytes) {
    while (!bytes.empty()) {
      const ssize_t count = retried([&] { return ::write(fd_->get(), bytes.data(), bytes.size()); });
      if (count < 0) give_up(errno);
      if (count == 0) give_up(EIO);
      written_ += uint64_t(count);
      bytes = bytes.subspan(size_t(count));
    }
  }

  void take_the_name() {
    if (retried([&] { return ::fsync(fd_->get()); }) != 0) give_up(errno);
    if (!fd_->close()) give_up(errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) give_up(errno);
    renamed_ = true;
    sync_folder();
  }

 private:
  // The new name is on the disk only once the folder is. Some file systems cannot sync a folder.
  void sync_folder() {
    const std::string parent = fs::path(path_).parent_path().string();
    const std::string folder = parent.empty() ? "." : parent;
    const Descriptor fd(retried([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
    if (fd.get() >= 0 && retried([&] { return ::fsync(fd.get()); }) == 0) return;
    if (errno == EINVAL || errno == ENOTSUP || errno == EACCES) return;
    fail(Exit::file, "'", path_, "' is written but may not outlive a power failure: cannot sync the folder '",
         folder, "': ", reason(errno), "; ", next_step(errno));
  }

  [[noreturn]] void give_up(int error) const {
    fail(Exit::file, "cannot write '", path_, "': ", reason(error), " after ", written_, " of ", total_,
         " bytes; ", next_step(error), " (a former file of this name is untouched)");
  }

  std::string path_, temporary_;
  uint64_t total_ = 0, written_ = 0;
  std::optional<Descriptor> fd_;
  bool renamed_ = false;
};

// The process id in a name like "<anything>.tmp-<pid>-<n>".
std::optional<pid_t> writer_of(std::string_view name) {
  const size_t mark = name.rfind(kTemporaryMark);
  if (mark == std::string_view::npos || mark == 0) return std::nullopt;
  const char* const end = name.data() + name.size();
  pid_t pid = 0;
  uint64_t number = 0;
  const auto first = std::from_chars(name.data() + mark + kTemporaryMark.size(), end, pid);
  if (first.ec != std::errc{} || pid <= 0 || first.ptr == end || *first.ptr != '-') return std::nullopt;
  const auto second = std::from_chars(first.ptr + 1, end, number);
  if (second.ec != std::errc{} || second.ptr != end) return std::nullopt;
  return pid;
}

bool runs_elsewhere(pid_t pid) { return pid != ::getpid() && (::kill(pid, 0) == 0 || errno == EPERM); }

[[noreturn]] void cannot_read(Exit code, const std::string& path, int error) {
  fail(code, "cannot read '", path, "': ", reason(error), "; ", next_step(error));
}

int open_to_read(const std::string& path, int flags = 0) {
  return retried([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags); });
}

struct stat look_at_opened(const std::string& path, const Descriptor& fd, Exit code) {
  if (fd.get() < 0) cannot_read(code, path, errno);
  struct stat about;
  if (::fstat(fd.get(), &about) != 0) cannot_read(code, path, errno);
  TESSERA_CHECK_AS(code, !S_ISDIR(about.st_mode), "cannot read '", path,
                   "': it is a folder; give the name of a file");
  return about;
}

}  // namespace

void write_file_atomically(const std::string& path, std::span<const ByteView> pieces) {
  uint64_t total = 0;
  for (const ByteView piece : pieces) total += piece.size();
  PendingFile file(path, total);
  for (const ByteView piece : pieces) file.write(piece);
  file.take_the_name();
}

void write_file_atomically(const std::string& path, std::string_view content) {
  const ByteView piece = std::as_bytes(std::span(content));
  write_file_atomically(path, std::span(&piece, 1));
}

int remove_stale_temporaries(const std::string& folder) {
  int removed = 0;
  std::error_code ignored;  // cleaning is a courtesy: what cannot be listed or removed stays
  for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end; it.increment(ignored)) {
    const auto pid = writer_of(it->path().filename().string());
    if (!pid || runs_elsewhere(*pid)) continue;
    std::error_code failed;
    if (fs::is_regular_file(it->symlink_status(failed)) && fs::remove(it->path(), failed)) ++removed;
  }
  return removed;
}

std::string read_text(const std::string& path, uint64_t max_bytes, Exit code) {
  const Descriptor fd(open_to_read(path));
  const struct stat about = look_at_opened(path, fd, code);
  const auto check_size = [&](uint64_t size) {
    TESSERA_CHECK_AS(code, size <= max_bytes, "cannot read '", path, "': it has ",
                     S_ISREG(about.st_mode) ? "" : "at least ", size, " bytes, more than the ", max_bytes,
                     " allowed here; check that it is the right file");
  };
  check_size(uint64_t(about.st_size));
  std::string content;
  content.reserve(size_t(about.st_size) + 1);
  // Read until nothing comes rather than trust the size: pipes have none, and a file may grow.
  while (true) {
    const size_t before = content.size();
    const uint64_t room = max_bytes - before;
    content.resize(before + size_t(std::min<uint64_t>(kReadChunk, room + (room < kReadChunk))));
    const ssize_t count =
        retried([&] { return ::read(fd.get(), content.data() + before, content.size() - before); });
    if (count < 0) cannot_read(code, path, errno);
    content.resize(before + size_t(count));
    if (count == 0) return content;
    check_size(content.size());
  }
}

MappedFile::MappedFile(const std::string& path) {
  const Descriptor fd(open_to_read(path, O_NONBLOCK));  // or a pipe without a writer would hang us
  const struct stat about = look_at_opened(path, fd, Exit::file);
  TESSERA_CHECK_AS(Exit::file, S_ISREG(about.st_mode), "cannot read '", path,
                   "': it is not a regular file; copy it to one");
  if (about.st_size == 0) return;  // an empty mapping does not exist
  size_ = size_t(about.st_size);
  void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) cannot_read(Exit::file, path, errno);
  data_ = {static_cast<const std::byte*>(address),
           [size = size_](const std::byte* data) { ::munmap(const_cast<std::byte*>(data), size); }};
}

}  // namespace tessera
