// A picture of the samples of a training batch, as the model sees them.
#pragma once

#include <string>
#include <vector>

#include "data/loader.h"

namespace tessera::cli {

class ContactSheet {
 public:
  // The first of the batch, up to 32, in rows of 8. Error(Exit::usage) where samples are no images.
  ContactSheet(const Batch& batch, const Shape& shape, const Dataset& data, const Normalization& norm);

  // What each sample is learned as: a class, or the shares of two.
  const std::vector<std::string>& labels() const { return labels_; }
  void write(const std::string& file) const;  // a PNG
  void print() const;                         // the labels, laid out as the samples

 private:
  void place(const float* sample, const Normalization& norm, int64_t number, int64_t height, int64_t width);

  Image sheet_;
  int64_t zoom_ = 1;
  std::vector<std::string> labels_;
};

}  // namespace tessera::cli
