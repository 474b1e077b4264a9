// The router of Mobile V-MoEs (Daxberger et al., 2023, arXiv 2309.04354): all tokens of an image go through
// the same k experts, chosen once for all layers,
//   g(x) = top-k(softmax(W x)),  W (E,C) without bias.
// It is taught which super-class an image belongs to: lambda L_g, the cross-entropy between softmax(W x) and
// the super-class of the label, is added to the loss. Without super-classes it learns end to end, as V-MoE's
// router does, with noise and balance losses over the images of a group.
#pragma once

#include <cstdint>
#include <vector>

#include "nn/moe/router.h"

namespace tessera {

class ImageRouter {
 public:
  // `superclass` of each class, or empty: end to end.
  ImageRouter(const Scope& scope, int64_t E, int64_t C, WeightInit init, const RouterOptions& options,
              std::vector<int32_t> superclass)
      : weight_((scope / "weight").weight({E, C}, linear_init(init, C, E))),
        options_(options),
        superclass_(std::move(superclass)),
        name_(scope.name()),
        site_(scope.site()) {}

  // The experts of images(B,C), each with N tokens; adds the router's loss to the pass.
  Routing route(const Tensor& images, int64_t N, const Pass& pass) const;

 private:
  bool taught() const { return !superclass_.empty(); }
  // Soft super-classes (B,E) of labels (B) or soft targets (B,K): the probability of all classes in it.
  Tensor superclass_targets(const Tensor& targets, DType dtype) const;

  Tensor weight_;  // (E,C)
  RouterOptions options_;
  std::vector<int32_t> superclass_;
  std::string name_;
  uint32_t site_;
};

}  // namespace tessera
