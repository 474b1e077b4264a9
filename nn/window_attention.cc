#include "nn/window_attention.h"

#include <cmath>

namespace tessera {

WindowAttention::WindowAttention(const Scope& scope, int64_t C, int64_t H, const Windows& windows,
                                 bool qkv_bias, WeightInit init, double dropout_rate)
    : windows(windows),
      heads(H),
      qkv(scope / "qkv", C, 3 * C, init, qkv_bias),
      proj(scope / "proj", C, C, init),
      relative_position_bias_table(
          (scope / "relative_position_bias_table")
              .weight({(2 * windows.size - 1) * (2 * windows.size - 1), H}, Init::trunc_normal(0.02), false)),
      dropout(scope, dropout_rate) {}

Tensor WindowAttention::forward(const Tensor& x, const Residual& residual, const Pass& pass) const {
  const int64_t B = x.size(0), C = x.size(2), D = C / heads, n = windows.count(), N = windows.tokens();
  const Tensor order = window_order(windows, B);
  const Tensor rows = permute_rows(x.reshape({B * n * N, C}), order);
  const Tensor packed = widen(qkv.forward(rows)).reshape({B * n, N, 3, heads, D});
  const Tensor q = scale(split_heads(packed, 0), 1 / std::sqrt(double(D)));

  Tensor bias = relative_position_bias(relative_position_bias_table, windows.size);  // (H,N,N)
  if (windows.shift > 0) bias = add(bias, shift_mask(windows, packed.dtype()));      // (n,H,N,N)
  const Tensor scores = matmul(q, split_heads(packed, 1), false, true).reshape({B, n, heads, N, N});
  const Tensor weights = softmax(add(scores, bias)).reshape({B * n, heads, N, N});
  const Tensor out = merge_heads(matmul(weights, split_heads(packed, 2))).reshape({B, n * N, C});
  return combine_rows(proj.forward(dropout.forward(out, pass).reshape({B * n * N, C})), order, residual.x,
                      residual.scale);
}

}  // namespace tessera
