// embed_tokens: the class token, and what else stands there, before the patch tokens of every image, plus the
// position embedding.
#include "engine/kernels/columns.h"
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {

Tensor embed_tokens(const Tensor& x, const Tensor& prefix, const Tensor& position) {
  Dims dim("embed_tokens");
  dim(x, "x(B,N,C)")(prefix, "prefix(1,P,C)")(position, "position(1,T,C)");
  const int64_t B = dim['B'], N = dim['N'], C = dim['C'], P = dim['P'], all = dim['T'];
  TESSERA_CHECK(all == P + N, "embed_tokens: position", position.shape(), " has ", all, " tokens where x",
                x.shape(), " and prefix", prefix.shape(), " make ", P + N);
  Tensor y({B, all, C}, x.dtype());
  for_float("embed_tokens", x.dtype(), [&]<class T>() {
    rows(B * all, C,
         [=, in = x.data<T>(), first = prefix.data<T>(), p = position.data<T>(), out = y.mutable_data<T>()](
             const Row& row, int64_t i) {
           const int64_t b = i / all, n = i % all;
           const T* const token = n < P ? first + n * C : in + (b * N + n - P) * C;
           row.each(C, [=](int64_t j) { out[i * C + j] = token[j] + p[n * C + j]; });
         });
  });
  record("embed_tokens", {x, prefix, position}, y,
         [=, gx = x.gradient(), gf = prefix.gradient(), gp = position.gradient()](const Gradient& gy) {
           for_float("embed_tokens", gy.dtype(), [&]<class T>() {
             const T* dy = gy.read<T>();
             const auto over_batch = [=](const GradTarget<T>& to, int64_t columns) {
               if (!to) return;
               column_sums<T, 1>(B, columns, {to.data}, {to.beta},
                                 [=](int64_t b, int64_t j) { return std::array<T, 1>{dy[b * all * C + j]}; });
             };
             if (const auto dx = gx.target<T>())
               rows(B, N * C, [=](const Row& row, int64_t b) {
                 row.each(N * C, [=](int64_t j) { dx.put(b * N * C + j, dy[(b * all + P) * C + j]); });
               });
             over_batch(gf.target<T>(), P * C);
             over_batch(gp.target<T>(), all * C);
           });
         });
  return y;
}

namespace {

Tensor composed(const Inputs& in) {
  const Tensor zeros = Tensor::zeros({in[0].size(0), in[1].size(1), in[0].size(2)}, in[0].dtype());
  return add(concat({add(zeros, in[1]), in[0]}, 1), in[2]);
}

TESSERA_CASES(OpCase{"embed_tokens",
                     {"2x3x5 1x1x5 1x4x5", "3x4x5 1x2x5 1x6x5", "1x1x1 1x1x1 1x2x1", "65537x1x2 1x1x2 1x2x2"},
                     [](const Inputs& in) { return embed_tokens(in[0], in[1], in[2]); },
                     composed});

}  // namespace
}  // namespace tessera
