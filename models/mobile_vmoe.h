// Mobile V-MoE (Daxberger et al., 2023, arXiv 2309.04354, fig. 2c): a ViT whose last L layers are mixtures of
// experts, with a single router for all of them that looks at the whole image:
//
//   image -> depth - L dense layers -> router -> L layers of experts -> head
//                                        |           |
//                                        +-- g(x) ---+   the same k experts for all tokens and all L layers
//
//   y = sum_i g(x)_i expert_i(x) in place of each of these layers' MLP (eq. 1); attention and norms are
//   shared.
//
// The router sees the class token after the dense layers, or the mean of all patch tokens, normalised without
// learned factors (which of them, and that, is our choice: the paper's parameters leave room for W alone).
#pragma once

#include <optional>
#include <vector>

#include "models/vit.h"
#include "nn/moe/image_router.h"

namespace tessera {

// A transformer block with experts that were chosen before it.
struct ExpertBlock {
  LayerNorm norm1;
  Attention attn;
  DropPath drop_path1;
  LayerNorm norm2;
  Experts experts;
  DropPath drop_path2;
  std::string name;

  ExpertBlock(const Scope& scope, const ModelConfig& config, int64_t id);
  Tensor forward(const Tensor& input, const Routing& routing, const Pass& pass) const;
};

class MobileVmoe : public Vit {
 public:
  MobileVmoe(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype = DType::f32);

  Tensor forward(const Tensor& images, const Pass& pass) const override;

 private:
  Tensor image_vector(const Tensor& x) const;  // (B,N,D) to (B,D)

  ImageRouter router_;
  std::vector<ExpertBlock> expert_blocks_;
};

// Of one image: the operations of k experts a layer. With k = 1 they are those of the dense ViT, but for the
// router's 2 D E.
ModelCost mobile_vmoe_cost(const ModelConfig& config);
// The layers with experts must be the last ones.
void check_mobile_vmoe(const ModelConfig& config);

}  // namespace tessera
