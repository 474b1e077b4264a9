// embed_tokens: the class token before the patch tokens of every image, plus the position embedding.
#include "engine/kernels/columns.h"
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {

Tensor embed_tokens(const Tensor& x, const Tensor& cls, const Tensor& position) {
  Dims dim("embed_tokens");
  dim(x, "x(B,N,C)")(cls, "cls(1,1,C)")(position, "position(1,T,C)");
  const int64_t B = dim['B'], N = dim['N'], C = dim['C'], T1 = dim['T'];
  TESSERA_CHECK(T1 == N + 1, "embed_tokens: position", position.shape(), " has ", T1, " tokens where x",
                x.shape(), " and the class token make ", N + 1);
  Tensor y({B, T1, C}, x.dtype());
  for_float("embed_tokens", x.dtype(), [&]<class T>() {
    rows(B * T1, C,
         [=, in = x.data<T>(), c = cls.data<T>(), p = position.data<T>(), out = y.mutable_data<T>()](
             const Row& row, int64_t i) {
           const int64_t b = i / T1, n = i % T1;
           const T* const token = n == 0 ? c : in + (b * N + n - 1) * C;
           row.each(C, [=](int64_t j) { out[i * C + j] = token[j] + p[n * C + j]; });
         });
  });
  record("embed_tokens", {x, cls, position}, y,
         [=, gx = x.gradient(), gc = cls.gradient(), gp = position.gradient()](const Gradient& gy) {
           for_float("embed_tokens", gy.dtype(), [&]<class T>() {
             const T* dy = gy.read<T>();
             if (const auto dx = gx.target<T>())
               rows(B, N * C, [=](const Row& row, int64_t b) {
                 row.each(N * C, [=](int64_t j) { dx.put(b * N * C + j, dy[b * T1 * C + C + j]); });
               });
             if (const auto dc = gc.target<T>())
               column_sums<T, 1>(B, C, {dc.data}, {dc.beta},
                                 [=](int64_t b, int64_t j) { return std::array<T, 1>{dy[b * T1 * C + j]}; });
             if (const auto dp = gp.target<T>())
               column_sums<T, 1>(B, T1 * C, {dp.data}, {dp.beta},
                                 [=](int64_t b, int64_t j) { return std::array<T, 1>{dy[b * T1 * C + j]}; });
           });
         });
  return y;
}

namespace {

Tensor composed(const Inputs& in) {
  const Tensor zeros = Tensor::zeros({in[0].size(0), 1, in[0].size(2)}, in[0].dtype());
  return add(concat({add(zeros, in[1]), in[0]}, 1), in[2]);
}

TESSERA_CASES(OpCase{"embed_tokens",
                     {"2x3x5 1x1x5 1x4x5", "1x1x1 1x1x1 1x2x1", "65537x1x2 1x1x2 1x2x2"},
                     [](const Inputs& in) { return embed_tokens(in[0], in[1], in[2]); },
                     composed});

}  // namespace
}  // namespace tessera
