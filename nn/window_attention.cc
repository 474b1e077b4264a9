#include "nn/window_attention.h"

#include <cmath>

namespace tessera {
namespace {

// Calls f(window, token, row, column) for every place of the shifted grid, window by window.
template <class F>
void each_token(const Windows& w, F f) {
  const int64_t across = w.grid / w.size;
  for (int64_t window = 0; window < w.count(); ++window)
    for (int64_t token = 0; token < w.tokens(); ++token)
      f(window, token, window / across * w.size + token / w.size, window % across * w.size + token % w.size);
}

}  // namespace

Tensor window_order(const Windows& w, int64_t B) {
  std::vector<int32_t> order;
  order.reserve(size_t(B * w.grid * w.grid));
  for (int64_t b = 0; b < B; ++b)
    each_token(w, [&](int64_t, int64_t, int64_t row, int64_t column) {
      const int64_t from_row = (row + w.shift) % w.grid, from_column = (column + w.shift) % w.grid;
      order.push_back(int32_t((b * w.grid + from_row) * w.grid + from_column));
    });
  return Tensor::of({int64_t(order.size())}, order);
}

Tensor shift_mask(const Windows& w, DType dtype) {
  // Along each axis only the last window holds tokens from both edges: from its own, and `shift` from the
  // other.
  const auto wrapped = [&](int64_t place) { return place >= w.grid - w.shift; };
  const int64_t n = w.count(), N = w.tokens();
  std::vector<int> edge(size_t(n * N));
  each_token(w, [&](int64_t window, int64_t token, int64_t row, int64_t column) {
    edge[size_t(window * N + token)] = 2 * wrapped(row) + wrapped(column);
  });
  Tensor mask;
  for_float("shift_mask", dtype, [&]<class T>() {
    std::vector<T> values(size_t(n * N * N));
    for (int64_t i = 0; i < n * N; ++i)
      for (int64_t j = 0; j < N; ++j)
        values[size_t(i * N + j)] = edge[size_t(i)] == edge[size_t(i / N * N + j)] ? T(0) : T(-100);
    mask = Tensor::of({n, 1, N, N}, values);
  });
  return mask;
}

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
  const Tensor packed = qkv.forward(rows).reshape({B * n, N, 3, heads, D});
  const Tensor q = scale(split_heads(packed, 0), 1 / std::sqrt(double(D)));

  Tensor bias = relative_position_bias(relative_position_bias_table, windows.size);  // (H,N,N)
  if (windows.shift > 0) bias = add(bias, shift_mask(windows, x.dtype()));           // (n,H,N,N)
  const Tensor scores = matmul(q, split_heads(packed, 1), false, true).reshape({B, n, heads, N, N});
  const Tensor weights = softmax(add(scores, bias)).reshape({B * n, heads, N, N});
  const Tensor out = merge_heads(matmul(weights, split_heads(packed, 2))).reshape({B, n * N, C});
  return combine_rows(proj.forward(dropout.forward(out, pass).reshape({B * n * N, C})), order, residual.x,
                      residual.scale);
}

}  // namespace tessera
