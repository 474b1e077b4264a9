// 4. Attention: every token asks all tokens, and mixes their values by how well their keys answer.
//
//   out = softmax(q k^T / sqrt(D)) v
//
// The op takes q, k, v packed as one product of a linear layer left them, (B,N,3,H,D), and never keeps the
// N x N weights. Here the same is put together from small ops, where they can be looked at.
#include <algorithm>
#include <cmath>
#include <iostream>

#include "engine/ops/elementary.h"

using namespace tessera;

int main() {
  const int64_t B = 1, N = 4, H = 2, D = 3;
  Tensor qkv({B, N, 3, H, D}, DType::f32);
  const Draw draw{.seed = 5};
  for (int64_t i = 0; i < qkv.count(); ++i)
    qkv.mutable_data<float>()[i] = float(2 * draw.normal(uint64_t(i)));

  // (B,N,3,H,D) to (3,B,H,N,D): now each head's tokens lie together.
  const Tensor by_part = permute_axes(qkv, {2, 0, 3, 1, 4});
  const auto part = [&](int64_t i) { return slice(by_part, 0, i, i + 1).reshape({B, H, N, D}); };
  const Tensor q = part(0), k = part(1), v = part(2);

  // Scores are divided by sqrt(D): sums of D products grow like it, and softmax of large numbers has no
  // slope.
  const Tensor scores = scale(matmul(q, k, false, true), 1 / std::sqrt(double(D)));
  const Tensor weights = softmax(scores);  // (B,H,N,N): row n says where token n looks
  std::cout << "head 0, whom each token looks at (rows add up to 1): "
            << slice(weights, 1, 0, 1).reshape({N, N}) << '\n';

  // The heads side by side again: (B,N,H*D).
  const Tensor by_hand = permute_axes(matmul(weights, v), {0, 2, 1, 3}).reshape({B, N, H * D});
  const Tensor fused = attention(qkv);
  std::cout << "attention by hand " << by_hand << "\nand by the fused op " << fused << '\n';

  double worst = 0;
  for (int64_t i = 0; i < fused.count(); ++i) worst = std::max(worst, std::abs(fused.at(i) - by_hand.at(i)));
  double row_sum = 0;
  for (int64_t j = 0; j < N; ++j) row_sum += weights.at(j);
  std::cout << "largest difference " << worst << '\n';
  return worst < 1e-5 && std::abs(row_sum - 1) < 1e-5 ? 0 : 1;
}
