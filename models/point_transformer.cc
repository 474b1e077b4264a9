#include "models/point_transformer.h"

namespace tessera {
namespace {

Tensor as_rows(const Tensor& x) { return x.reshape({x.count() / x.size(-1), x.size(-1)}); }

// `first`(1,1,C) before the tokens x(B,N,C).
Tensor with_first(const Tensor& first, const Tensor& x) {
  const Tensor zeros = Tensor::zeros({x.size(0), 1, x.size(2)}, x.dtype());
  return concat({add(zeros, first), x}, 1);
}

}  // namespace

MiniPointNet::MiniPointNet(const Scope& scope, int64_t W, int64_t C, WeightInit init)
    : first_in(scope / "first_conv" / "0", 3, W / 2, init),
      first_norm(scope / "first_conv" / "1", W / 2),
      first_out(scope / "first_conv" / "3", W / 2, W, init),
      second_in(scope / "second_conv" / "0", 2 * W, 2 * W, init),
      second_norm(scope / "second_conv" / "1", 2 * W),
      second_out(scope / "second_conv" / "3", 2 * W, C, init) {}

Tensor MiniPointNet::forward(const Tensor& groups, const Pass& pass) const {
  const int64_t B = groups.size(0), G = groups.size(1), k = groups.size(2);
  const Tensor hidden = relu(first_norm.forward(first_in.forward(as_rows(groups)), pass));
  const Tensor f = first_out.forward(hidden);
  const int64_t W = f.size(1);
  const Tensor g = max(f.reshape({B * G, k, W}), 1);
  // The product with [g, f] is the sum of two, of which that with g is the same for all points of a group.
  const Tensor of_g = linear(g, slice(second_in.matrix(), 1, 0, W));
  const Tensor of_f = linear(f, slice(second_in.matrix(), 1, W, 2 * W), second_in.bias);
  const Tensor both = add(of_f.reshape({B * G, k, 2 * W}), of_g.reshape({B * G, 1, 2 * W}));
  const Tensor out = second_out.forward(relu(second_norm.forward(as_rows(both), pass)));
  return max(out.reshape({B, G, k, out.size(1)}), 2);
}

PointHead::PointHead(const Scope& scope, int64_t C, int64_t W, int64_t K, WeightInit init,
                     double dropout_rate)
    : fc1(scope / "0", C, W, init),
      norm1(scope / "1", W),
      fc2(scope / "4", W, W, init),
      norm2(scope / "5", W),
      fc3(scope / "8", W, K, init),
      dropout1(scope, dropout_rate),
      dropout2(scope, dropout_rate) {}

Tensor PointHead::forward(const Tensor& x, const Pass& pass) const {
  Tensor hidden = dropout1.forward(relu(norm1.forward(fc1.forward(x), pass)), pass);
  hidden = dropout2.forward(relu(norm2.forward(fc2.forward(hidden), pass)), pass);
  return fc3.forward(hidden);
}

PointTransformer::PointTransformer(const ModelConfig& config, std::optional<uint64_t> seed, DType dtype)
    : Model(config, dtype) {
  const int64_t C = config.dim, W = config.points.width;
  const Scope scope(parameters());
  encoder_ = std::make_unique<MiniPointNet>(scope / "encoder", W, C, config.init);
  cls_token_ = (scope / "cls_token").weight({1, 1, C}, Init::trunc_normal(0.02), false);
  cls_pos_ = (scope / "cls_pos").weight({1, 1, C}, Init::trunc_normal(0.02));
  pos_in_ = std::make_unique<Linear>(scope / "pos_embed" / "0", 3, W / 2, config.init);
  pos_out_ = std::make_unique<Linear>(scope / "pos_embed" / "2", W / 2, C, config.init);
  for (int64_t id = 0; id < config.depth; ++id)
    blocks_.emplace_back(scope / "blocks" / "blocks" / std::to_string(id), config, C, config.heads, id);
  norm_ = std::make_unique<LayerNorm>(scope / "norm", C);
  head_ = std::make_unique<PointHead>(scope / "cls_head_finetune", 2 * C, W, config.classes, config.init,
                                      config.points.head_dropout);
  parameters().allocate(seed);
}

Tensor PointTransformer::forward(const Tensor& points, const Pass& pass) const {
  const PointsConfig& c = config().points;
  Dims dim("point_transformer");
  dim(points, "points(B,P,3)");
  TESSERA_CHECK(dim['P'] == c.count, "point_transformer: points", points.shape(), " for a model of ", c.count,
                " points");
  const Tensor centres = farthest_points(points, c.groups);
  const Tensor groups = nearest_points(points, centres, c.group_size);
  Tensor x = with_first(cls_token_, encoder_->forward(groups, pass));
  pass.show("encoder", x);
  const Tensor hidden = linear_gelu(centres, pos_in_->weight, pos_in_->bias);
  const Tensor pos = with_first(cls_pos_, pos_out_->forward(hidden));
  pass.show("pos_embed", pos);
  for (const Block& block : blocks_) x = block.forward(add(x, pos), pass);
  x = norm_->forward(x);
  const int64_t B = x.size(0), N = x.size(1), C = x.size(2);
  const Tensor cls = slice(x, 1, 0, 1).reshape({B, C}), most = max(slice(x, 1, 1, N), 1);
  return pass.show("head", head_->forward(concat({cls, most}, 1), pass));
}

ModelCost point_transformer_cost(const ModelConfig& c) {
  const int64_t G = c.points.groups, k = c.points.group_size, W = c.points.width, C = c.dim, K = c.classes;
  ModelCost cost;
  // Weights and biases by layer, then the batch norms' two numbers a channel.
  const int64_t encoder = (3 + 1) * W / 2 + (W / 2 + 1) * W + (2 * W + 1) * 2 * W + (2 * W + 1) * C;
  const int64_t position = (3 + 1) * W / 2 + (W / 2 + 1) * C;
  const int64_t head = (2 * C + 1) * W + (W + 1) * W + (W + 1) * K;
  cost.parameters = encoder + position + head + 2 * (W / 2 + 2 * W + W + W) + 2 * C + 2 * C;
  cost.forward_flops = 2 * (G * k * (3 * W / 2 + W * W / 2 + 2 * W * W + 2 * W * C) + G * 2 * W * W +
                            G * (3 * W / 2 + W / 2 * C) + 2 * C * W + W * W + W * K);
  for (int64_t id = 0; id < c.depth; ++id) cost += block_cost(c, C, G + 1, id);
  return cost;
}

void check_points(const ModelConfig& c) {
  const PointsConfig& p = c.points;
  const auto need = [](bool fits, const char* key, auto value, const auto&... rule) {
    TESSERA_CHECK_AS(Exit::usage, fits, "model.points.", key, " = ", value, ": ", rule...);
  };
  need(p.count <= 65536, "count", p.count, "must be from 1 to 65536");
  need(p.groups > 0 && p.groups <= p.count, "groups", p.groups, "must be from 1 to points.count = ", p.count);
  need(p.group_size > 0 && p.group_size <= p.count, "group_size", p.group_size,
       "must be from 1 to points.count = ", p.count);
  need(p.groups * p.group_size <= 1 << 20, "group_size", p.group_size, "makes more than 1048576 points in ",
       p.groups, " groups");
  need(p.width > 0 && p.width <= 8192 && p.width % 2 == 0, "width", p.width, "must be even, from 2 to 8192");
  need(p.head_dropout >= 0 && p.head_dropout < 1, "head_dropout", p.head_dropout, "must be in [0,1)");
}

}  // namespace tessera
