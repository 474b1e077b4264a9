#include "data/image_folder.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <sstream>

#include "data/names.h"
#include "data/proportion.h"
#include "engine/base/check.h"
#include "engine/io/printable.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr size_t kNamesShown = 3;

bool is_image_name(const std::string& name) {
  constexpr std::array kEndings = {".jpg", ".jpeg", ".png", ".pgm", ".ppm"};
  std::string ending = fs::path(name).extension().string();
  for (char& c : ending) c = char(std::tolower(static_cast<unsigned char>(c)));
  return name[0] != '.' && std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end();
}

struct Listing {
  std::vector<std::string> folders, files;  // sorted
};

Listing list(const fs::path& folder) {
  Listing all;
  std::error_code error, ignored;  // an entry that cannot be looked at counts as a file, which the read names
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    (it->is_directory(ignored) ? all.folders : all.files).push_back(it->path().filename().string());
  TESSERA_CHECK_AS(Exit::data, !error, folder.string(), ": cannot be listed (", error.message(), ")");
  std::sort(all.folders.begin(), all.folders.end());
  std::sort(all.files.begin(), all.files.end());
  return all;
}

// Counts what is left out, and names the first few.
class LeftOut {
 public:
  void add(const std::string& path) {
    if (++count_ <= kNamesShown) names_ += (names_.empty() ? "" : ", ") + path;
  }
  void note(std::vector<std::string>& notes, const fs::path& folder, const char* what) const {
    if (count_ > 0)
      notes.push_back(text(folder.string(), ": ", count_, " ", what, " left out: ", names_,
                           count_ > kNamesShown ? ", ..." : ""));
  }

 private:
  size_t count_ = 0;
  std::string names_;
};

// The image files of a folder, each with `prefix` before its name.
std::vector<std::string> images_in(const fs::path& folder, const std::string& prefix, LeftOut& odd_files,
                                   LeftOut& odd_folders) {
  const Listing inside = list(folder / prefix);
  for (const std::string& name : inside.folders) odd_folders.add(prefix + name);
  std::vector<std::string> images;
  for (const std::string& name : inside.files) {
    if (is_image_name(name))
      images.push_back(prefix + name);
    else
      odd_files.add(prefix + name);
  }
  return images;
}

// Into the order of ImageFiles; by_class[k] are the files of class k.
void take_in_proportion(const std::vector<std::vector<std::string>>& by_class, ImageFiles& to) {
  std::vector<size_t> sizes;
  for (const std::vector<std::string>& files : by_class) sizes.push_back(files.size());
  for (const ClassPlace& place : in_proportion(sizes)) {
    to.files.push_back(by_class[place.k][place.i]);
    to.labels.push_back(int32_t(place.k));
  }
  TESSERA_CHECK_AS(Exit::data, !to.files.empty(), to.folder.string(),
                   ": no images; expected a folder for each class with PNG or JPEG files in it");
}

// Class name -> number.
std::map<std::string, size_t> numbered(const std::vector<std::string>& names) {
  std::map<std::string, size_t> numbers;
  for (size_t k = 0; k < names.size(); ++k) numbers.emplace(names[k], k);
  return numbers;
}

}  // namespace

ImageFiles list_image_folder(const fs::path& folder, const fs::path& classes_from) {
  ImageFiles found{.folder = folder};
  found.class_names = list(classes_from).folders;
  for (const std::string& name : found.class_names)
    TESSERA_CHECK_AS(Exit::data, is_utf8(name), classes_from.string(), ": the folder ", printable(name, 80),
                     " has a name that is no UTF-8; rename it, since it is the name of a class");
  const auto numbers = numbered(found.class_names);
  LeftOut odd_files, odd_folders, empty;
  std::vector<std::vector<std::string>> by_class(numbers.size());
  const Listing top = list(folder);
  for (const std::string& name : top.files) odd_files.add(name);
  for (const std::string& name : top.folders) {
    const auto number = numbers.find(name);
    TESSERA_CHECK_AS(Exit::data, number != numbers.end(), (folder / name).string(), ": no such class in ",
                     classes_from.string(), ", whose folders are the classes");
    by_class[number->second] = images_in(folder, name + "/", odd_files, odd_folders);
  }
  for (size_t k = 0; k < by_class.size(); ++k)
    if (by_class[k].empty()) empty.add(found.class_names[k]);
  take_in_proportion(by_class, found);
  odd_files.note(found.notes, folder, "files that are no images by their names");
  odd_folders.note(found.notes, folder, "folders within a class");
  empty.note(found.notes, folder, "classes without an image");
  return found;
}

bool is_tiny_imagenet(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "wnids.txt", ignored) &&
         fs::exists(folder / "val" / "val_annotations.txt", ignored);
}

ImageFiles list_tiny_imagenet(const fs::path& folder, bool train) {
  ImageFiles found{.folder = folder / (train ? "train" : "val")};
  found.class_names = read_names(folder / "wnids.txt");
  std::sort(found.class_names.begin(), found.class_names.end());
  const auto numbers = numbered(found.class_names);
  TESSERA_CHECK_AS(Exit::data, numbers.size() == found.class_names.size(), (folder / "wnids.txt").string(),
                   ": a class is named twice");
  for (const std::string& name : found.class_names)
    TESSERA_CHECK_AS(Exit::data, fs::path(name).filename() == name && name != "." && name != "..",
                     (folder / "wnids.txt").string(), ": ", printable(name, 80), " is no name of a class");

  LeftOut odd_files, odd_folders;
  std::vector<std::vector<std::string>> by_class(numbers.size());
  if (train) {
    for (const auto& [name, k] : numbers)
      by_class[k] = images_in(found.folder, name + "/images/", odd_files, odd_folders);
  } else {
    const fs::path annotations = found.folder / "val_annotations.txt";
    each_line(annotations, [&](const std::string& line, int64_t row) {
      std::istringstream cells(line);
      std::string file, name;
      const bool good = std::getline(cells, file, '\t') && std::getline(cells, name, '\t');
      const auto number = numbers.find(name);
      TESSERA_CHECK_AS(Exit::data, good && number != numbers.end(), annotations.string(), ":", row,
                       ": expected a file, a tab and a class of wnids.txt, not ", printable(line, 80));
      // A list names files of this folder, not of the machine.
      TESSERA_CHECK_AS(Exit::data, fs::path(file).filename() == file && is_image_name(file),
                       annotations.string(), ":", row, ": ", printable(file, 80), " is no name of an image");
      by_class[number->second].push_back("images/" + file);
    });
  }
  take_in_proportion(by_class, found);
  odd_files.note(found.notes, found.folder, "files that are no images by their names");
  odd_folders.note(found.notes, found.folder, "folders within a class");
  return found;
}

FolderImages::FolderImages(fs::path folder, std::vector<std::string> files)
    : folder_(std::move(folder)), files_(std::move(files)) {}

void FolderImages::add_to(Fingerprint& fingerprint) const {
  for (const std::string& file : files_) {
    std::error_code error;
    fingerprint.add<char>(file);
    fingerprint.add(uint64_t(fs::file_size(folder_ / file, error)));
  }
}

ImageView FolderImages::image(int64_t index, Image& own, const Reduction& reduction) const {
  const fs::path file = folder_ / files_[size_t(index)];
  own = to_channels(decode_image(read_file(file), file.string(), kMaxPixels, reduction), 3);
  return own.view();
}

}  // namespace tessera
