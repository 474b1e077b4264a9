#include "nn/reparam.h"

#include <algorithm>
#include <cmath>

namespace tessera {

MergedConv fold(const Tensor& weight, const Tensor& bias, const BatchNorm& norm) {
  Dims dim("fold");
  dim(weight, "weight(O,C,h,w)")(norm.running_var, "running_var(O)");
  MergedConv merged{weight.to(DType::f64), Tensor({dim['O']}, DType::f64)};
  const int64_t O = dim['O'], taps = dim['C'] * dim['h'] * dim['w'];
  double *K = merged.weight.mutable_data<double>(), *b = merged.bias.mutable_data<double>();
  for (int64_t o = 0; o < O; ++o) {
    const double t = norm.weight.at(o) / std::sqrt(norm.running_var.at(o) + BatchNorm::kEps);
    std::for_each(K + o * taps, K + (o + 1) * taps, [t](double& k) { k *= t; });
    b[o] = norm.bias.at(o) + t * ((bias ? bias.at(o) : 0) - norm.running_mean.at(o));
  }
  return merged;
}

MergedConv fold(const ConvNorm& conv) {
  if (conv.norm) return fold(conv.weight, conv.bias, *conv.norm);
  return {conv.weight.to(DType::f64), conv.bias.to(DType::f64)};
}

MergedConv fold(const BatchNorm& norm) {
  const int64_t C = norm.weight.count();
  Tensor identity = Tensor::zeros({C, C, 1, 1}, DType::f64);
  for (int64_t c = 0; c < C; ++c) identity.mutable_data<double>()[c * C + c] = 1;
  return fold(identity, {}, norm);
}

MergedConv pad(const MergedConv& conv, int64_t h, int64_t w) {
  const int64_t O = conv.weight.size(0), C = conv.weight.size(1);
  const int64_t own_h = conv.weight.size(2), own_w = conv.weight.size(3);
  const int64_t above = (h - own_h) / 2, left = (w - own_w) / 2;
  TESSERA_CHECK(own_h <= h && own_w <= w && (h - own_h) % 2 == 0 && (w - own_w) % 2 == 0, "pad: a kernel ",
                conv.weight.shape(), " has no place in the middle of ", h, " x ", w);
  MergedConv padded{Tensor::zeros({O, C, h, w}, DType::f64), conv.bias};
  const double* from = conv.weight.data<double>();
  double* const to = padded.weight.mutable_data<double>();
  for (int64_t plane = 0; plane < O * C; ++plane)
    for (int64_t u = 0; u < own_h; ++u, from += own_w)
      std::copy_n(from, own_w, to + (plane * h + above + u) * w + left);
  return padded;
}

MergedConv add_branches(const std::vector<MergedConv>& branches) {
  TESSERA_CHECK(!branches.empty(), "add_branches: there are none");
  int64_t h = 0, w = 0;
  for (const MergedConv& branch : branches) {
    h = std::max(h, branch.weight.size(2));
    w = std::max(w, branch.weight.size(3));
  }
  MergedConv sum = pad(branches[0], h, w);
  for (size_t i = 1; i < branches.size(); ++i) {
    const MergedConv branch = pad(branches[i], h, w);
    TESSERA_CHECK(branch.weight.shape() == sum.weight.shape(), "add_branches: kernels ", sum.weight.shape(),
                  " and ", branch.weight.shape(), " map other channels");
    sum = {add(sum.weight, branch.weight), add(sum.bias, branch.bias)};
  }
  return sum;
}

MergedConv in_sequence(const MergedConv& first, const MergedConv& second) {
  Dims dim("in_sequence");
  dim(first.weight, "first(M,C,1,1)")(second.weight, "second(O,M,h,w)");
  const int64_t M = dim['M'], C = dim['C'], O = dim['O'], taps = dim['h'] * dim['w'];
  MergedConv merged{Tensor::zeros({O, C, dim['h'], dim['w']}, DType::f64), second.bias.clone()};
  const double *K1 = first.weight.data<double>(), *b1 = first.bias.data<double>();
  const double* K2 = second.weight.data<double>();
  double *K = merged.weight.mutable_data<double>(), *b = merged.bias.mutable_data<double>();
  for (int64_t o = 0; o < O; ++o)
    for (int64_t m = 0; m < M; ++m)
      for (int64_t tap = 0; tap < taps; ++tap) {
        const double k = K2[(o * M + m) * taps + tap];
        b[o] += k * b1[m];
        for (int64_t c = 0; c < C; ++c) K[(o * C + c) * taps + tap] += k * K1[m * C + c];
      }
  return merged;
}

void fold_among(NamedTensors& parameters, const ConvNorm& conv) {
  if (!conv.norm) return;
  std::erase_if(parameters, [&](const auto& p) { return p.first.starts_with(conv.norm->name + "."); });
  const MergedConv merged = fold(conv);
  parameters[conv.name + ".weight"] = merged.weight;
  parameters[conv.name + ".bias"] = merged.bias;
}

}  // namespace tessera
