// Image sets as files: a folder for each class, or Tiny-ImageNet's layout. Files are decoded when a sample is
// asked for, in the loader's threads.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/image_set.h"

namespace tessera {

// The files of one split, each class's sorted by the bytes of their names, and the classes in proportion
// (data/proportion.h).
struct ImageFiles {
  std::filesystem::path folder;
  std::vector<std::string> files = {};  // below the folder
  std::vector<int32_t> labels = {};
  std::vector<std::string> class_names = {};
  std::vector<std::string> notes = {};  // what is there and was left out, a line each
};

// folder/CLASS/FILE. The classes are the folders of `classes_from`, which need not be the same folder (the
// test split's classes are numbered as the training split's). Hidden files, folders within a class and files
// that are no PNG, JPEG, PGM or PPM by name are left out, and noted. Error(Exit::data) where no image is left
// or a class is not among the classes.
ImageFiles list_image_folder(const std::filesystem::path& folder, const std::filesystem::path& classes_from);

// Tiny-ImageNet as it is distributed: wnids.txt names the classes; images lie in train/CLASS/images and
// val/images, the classes of the latter in val/val_annotations.txt: a line "FILE<tab>CLASS<tab>..." each.
bool is_tiny_imagenet(const std::filesystem::path& folder);
ImageFiles list_tiny_imagenet(const std::filesystem::path& folder, bool train);

// Any sizes, in colour; what is grey becomes three equal channels.
class FolderImages : public ImageSet {
 public:
  FolderImages(std::filesystem::path folder, std::vector<std::string> files);

  int64_t count() const override { return int64_t(files_.size()); }
  Shape shape() const override { return {3, 0, 0}; }
  void add_to(Fingerprint& fingerprint) const override;  // names and sizes of the files
  ImageView image(int64_t index, Image& own, const Reduction& reduction) const override;

 private:
  std::filesystem::path folder_;
  std::vector<std::string> files_;
};

}  // namespace tessera
