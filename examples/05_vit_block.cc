// 5. A ViT block: tokens first talk to each other (attention), then each thinks alone (an MLP).
//
//   x <- x + attention(norm(x))
//   x <- x + mlp(norm(x))
//
// Both branches add to x, so a block may begin by changing little, and gradients reach the first block
// undiminished. Layers take the residual as an argument, so that the sum is part of their last product.
#include <algorithm>
#include <cmath>
#include <iostream>

#include "nn/attention.h"
#include "nn/feed_forward.h"

using namespace tessera;

int main() {
  const int64_t B = 2, N = 5, C = 12, H = 3;
  ParameterStore store(DType::f32);
  const Scope scope = Scope(store) / "blocks" / "0";  // timm's names: blocks.0.attn.qkv.weight ...
  const LayerNorm norm1(scope / "norm1", C), norm2(scope / "norm2", C);
  const Attention attn(scope / "attn", C, H, true, WeightInit::trunc_normal, 0);
  const Mlp mlp(scope / "mlp", C, 4 * C, WeightInit::trunc_normal, 0);
  store.allocate(1);
  for (const auto& p : store.parameters()) std::cout << p.name << p.value.shape() << '\n';

  Tensor x({B, N, C}, DType::f32);
  const Draw draw{.seed = 2};
  for (int64_t i = 0; i < x.count(); ++i) x.mutable_data<float>()[i] = float(draw.normal(uint64_t(i)));

  const Pass pass{.batch = B};  // inference: no dropout
  const auto block = [&](const Tensor& in) {
    const Tensor seen = attn.forward(norm1.forward(in), {in}, pass);
    return mlp.forward(norm2.forward(seen), {seen}, pass);
  };
  const Tensor y = block(x);

  // With timm's small first weights (0.02) a block starts close to the identity.
  double moved = 0;
  for (int64_t i = 0; i < y.count(); ++i) moved = std::max(moved, std::abs(y.at(i) - x.at(i)));
  std::cout << "in and out " << x.shape() << ' ' << y.shape() << ", largest change " << moved << '\n';

  // A block has no notion of order: swap two tokens going in, and the same two are swapped coming out. That
  // is why a ViT adds position embeddings before its first block.
  const auto swapped = [&](const Tensor& t) {  // the order of tokens 1 and 2 in each image
    return concat({slice(t, 1, 0, 1), slice(t, 1, 2, 3), slice(t, 1, 1, 2), slice(t, 1, 3, N)}, 1);
  };
  const Tensor a = block(swapped(x)), b = swapped(y);
  double worst = 0;
  for (int64_t i = 0; i < a.count(); ++i) worst = std::max(worst, std::abs(a.at(i) - b.at(i)));
  std::cout << "block(swap(x)) - swap(block(x)): " << worst << '\n';
  return moved > 0 && moved < 0.1 && worst < 1e-5 ? 0 : 1;
}
