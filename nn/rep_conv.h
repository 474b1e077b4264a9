// A 3 x 3 convolution that is trained as a sum of branches, each with a batch norm, and becomes one
// convolution afterwards (RepVGG, arXiv 2101.03697; ACNet, arXiv 1908.03930; Diverse Branch Block, arXiv
// 2103.13425):
//   3x3, 1x1    convolutions
//   identity    a batch norm alone, where input and output are of one shape
//   1x3, 3x1    the middle row and column of a 3 x 3 kernel
//   1x1-3x3     1 x 1 to as many channels as come in, batch norm, 3 x 3
//   merged      what all of them become: 3 x 3 with a bias
// In the sequence it is the 1 x 1 convolution that pads, so that the 3 x 3 one meets around the image what
// the batch norm makes of 0, and the merge is exact. The Diverse Branch Block pads by that same value, but
// leaves the border out of the batch's statistics.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/reparam.h"

namespace tessera {

inline constexpr const char* kMergedBranch = "merged";
inline constexpr const char* kRepBranches[] = {"3x3", "1x1",     "identity",   "1x3",
                                               "3x1", "1x1-3x3", kMergedBranch};

class RepBranch {
 public:
  virtual ~RepBranch() = default;
  virtual Tensor forward(const Tensor& x, const Pass& pass) const = 0;
  virtual MergedConv merged() const = 0;
};

struct RepConvOptions {
  int64_t in, out, stride;
  std::vector<std::string> branches;

  bool keeps_shape() const { return in == out && stride == 1; }
};

class RepConv {
 public:
  RepConv(const Scope& scope, const RepConvOptions& options);

  Tensor forward(const Tensor& x, const Pass& pass) const;  // the sum of the branches
  MergedConv merged() const;

 private:
  std::vector<std::unique_ptr<RepBranch>> branches_;
};

}  // namespace tessera
