// A labelled set of samples, and the sets that this program knows by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/samples.h"

namespace tessera {

enum class Split { train, test };

struct Dataset {
  // "mnist", "fashion-mnist", "cifar10", "cifar100", "tiny-imagenet", "image-folder", "modelnet40",
  // "point-clouds"
  std::string name;
  std::shared_ptr<const Samples> samples;
  std::vector<int32_t> labels;  // (count), below class_names.size()
  std::vector<std::string> class_names;
  std::vector<int32_t> coarse_labels;  // (count) super-classes; empty where the set has none
  std::vector<std::string> coarse_names;
  std::vector<std::string> notes;  // what lies in the folder and was left out

  int64_t count() const { return int64_t(labels.size()); }
  int64_t classes() const { return int64_t(class_names.size()); }
  // Of shape, labels and samples.
  uint64_t fingerprint() const;
  // How many classes none of the first `limit` samples (0: of all) is of.
  int64_t classes_without(int64_t limit) const;
};

// Loads one split of what the folder holds, by the standard file names, in this order:
//   IDX        train-images-idx3-ubyte, train-labels-idx1-ubyte (t10k-... for test), each plain or .gz
//   CIFAR-10   data_batch_1.bin .. data_batch_5.bin, test_batch.bin
//   CIFAR-100  train.bin, test.bin; names from fine_label_names.txt and coarse_label_names.txt where they are
//   Tiny-ImageNet  wnids.txt, train/ and val/ with val_annotations.txt
//   point clouds   train_points.npy (n,P,3), train_labels.npy (n), test_...; class names from classes.txt.
//                  Files sorted by class are read in proportion to the classes (data/proportion.h).
//   ModelNet40     *train*.h5, *test*.h5 (modelnet40_ply_hdf5_2048); names from shape_names.txt where it is
//   image folder   train/CLASS/FILE, and val/CLASS/FILE or test/CLASS/FILE: PNG, JPEG, PGM or PPM, of any
//                  size. Classes are the folders of train/, sorted by the bytes of their names.
// IDX files do not say which set they are. `name` does; without it they are Fashion-MNIST if the folder's
// name or its parent's contains "fashion" (any case), MNIST otherwise. Both have 10 classes.
// Error(Exit::data) names the file; where nothing fits, what was looked for.
Dataset load_dataset(const std::filesystem::path& folder, Split split, std::string_view name = {});

// The mean and standard deviation of the training images of a known set; those of ImageNet for an image
// folder. Error(Exit::usage) for other names.
Normalization normalization(std::string_view name);

}  // namespace tessera
