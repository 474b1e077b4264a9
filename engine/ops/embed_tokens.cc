// embed_tokens: the class token, and what else stands there, before the patch tokens of every image, plus the
// position embedding.
#include "engine/kernels/columns.h"
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

template <class T>
struct Forward {
  int64_t N, C, P;
  const T *x, *prefix, *position;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const int64_t all = P + N, b = i / all, n = i % all;
    const T* const token = n < P ? prefix + n * C : x + (b * N + n - P) * C;
    row.each(C, [=, this](int64_t j) { y[i * C + j] = token[j] + position[n * C + j]; });
  }
};

// dx of image b: its gradient without the first tokens.
template <class T>
struct PatchGradient {
  int64_t N, C, P;
  const T* dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t b) const {
    row.each(N * C, [=, this](int64_t j) { dx.put(b * N * C + j, dy[(b * (P + N) + P) * C + j]); });
  }
};

// The gradient at place j of image b.
template <class T>
struct Place {
  int64_t image;  // elements
  const T* dy;
  TESSERA_FN std::array<T, 1> operator()(int64_t b, int64_t j) const { return {dy[b * image + j]}; }
};

}  // namespace

Tensor embed_tokens(const Tensor& x, const Tensor& prefix, const Tensor& position) {
  Dims dim("embed_tokens");
  dim(x, "x(B,N,C)")(prefix, "prefix(1,P,C)")(position, "position(1,T,C)");
  const int64_t B = dim['B'], N = dim['N'], C = dim['C'], P = dim['P'], all = dim['T'];
  TESSERA_CHECK(all == P + N, "embed_tokens: position", position.shape(), " has ", all, " tokens where x",
                x.shape(), " and prefix", prefix.shape(), " make ", P + N);
  Tensor y({B, all, C}, x.dtype());
  for_float("embed_tokens", x.dtype(), [&]<class T>() {
    rows(B * all, C,
         Forward<T>{N, C, P, x.data<T>(), prefix.data<T>(), position.data<T>(), y.mutable_data<T>()});
  });
  record("embed_tokens", {x, prefix, position}, y,
         [=, gx = x.gradient(), gf = prefix.gradient(), gp = position.gradient()](const Gradient& gy) {
           for_float("embed_tokens", gy.dtype(), [&]<class T>() {
             const T* dy = gy.read<T>();
             const auto over_batch = [=](const GradTarget<T>& to, int64_t columns) {
               if (to) column_sums<T, 1>(B, columns, {to.data}, {to.beta}, Place<T>{all * C, dy});
             };
             if (const auto dx = gx.target<T>()) rows(B, N * C, PatchGradient<T>{N, C, P, dy, dx});
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
