// CaiT (Touvron et al., "Going deeper with Image Transformers", 2021) with timm's names: many blocks of
// talking-heads attention on the patches alone, each branch with LayerScale, and then two blocks in which
// only a class token asks and changes. As the code of "Vision Transformer for Small-Size Datasets" (arXiv
// 2112.13492) has it, heads may be of another size than their part of the width (model.head_dim), and
// LayerScale starts by each block's own place.
//
// That code's class blocks differ: their token asks the patches but not itself, and its heads talk. Here they
// are the paper's. Stochastic depth leaves them out, as in timm, and so do experts: they have one token an
// image.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/block.h"
#include "models/model.h"
#include "models/patch_embed.h"
#include "nn/talking_heads.h"

namespace tessera {

// x <- x + gamma_1 attention(norm1(seen));   x <- x + gamma_2 mlp(norm2(x)),
// where `seen` is x, or for class attention all tokens.
template <class A>
struct LayerScaleBlock {
  Tensor gamma_1, gamma_2;  // (D)
  LayerNorm norm1;
  A attn;
  DropPath drop_path1;
  LayerNorm norm2;
  std::unique_ptr<FeedForward> mlp;
  DropPath drop_path2;
  std::string name;

  // `id`: of the block, or one beyond all of them. `gamma`: where LayerScale starts.
  LayerScaleBlock(const Scope& scope, const ModelConfig& config, int64_t id, double gamma, double drop_path);
  Tensor forward(const Tensor& input, const Tensor& seen, const Pass& pass) const;
};

class Cait : public Model {
 public:
  Cait(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype = DType::f32);

  Tensor forward(const Tensor& images, const Pass& pass) const override;

 private:
  std::unique_ptr<PatchEmbed> patch_embed_;
  Tensor cls_token_, pos_embed_;  // (1,1,D), (1,N,D)
  std::vector<LayerScaleBlock<TalkingHeads>> blocks_;
  std::vector<LayerScaleBlock<ClassAttention>> class_blocks_;
  std::unique_ptr<LayerNorm> norm_;
  std::unique_ptr<Linear> head_;
};

// Mixing the heads, N^2 H^2, has a bound of its own.
void check_cait(const ModelConfig& config);

// With N patches of width d and H heads of a = H D channels in all, a block takes
//   2 [ 4 N d a + 2 N^2 a + 2 N^2 H^2 + 2 N d h ]
// operations, and a class block
//   2 [ 2 d a + 2 (N+1) d a + 2 (N+1) a + 2 d h ].
ModelCost cait_cost(const ModelConfig& config);

}  // namespace tessera
