#include "data/dataset.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <numeric>

#include "data/cifar.h"
#include "data/hdf5.h"
#include "data/idx.h"
#include "data/image_folder.h"
#include "data/image_set.h"
#include "data/names.h"
#include "data/npy.h"
#include "data/point_clouds.h"
#include "data/proportion.h"
#include "engine/base/check.h"
#include "engine/io/printable.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

struct KnownSet {
  std::string_view name;
  std::vector<std::string> class_names;  // empty: numbers, or read from the folder
  Normalization normalization;
};

const std::array<KnownSet, 8>& known_sets() {
  static const std::array<KnownSet, 8> kSets = {{
      {"mnist", {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, {{0.1307f}, {0.3081f}}},
      {"fashion-mnist",
       {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
        "Ankle boot"},
       {{0.2860f}, {0.3530f}}},
      {"cifar10",
       {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"},
       {{0.4914f, 0.4822f, 0.4465f}, {0.2470f, 0.2435f, 0.2616f}}},
      {"cifar100", {}, {{0.5070f, 0.4865f, 0.4409f}, {0.2673f, 0.2564f, 0.2762f}}},
      {"tiny-imagenet", {}, {{0.4802f, 0.4481f, 0.3975f}, {0.2770f, 0.2691f, 0.2821f}}},
      {"image-folder", {}, {{0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}}},
      // Clouds lie in the unit sphere, and are taken as they are.
      {"modelnet40", {}, {{0, 0, 0}, {1, 1, 1}}},
      {"point-clouds", {}, {{0, 0, 0}, {1, 1, 1}}},
  }};
  return kSets;
}

const KnownSet& known_set(std::string_view name) {
  std::string names;
  for (const KnownSet& set : known_sets()) {
    if (set.name == name) return set;
    names += text(names.empty() ? "" : ", ", set.name);
  }
  fail(Exit::usage, "unknown data set ", printable(name), "; known: ", names);
}

// A folder that may not be entered holds nothing for us.
bool there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// The plain file or its .gz; empty where neither is there.
fs::path plain_or_gz(const fs::path& plain) {
  const fs::path gz = plain.string() + ".gz";
  return there(plain) ? plain : there(gz) ? gz : fs::path();
}

std::string lower(std::string text) {
  for (char& c : text) c = char(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// The parent counts because some tools keep the files in FashionMNIST/raw.
std::string_view mnist_kind(const fs::path& folder) {
  const fs::path path = (fs::absolute(folder) / "").lexically_normal().parent_path();
  const bool fashion = lower(path.filename().string()).find("fashion") != std::string::npos ||
                       lower(path.parent_path().filename().string()).find("fashion") != std::string::npos;
  return fashion ? "fashion-mnist" : "mnist";
}

Dataset load_mnist(const fs::path& images_file, const fs::path& labels_file, std::string_view name) {
  const std::string images_name = images_file.string(), labels_name = labels_file.string();
  IdxArray images = parse_idx(read_file(images_file), images_name, 3);
  const IdxArray labels = parse_idx(read_file(labels_file), labels_name, 1);
  TESSERA_CHECK_AS(Exit::data, images.dims[0] == labels.dims[0], images_name, " has ", images.dims[0],
                   " images but the count of labels in ", labels_name, " is ", labels.dims[0]);
  Dataset set;
  set.name = name;
  set.class_names = known_set(name).class_names;
  TESSERA_CHECK_AS(Exit::usage, normalization(name).mean.size() == 1, images_name,
                   ": holds grey images, which ", name, " does not; name mnist or fashion-mnist");
  set.samples =
      std::make_shared<MemoryImages>(Shape{1, images.dims[1], images.dims[2]}, std::move(images.values));
  set.labels.assign(labels.values.begin(), labels.values.end());
  for (int64_t i = 0; i < set.count(); ++i) {
    TESSERA_CHECK_AS(Exit::data, set.labels[i] < set.classes(), labels_name, ": label ", set.labels[i],
                     " of image ", i, ", but ", name, " has ", set.classes(), " classes");
  }
  return set;
}

// The file's names, or the numbers from 0 where it is not there.
std::vector<std::string> names_or_numbers(const fs::path& file, size_t expected) {
  std::vector<std::string> names;
  if (!there(file)) {
    for (size_t i = 0; i < expected; ++i) names.push_back(std::to_string(i));
    return names;
  }
  names = read_names(file);
  TESSERA_CHECK_AS(Exit::data, names.size() == expected, file.string(), ": ", names.size(),
                   " class names, expected ", expected);
  return names;
}

Dataset load_cifar(const std::vector<fs::path>& files, std::string_view name) {
  Dataset set;
  set.name = name;
  std::vector<uint8_t> images;
  const auto parse = name == "cifar10" ? parse_cifar10 : parse_cifar100;
  const auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  for (const fs::path& file : files) {
    const CifarRecords records = parse(read_file(file), file.string());
    append(images, records.images);
    append(set.labels, records.labels);
    append(set.coarse_labels, records.coarse_labels);
  }
  constexpr int64_t kSide = CifarRecords::kSide;
  set.samples =
      std::make_shared<MemoryImages>(Shape{CifarRecords::kChannels, kSide, kSide}, std::move(images));
  return set;
}

Dataset load_files(ImageFiles found, std::string_view name) {
  Dataset set;
  set.name = name;
  set.labels = std::move(found.labels);
  set.class_names = std::move(found.class_names);
  set.notes = std::move(found.notes);
  set.samples = std::make_shared<FolderImages>(std::move(found.folder), std::move(found.files));
  return set;
}

// Labels of any width, each that of a class.
std::vector<int32_t> class_labels(const std::vector<int64_t>& labels, int64_t classes,
                                  const std::string& file) {
  for (size_t i = 0; i < labels.size(); ++i)
    TESSERA_CHECK_AS(Exit::data, labels[i] >= 0 && labels[i] < classes, file, ": label ", labels[i],
                     " of sample ", i, ", but there are ", classes, " classes");
  return {labels.begin(), labels.end()};
}

// Into an order of which the first N, which data.limit keeps, have every class: given are clouds of `size`
// numbers that are sorted by class.
void mix_classes(std::vector<float>& points, std::vector<int32_t>& labels, size_t classes, size_t size) {
  std::vector<size_t> sizes(classes), begins(classes);
  for (const int32_t label : labels) ++sizes[size_t(label)];
  std::exclusive_scan(sizes.begin(), sizes.end(), begins.begin(), size_t{0});
  std::vector<float> mixed;
  mixed.reserve(points.size());
  labels.clear();
  for (const ClassPlace& place : in_proportion(sizes)) {
    const auto cloud = points.begin() + int64_t((begins[place.k] + place.i) * size);
    mixed.insert(mixed.end(), cloud, cloud + int64_t(size));
    labels.push_back(int32_t(place.k));
  }
  points = std::move(mixed);
}

Dataset load_npy_clouds(const fs::path& points_file, const fs::path& labels_file, const fs::path& names) {
  const std::string points_name = points_file.string(), labels_name = labels_file.string();
  NpyArray<float> points = parse_npy_floats(read_file(points_file), points_name, 3);
  const NpyArray<int64_t> labels = parse_npy_integers(read_file(labels_file), labels_name, 1);
  TESSERA_CHECK_AS(Exit::data, points.shape[0] == labels.shape[0], points_name, " has ", points.shape[0],
                   " clouds but the count of labels in ", labels_name, " is ", labels.shape[0]);
  Dataset set;
  set.name = "point-clouds";
  set.class_names = read_names(names);
  set.labels = class_labels(labels.values, set.classes(), labels_name);
  if (std::is_sorted(set.labels.begin(), set.labels.end()))
    mix_classes(points.values, set.labels, size_t(set.classes()), size_t(points.shape.count(1, 3)));
  set.samples = std::make_shared<PointClouds>(points.shape, std::move(points.values));
  return set;
}

// The .h5 files of the folder whose name has the word, in the order of their names.
std::vector<fs::path> hdf5_files(const fs::path& folder, const std::string& word) {
  std::vector<fs::path> files;
  std::error_code ignored;  // as of a folder that may not be read
  for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end; it.increment(ignored)) {
    const fs::path& path = it->path();
    if (path.extension() == ".h5" && path.filename().string().find(word) != std::string::npos)
      files.push_back(path);
  }
  std::sort(files.begin(), files.end());
  return files;
}

Dataset load_modelnet40(const std::vector<fs::path>& files, const fs::path& names) {
  Dataset set;
  set.name = "modelnet40";
  set.class_names = names_or_numbers(names, 40);
  std::vector<float> points;
  Shape shape;
  for (const fs::path& file : files) {
    const CloudFile clouds = read_cloud_hdf5(file);
    if (shape.rank() == 0) shape = {0, clouds.shape[1], 3};
    TESSERA_CHECK_AS(Exit::data, clouds.shape[1] == shape[1], file.string(), ": clouds of ", clouds.shape[1],
                     " points, but ", files[0].string(), " has clouds of ", shape[1]);
    shape[0] += clouds.shape[0];
    points.insert(points.end(), clouds.points.begin(), clouds.points.end());
    const std::vector<int32_t> labels = class_labels(clouds.labels, set.classes(), file.string());
    set.labels.insert(set.labels.end(), labels.begin(), labels.end());
  }
  set.samples = std::make_shared<PointClouds>(shape, std::move(points));
  return set;
}

}  // namespace

Dataset load_dataset(const fs::path& folder, Split split, std::string_view name) {
  const bool train = split == Split::train;
  std::error_code error;
  TESSERA_CHECK_AS(Exit::data, fs::is_directory(folder, error), folder.string(),
                   ": no such folder; give the folder that holds the data set's files");

  const std::string prefix = train ? "train" : "t10k";
  const fs::path images = folder / (prefix + "-images-idx3-ubyte"),
                 labels = folder / (prefix + "-labels-idx1-ubyte");
  if (const fs::path found = plain_or_gz(images); !found.empty()) {
    const fs::path found_labels = plain_or_gz(labels);
    TESSERA_CHECK_AS(Exit::data, !found_labels.empty(), labels.string(), "[.gz]: missing, though ",
                     found.string(), " is there");
    return load_mnist(found, found_labels, name.empty() ? mnist_kind(folder) : name);
  }

  std::vector<fs::path> cifar10;
  if (train) {
    for (int i = 1; i <= 5; ++i) cifar10.push_back(folder / text("data_batch_", i, ".bin"));
  } else {
    cifar10.push_back(folder / "test_batch.bin");
  }
  if (there(cifar10[0])) {
    Dataset set = load_cifar(cifar10, "cifar10");
    set.class_names = known_set("cifar10").class_names;
    return set;
  }

  const fs::path cifar100 = folder / (train ? "train.bin" : "test.bin");
  if (there(cifar100)) {
    Dataset set = load_cifar({cifar100}, "cifar100");
    set.class_names = names_or_numbers(folder / "fine_label_names.txt", 100);
    set.coarse_names = names_or_numbers(folder / "coarse_label_names.txt", 20);
    return set;
  }
  if (is_tiny_imagenet(folder)) return load_files(list_tiny_imagenet(folder, train), "tiny-imagenet");

  const std::string word = train ? "train" : "test";
  const fs::path points = folder / (word + "_points.npy"), cloud_labels = folder / (word + "_labels.npy");
  if (there(points)) return load_npy_clouds(points, cloud_labels, folder / "classes.txt");
  if (const std::vector<fs::path> files = hdf5_files(folder, word); !files.empty())
    return load_modelnet40(files, folder / "shape_names.txt");

  const fs::path train_folder = folder / "train";
  const fs::path own = train ? train_folder : there(folder / "val") ? folder / "val" : folder / "test";
  if (there(own))
    return load_files(list_image_folder(own, there(train_folder) ? train_folder : own), "image-folder");
  fail(Exit::data, folder.string(), ": no known data set here; looked for ", images.filename().string(),
       "[.gz], ", cifar10[0].filename().string(), ", ", cifar100.filename().string(), ", ",
       points.filename().string(), ", *", word, "*.h5, and for an image folder's ",
       train ? "train/" : "val/ and test/");
}

int64_t Dataset::classes_without(int64_t limit) const {
  std::vector<bool> with(class_names.size());
  for (int64_t i = 0; i < (limit > 0 ? std::min(limit, count()) : count()); ++i)
    with[size_t(labels[size_t(i)])] = true;
  return std::count(with.begin(), with.end(), false);
}

uint64_t Dataset::fingerprint() const {
  Fingerprint print;
  print.add(uint64_t(count()));
  for (const int64_t size : samples->shape()) print.add(uint64_t(size));
  print.add<int32_t>(labels);
  print.add<int32_t>(coarse_labels);
  samples->add_to(print);
  return print.value();
}

Normalization normalization(std::string_view name) { return known_set(name).normalization; }

}  // namespace tessera
