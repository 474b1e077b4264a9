// The point-cloud transformer of Point-BERT (arXiv 2111.14819) and Point-MAE (arXiv 2203.06604), trained from
// scratch, with Point-MAE's names:
//
//   points(B,P,3) -> G centres, far from each other -> around each the k nearest points, minus the centre
//   group -> mini-PointNet -> token;   class token before the tokens
//   before every block: x <- x + pos, where pos = MLP(centre), and learned for the class token
//   head on [class token, max over the other tokens]
//
// Blocks named by config.moe have experts in place of their MLP. The norms in the blocks have timm's epsilon.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/block.h"
#include "models/flops.h"
#include "models/model.h"
#include "nn/batch_norm.h"

namespace tessera {

// A convolution over the points, each for itself (torch's Conv1d of kernel 1).
struct PointConv {
  Tensor weight, bias;  // (O,C,1), (O)

  PointConv(const Scope& scope, int64_t C, int64_t O, WeightInit init)
      : weight((scope / "weight").weight({O, C, 1}, linear_init(init, C, O))),
        bias((scope / "bias").bias({O})) {}
  Tensor matrix() const { return weight.reshape({weight.size(0), weight.size(1)}); }
  Tensor forward(const Tensor& x) const { return linear(x, matrix(), bias); }
};

// groups(B,G,k,3) to tokens(B,G,C) (PointNet, Qi et al., 2017, on each group):
//   f = conv(relu(norm(conv(group)))),  W channels a point;   g = max of f over the points
//   token = max over the points of conv(relu(norm(conv([g, f]))))
struct MiniPointNet {
  PointConv first_in;
  BatchNorm first_norm;
  PointConv first_out, second_in;
  BatchNorm second_norm;
  PointConv second_out;

  MiniPointNet(const Scope& scope, int64_t W, int64_t C, WeightInit init);
  Tensor forward(const Tensor& groups, const Pass& pass) const;
};

// linear, norm, relu, dropout, twice, and linear.
struct PointHead {
  Linear fc1;
  BatchNorm norm1;
  Linear fc2;
  BatchNorm norm2;
  Linear fc3;
  Dropout dropout1, dropout2;

  PointHead(const Scope& scope, int64_t C, int64_t W, int64_t K, WeightInit init, double dropout_rate);
  Tensor forward(const Tensor& x, const Pass& pass) const;
};

class PointTransformer : public Model {
 public:
  PointTransformer(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype = DType::f32);

  Tensor forward(const Tensor& points, const Pass& pass) const override;
  int64_t rows() const override { return config().points.groups * config().points.group_size; }
  bool whole_batch() const override { return true; }  // for batch norm

 private:
  std::unique_ptr<MiniPointNet> encoder_;
  Tensor cls_token_, cls_pos_;  // (1,1,C) each
  std::unique_ptr<Linear> pos_in_, pos_out_;
  std::vector<Block> blocks_;
  std::unique_ptr<LayerNorm> norm_;
  std::unique_ptr<PointHead> head_;
};

// With G groups of k points, width C and W of a group's feature, a cloud takes
//   2 [ G k (3 W/2 + W^2/2 + 2 W^2 + 2 W C) + G 2 W^2 + G (3 W/2 + C W/2) + 2 C W + W^2 + W K ]
// operations and those of the blocks for G + 1 tokens: the half of the second layer that reads g is computed
// once a group. Finding the groups is not counted.
ModelCost point_transformer_cost(const ModelConfig& config);

// Throws (usage) where the points make no groups.
void check_points(const ModelConfig& config);

}  // namespace tessera
