// attention on packed qkv: out = softmax(q k^T / sqrt(D)) v for each image and head. Backward recomputes the
// probabilities from the saved log-sum-exp of each row. A card's kernels take heads of 64 channels at most,
// and wider ones go by products.
#include "engine/kernels/attention.h"

#include <cmath>

#include "engine/kernels/on_card.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// By products, with all scores in memory: heads of any width.
Tensor by_products(const Tensor& qkv) {
  const Tensor q = scale(split_heads(qkv, 0), 1 / std::sqrt(double(qkv.size(-1))));
  const Tensor scores = matmul(q, split_heads(qkv, 1), false, true);
  return merge_heads(matmul(softmax(scores), split_heads(qkv, 2)));
}

}  // namespace

Tensor attention(const Tensor& qkv, int64_t first) {
  Dims dim("attention");
  dim(qkv, "qkv(B,N,3,H,D)");
  TESSERA_CHECK(first >= 0 && first <= dim['N'], "attention: the first ", first, " of N=", dim['N'],
                " tokens are wanted");
  if (on_card() && first > 0) return slice(attention(qkv), 1, 0, first);
  if (on_card() && dim['D'] > kWidestHeadOnCard) {
    const Tensor out = by_products(widen(qkv));
    return qkv.dtype() == DType::bf16 ? narrow(out) : out;
  }
  const AttentionShape shape{dim['B'], dim['N'], dim['H'], dim['D'], first};
  Tensor out({shape.B, shape.M(), shape.H * shape.D}, qkv.dtype());
  Tensor lse = Tape::current() ? Tensor({shape.B, shape.H, shape.M()}, wide(qkv.dtype())) : Tensor();
  const double factor = 1 / std::sqrt(double(shape.D));
  for_activation("attention", qkv.dtype(), [&]<class T>() {
    attention_forward<T>(shape, qkv.data<T>(), Wide<T>(factor), out.mutable_data<T>(),
                         lse ? lse.mutable_data<Wide<T>>() : nullptr);
  });
  record("attention", {qkv}, out,
         [shape, factor, qkv, lse, out = out.detach(), gx = qkv.gradient()](const Gradient& gy) {
           for_activation("attention", qkv.dtype(), [&]<class T>() {
             const auto dx = gx.target<T>();
             attention_backward<T>(shape, qkv.data<T>(), Wide<T>(factor), out.data<T>(), lse.data<Wide<T>>(),
                                   gy.read<T>(), dx.data, dx.beta);
           });
         });
  return out;
}

namespace {

Tensor composed(const Inputs& in) {
  const Tensor heads = permute_axes(in[0], {2, 0, 3, 1, 4});  // (3,B,H,N,D)
  const int64_t B = heads.size(1), H = heads.size(2), N = heads.size(3), D = heads.size(4);
  const auto part = [&](int64_t i) { return slice(heads, 0, i, i + 1).reshape({B, H, N, D}); };
  const Tensor scores = scale(matmul(part(0), part(1), false, true), 1 / std::sqrt(double(D)));
  return permute_axes(matmul(softmax(scores), part(2)), {0, 2, 1, 3}).reshape({B, N, H * D});
}

TESSERA_CASES(OpCase{
    "attention",
    {"2x5x3x2x4", "1x1x3x1x1", "1x17x3x2x16", "2x65x3x1x7", "1x70x3x2x64", "65537x1x3x1x2", "2x5x3x2x70"},
    [](const Inputs& in) { return attention(in[0]); },
    composed});
TESSERA_CASES(OpCase{"attention(first)",
                     {"2x5x3x2x4", "1x3x3x1x1", "1x17x3x2x16", "2x65x3x1x7", "1x70x3x2x64"},
                     [](const Inputs& in) { return attention(in[0], 2); },
                     [](const Inputs& in) { return slice(composed(in), 1, 0, 2); }});
TESSERA_CASES(OpCase{"attention(by products)",
                     {"2x5x3x2x4", "1x1x3x1x1", "2x5x3x2x70"},
                     [](const Inputs& in) { return by_products(in[0]); },
                     composed});

}  // namespace
}  // namespace tessera
