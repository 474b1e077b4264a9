// Products and attention in bf16 by way of f32: what a card computes, but for the order of its sums. Models
// run in bf16 on a card alone; on the CPU only the tests do, where no card is.
#include <algorithm>
#include <vector>

#include "engine/kernels/backends.h"

namespace tessera::cpu {
namespace {

using Floats = std::vector<float>;

template <class Out>
void by_way_of_f32(const Gemm<bf16, Out>& g) {
  const auto stored = [](const bf16* from, int64_t rows, int64_t ld, int64_t width) {
    return Floats(from, from + (rows - 1) * ld + width);
  };
  const Floats a = g.k ? stored(g.a, g.transpose_a ? g.k : g.m, g.lda, g.transpose_a ? g.m : g.k) : Floats();
  const Floats b = g.k ? stored(g.b, g.transpose_b ? g.n : g.k, g.ldb, g.transpose_b ? g.k : g.n) : Floats();
  Floats c(size_t(g.m * g.n));
  cpu::gemm(Gemm<float>{g.transpose_a, g.transpose_b, g.m, g.n, g.k, a.data(), b.data(), c.data(), g.lda,
                        g.ldb, g.n});
  for (int64_t i = 0; i < g.m; ++i)
    for (int64_t j = 0; j < g.n; ++j) {
      Out& to = g.c[i * g.ldc + j];
      const float before = g.beta == 0 ? 0 : g.beta * to, bias = g.bias ? float(g.bias[j]) : 0;
      to = c[size_t(i * g.n + j)] + before + bias;
    }
}

void round_to(bf16* to, const Floats& from, float beta = 0) {
  for (size_t i = 0; i < from.size(); ++i) to[i] = beta == 0 ? from[i] : to[i] + from[i];
}

}  // namespace

void gemm(const Gemm<bf16>& g) { by_way_of_f32(g); }
void gemm(const Gemm<bf16, float>& g) { by_way_of_f32(g); }

void attention_forward(const AttentionShape& s, const bf16* qkv, float scale, bf16* out, float* lse) {
  const int64_t token = s.B * s.H * s.D;
  Floats wide_out(size_t(token * s.M()));
  cpu::attention_forward<float>(s, Floats(qkv, qkv + 3 * token * s.N).data(), scale, wide_out.data(), lse);
  round_to(out, wide_out);
}

void attention_backward(const AttentionShape& s, const bf16* qkv, float scale, const bf16* out,
                        const float* lse, const bf16* dout, bf16* dqkv, float beta) {
  const int64_t token = s.B * s.H * s.D, size = token * s.M();
  Floats gradient(size_t(3 * token * s.N));
  cpu::attention_backward<float>(s, Floats(qkv, qkv + 3 * token * s.N).data(), scale,
                                 Floats(out, out + size).data(), lse, Floats(dout, dout + size).data(),
                                 gradient.data(), 0);
  round_to(dqkv, gradient, beta);
}

}  // namespace tessera::cpu
