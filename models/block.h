// The pre-norm transformer block (Dosovitskiy et al., 2021), of which most architectures are made:
//   x <- x + attention(norm1(x));   x <- x + mlp(norm2(x)).
// Blocks are counted through the stages of a model by their id, which says whether a block has experts in
// place of its MLP and how often stochastic depth drops it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/config.h"
#include "models/flops.h"
#include "nn/attention.h"
#include "nn/feed_forward.h"

namespace tessera {

// The feed-forward layer of block `id`: "mlp" in the scope, or "moe" where config.moe names the block.
std::unique_ptr<FeedForward> make_feed_forward(const Scope& scope, const ModelConfig& config, int64_t dim,
                                               int64_t id);

// Width of the hidden layer in the MLP of block `id`, and of each of its experts.
int64_t hidden_width(const ModelConfig& config, int64_t dim, int64_t id);

// How often block `id` is dropped in training.
double drop_path_rate(const ModelConfig& config, int64_t id);

// With the attention A, whose forward(x, residual, pass) gives residual + attention(x).
template <class A>
struct PreNormBlock {
  LayerNorm norm1;
  A attn;
  DropPath drop_path1;
  LayerNorm norm2;
  std::unique_ptr<FeedForward> mlp;  // Mlp, RandomPartitionMoe or TokenRoutedMoe
  DropPath drop_path2;
  std::string name;

  // `attention`: what A's constructor takes after its scope.
  template <class... Args>
  PreNormBlock(const Scope& scope, const ModelConfig& config, int64_t dim, int64_t id,
               const Args&... attention)
      : norm1(scope / "norm1", dim),
        attn(scope / "attn", attention...),
        drop_path1(scope, drop_path_rate(config, id)),
        norm2(scope / "norm2", dim),
        mlp(make_feed_forward(scope, config, dim, id)),
        drop_path2(scope, drop_path_rate(config, id)),
        name(scope.name()) {}

  Tensor forward(const Tensor& input, const Pass& pass) const {  // (B,N,C) to (B,N,C)
    return feed_forward(attn.forward(norm1.operand(input), drop_path1.around(input, pass), pass), pass);
  }

 protected:
  Tensor feed_forward(const Tensor& x, const Pass& pass) const {
    pass.show(name + ".attn", x);
    return pass.show(name + ".mlp", mlp->forward(norm2.operand(x), drop_path2.around(x, pass), pass));
  }
};

struct Block : PreNormBlock<Attention> {
  Block(const Scope& scope, const ModelConfig& config, int64_t dim, int64_t heads, int64_t id)
      : PreNormBlock(scope, config, dim, id, dim, heads, config.qkv_bias, config.init, config.dropout) {}

  using PreNormBlock::forward;
  // Where only the first `wanted` tokens are read: they alone go on from the attention, unless somebody
  // watches or what follows needs all.
  Tensor forward(const Tensor& input, const Pass& pass, int64_t wanted) const {
    if (pass.watch || attn.dropout.draws(pass) || !mlp->takes_first_tokens(pass)) return forward(input, pass);
    Pass first = pass;
    first.tokens = input.size(1);
    return feed_forward(attn.forward(norm1.operand(input), drop_path1.around(input, pass), pass, wanted),
                        first);
  }
};

// Through all blocks. What no head reads is not made: of the last block, tokens beyond the first `wanted`.
Tensor through(const std::vector<Block>& blocks, Tensor x, const Pass& pass, int64_t wanted);

// What the parts of block `id` cost for N tokens at width d. The attention, with its projections, takes
//   2 [ 4 N d^2 + 2 N^2 d ]
// operations, and the feed-forward layer of width h
//   2 [ 2 N d h ].
// Experts of a random partition cost parameters but no operations: each token goes through one. Routed to k
// of E experts it goes through k and the router, 2 N E d.
ModelCost attention_cost(const ModelConfig& config, int64_t dim, int64_t tokens);
ModelCost feed_forward_cost(const ModelConfig& config, int64_t dim, int64_t tokens, int64_t id);
// Both and their norms.
ModelCost block_cost(const ModelConfig& config, int64_t dim, int64_t tokens, int64_t id);

}  // namespace tessera
