#include "nn/rep_conv.h"

namespace tessera {
namespace {

struct Square : RepBranch {
  ConvNorm conv;

  Square(const Scope& conv_scope, const Scope& norm_scope, const ConvOptions& options)
      : conv(conv_scope, norm_scope, options) {}
  Tensor forward(const Tensor& x, const Pass& pass) const override { return conv.forward(x, pass); }
  MergedConv merged() const override { return fold(conv); }
};

struct Identity : RepBranch {
  BatchNorm norm;

  Identity(const Scope& scope, int64_t C) : norm(scope, C) {}
  Tensor forward(const Tensor& x, const Pass& pass) const override { return norm.forward(x, pass); }
  MergedConv merged() const override { return fold(norm); }
};

// Computed as the 3 x 3 kernel that it is the middle of.
struct Strip : RepBranch {
  Tensor weight;  // (O,C,1,3) or (O,C,3,1)
  BatchNorm norm;
  int64_t stride;

  Strip(const Scope& scope, const RepConvOptions& o, int64_t h, int64_t w)
      : weight((scope / "conv" / "weight").weight({o.out, o.in, h, w}, ConvOptions::he_normal(3 * o.in))),
        norm(scope / "bn", o.out),
        stride(o.stride) {}
  Tensor forward(const Tensor& x, const Pass& pass) const override {
    const Tensor zeros = Tensor::zeros(weight.shape(), weight.dtype());
    const Tensor kernel = concat({zeros, weight, zeros}, weight.size(2) == 1 ? 2 : 3);
    return norm.forward(conv2d(x, kernel, {}, stride, 1), pass);
  }
  MergedConv merged() const override { return fold(weight, {}, norm); }
};

struct Sequence : RepBranch {
  ConvNorm first, second;

  Sequence(const Scope& scope, const RepConvOptions& o)
      : first(scope / "conv1", scope / "bn1", {.in = o.in, .out = o.in, .kernel = 1, .padding = 1}),
        second(scope / "conv2", scope / "bn2", {.in = o.in, .out = o.out, .stride = o.stride}) {}
  Tensor forward(const Tensor& x, const Pass& pass) const override {
    return second.forward(first.forward(x, pass), pass);
  }
  MergedConv merged() const override { return in_sequence(fold(first), fold(second)); }
};

std::unique_ptr<RepBranch> make_branch(const std::string& name, const Scope& scope, const RepConvOptions& o) {
  const auto square = [&](const Scope& conv, const Scope& norm, int64_t kernel, bool with_norm) {
    return std::make_unique<Square>(conv, norm,
                                    ConvOptions{.in = o.in,
                                                .out = o.out,
                                                .kernel = kernel,
                                                .stride = o.stride,
                                                .padding = kernel / 2,
                                                .norm = with_norm});
  };
  const Scope kxk = scope / "conv_kxk", point = scope / "conv_1x1", whole = scope / "reparam_conv";  // timm's
  if (name == kMergedBranch) return square(whole, whole, 3, false);
  if (name == "3x3") return square(kxk / "conv", kxk / "bn", 3, true);
  if (name == "1x1") return square(point / "conv", point / "bn", 1, true);
  if (name == "identity") return std::make_unique<Identity>(scope / "identity", o.in);
  if (name == "1x3") return std::make_unique<Strip>(scope / "conv_1x3", o, 1, 3);
  if (name == "3x1") return std::make_unique<Strip>(scope / "conv_3x1", o, 3, 1);
  if (name == "1x1-3x3") return std::make_unique<Sequence>(scope / "conv_1x1_3x3", o);
  fail(Exit::usage, "the branch '", name, "' of a convolution is not known");
}

}  // namespace

RepConv::RepConv(const Scope& scope, const RepConvOptions& options) {
  for (const std::string& branch : options.branches)
    if (branch != "identity" || options.keeps_shape())
      branches_.push_back(make_branch(branch, scope, options));
}

Tensor RepConv::forward(const Tensor& x, const Pass& pass) const {
  Tensor sum = branches_[0]->forward(x, pass);
  for (size_t i = 1; i < branches_.size(); ++i) sum = add(sum, branches_[i]->forward(x, pass));
  return sum;
}

MergedConv RepConv::merged() const {
  std::vector<MergedConv> merged;
  for (const auto& branch : branches_) merged.push_back(branch->merged());
  return pad(add_branches(merged), 3, 3);
}

}  // namespace tessera
