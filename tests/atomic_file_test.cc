#include "engine/io/atomic_file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/messages.h"
#include "tests/scratch_folder.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::Caught;
using testing::error_of;

int files_in(const std::string& folder) {
  return int(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

// While it lives, no file of this process grows above `bytes`: writing past it fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &former_);
    const rlimit limit{bytes, former_.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &former_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit former_;
  void (*handler_)(int);
};

}  // namespace

TEST_CASE("write_file_atomically: pieces in order, former file replaced, nothing else left") {
  const ScratchFolder folder;
  const std::string path = folder / "w", a(100'000, 'a'), b = "", c = "tail";
  write_file_atomically(path, "former, and longer than nothing");
  const std::vector<ByteView> pieces = {std::as_bytes(std::span(a)), std::as_bytes(std::span(b)),
                                        std::as_bytes(std::span(c))};
  write_file_atomically(path, pieces);
  CHECK(read_text(path, kPlenty) == a + c);
  write_file_atomically(path, "");
  CHECK(read_text(path, kPlenty).empty());
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("write_file_atomically: a path without a folder is in the current one") {
  const ScratchFolder folder;
  const fs::path former = fs::current_path();
  fs::current_path(folder.path());
  CHECK_NOTHROW(write_file_atomically("plain", "x"));
  fs::current_path(former);
  CHECK(read_text(folder / "plain", kPlenty) == "x");
}

TEST_CASE("write_file_atomically: a full disk leaves the former file and no other") {
  const ScratchFolder folder;
  const std::string path = folder / "w";
  write_file_atomically(path, "former");
  {
    const FileSizeLimit limit(4096);
    const Caught error = error_of(Exit::file, [&] { write_file_atomically(path, std::string(10'000, 'x')); });
    CHECK(error.has(path));
    CHECK(error.has("4096 of 10000 bytes"));
    CHECK(error.has("File too large"));
    CHECK(error.has("another file system"));
  }
  CHECK(read_text(path, kPlenty) == "former");
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("write_file_atomically: refuses folders, devices and missing folders") {
  const ScratchFolder folder;
  fs::create_directory(folder / "sub");
  CHECK(error_of(Exit::file, [&] { write_file_atomically(folder / "sub", "x"); }).has("a folder"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(error_of(Exit::file, [&] { write_file_atomically(folder / "pipe", "x"); }).has("not a regular file"));
  const Caught error = error_of(Exit::file, [&] { write_file_atomically(folder / "no/w", "x"); });
  CHECK(error.has(folder / "no/w"));
  CHECK(error.has("No such file"));
  CHECK(files_in(folder.path()) == 2);
}

TEST_CASE("write_file_atomically: a kill at any moment leaves one whole file") {
  const ScratchFolder folder;
  const std::string path = folder / "w", even(300'000, 'e'), odd(200'000, 'o');
  write_file_atomically(path, even);
  int leftovers = 0;
  for (int round = 0; round < 24 || (leftovers == 0 && round < 500); ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (int i = 0;; ++i) write_file_atomically(path, i % 2 ? even : odd);
    }
    ::usleep(useconds_t(1000 + 700 * (round % 24)));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const std::string content = read_text(path, kPlenty);
    REQUIRE((content == even || content == odd));
    leftovers += remove_stale_temporaries(folder.path());
    CHECK(files_in(folder.path()) == 1);
  }
  CHECK(leftovers > 0);  // else no kill ever hit a write
}

TEST_CASE("remove_stale_temporaries: takes its own kind only, and none of a living process") {
  const ScratchFolder folder;
  const auto make = [&](const std::string& name) { std::ofstream(folder / name) << "x"; };
  const pid_t gone = ::fork();
  if (gone == 0) ::_exit(0);
  ::waitpid(gone, nullptr, 0);
  make(text("w.safetensors.tmp-", gone, "-0"));
  make(text("w.tmp-", ::getpid(), "-18446744073709551615"));
  const std::vector<std::string> kept = {text("w.tmp-", ::getppid(), "-0"),
                                         text(".tmp-", gone, "-0"),
                                         text("w.tmp-", gone),
                                         text("w.tmp-", gone, "-0.bak"),
                                         "w.tmp--5-0",
                                         "w.tmp-99999999999999999999-0",
                                         "w.safetensors",
                                         "w.tmp-"};
  for (const std::string& name : kept) make(name);
  fs::create_directory(folder / text("folder.tmp-", gone, "-0"));
  CHECK(remove_stale_temporaries(folder.path()) == 2);
  for (const std::string& name : kept) CHECK_MESSAGE(fs::exists(folder / name), name);
  CHECK(files_in(folder.path()) == int(kept.size()) + 1);
  CHECK(remove_stale_temporaries(folder / "missing") == 0);
}

TEST_CASE("read_text: the limit, and what is wrong is said") {
  const ScratchFolder folder;
  const std::string path = folder / "r", content(3'000'000, 'r');
  write_file_atomically(path, content);
  CHECK(read_text(path, content.size()) == content);
  const Caught error = error_of(Exit::data, [&] { read_text(path, content.size() - 1, Exit::data); });
  CHECK(error.has(path));
  CHECK(error.has("3000000 bytes, more than the 2999999"));
  CHECK(error_of(Exit::usage, [&] { read_text(folder / "no", 1, Exit::usage); }).has("No such file"));
  CHECK(error_of(Exit::file, [&] { read_text(folder.path(), 1); }).has("a folder"));
}

TEST_CASE("read_text: a pipe is read to its end, within the limit") {
  for (const bool fits : {true, false}) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    REQUIRE(::write(ends[1], "12345", 5) == 5);
    ::close(ends[1]);
    const std::string path = text("/dev/fd/", ends[0]);
    if (fits) {
      CHECK(read_text(path, 5) == "12345");
    } else {
      CHECK(error_of(Exit::file, [&] { read_text(path, 4); }).has("more than the 4"));
    }
    ::close(ends[0]);
  }
}

TEST_CASE("MappedFile: shows the bytes, outlives replacement, refuses what is not a file") {
  const ScratchFolder folder;
  const std::string path = folder / "m";
  const auto shown = [](const MappedFile& file) {
    return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  };
  write_file_atomically(path, "former");
  const MappedFile file(path);
  write_file_atomically(path, "");
  CHECK(shown(file) == "former");
  CHECK(MappedFile(path).bytes().empty());
  CHECK(error_of(Exit::file, [&] { MappedFile{folder / "no"}; }).has("No such file"));
  CHECK(error_of(Exit::file, [&] { MappedFile{folder.path()}; }).has("a folder"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(error_of(Exit::file, [&] { MappedFile{folder / "pipe"}; }).has("not a regular file"));
}

}  // namespace tessera
