// split_heads: part s of packed(B,N,S,H,D), such as the queries of qkv, as (B,H,N,D): a matrix for each head,
// ready for products. merge_heads brings x(B,H,N,D) back to (B,N,H*D); but for the parts, each is the other's
// backward.
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"
#include "engine/tensor/memory.h"

namespace tessera {
namespace {

// Between rows of D numbers: of heads(B,H,N,D), the row i, and of part s of packed(B,N,S,H,D), the row
// packed(i).
struct HeadRows {
  int64_t B, N, S, H, D, s;

  int64_t count() const { return B * H * N; }
  TESSERA_FN int64_t packed(int64_t i) const {
    const int64_t b = i / (H * N), h = i / N % H, n = i % N;
    return ((b * N + n) * S + s) * H + h;
  }
};

template <class T>
struct Split {
  HeadRows at;
  const T* packed;
  GradTarget<T> heads;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const int64_t to = i * at.D, from = at.packed(i) * at.D;
    row.each(at.D, [=, this](int64_t j) { heads.put(to + j, packed[from + j]); });
  }
};

template <class T>
struct Merge {
  HeadRows at;
  const T* heads;
  GradTarget<T> packed;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const int64_t from = i * at.D, to = at.packed(i) * at.D;
    row.each(at.D, [=, this](int64_t j) { packed.put(to + j, heads[from + j]); });
  }
};

}  // namespace

Tensor split_heads(const Tensor& packed, int64_t s) {
  Dims dim("split_heads");
  dim(packed, "packed(B,N,S,H,D)");
  TESSERA_CHECK(s >= 0 && s < dim['S'], "split_heads: part ", s, " of packed", packed.shape(), ", which has ",
                dim['S']);
  const HeadRows at{dim['B'], dim['N'], dim['S'], dim['H'], dim['D'], s};
  Tensor y({at.B, at.H, at.N, at.D}, packed.dtype());
  for_float("split_heads", y.dtype(), [&]<class T>() {
    rows(at.count(), at.D, Split<T>{at, packed.data<T>(), {y.mutable_data<T>(), T(0)}});
  });
  record("split_heads", {packed}, y, [at, gx = packed.gradient()](const Gradient& gy) {
    for_float("split_heads", gx.dtype(), [&]<class T>() {
      auto dx = gx.target<T>();
      if (dx.beta == T(0) && at.S > 1) {  // the other parts
        fill(dx.data, gx.shape().count(), T(0));
        dx.beta = T(1);
      }
      rows(at.count(), at.D, Merge<T>{at, gy.read<T>(), dx});
    });
  });
  return y;
}

Tensor merge_heads(const Tensor& x) {
  Dims dim("merge_heads");
  dim(x, "x(B,H,N,D)");
  const HeadRows at{dim['B'], dim['N'], 1, dim['H'], dim['D'], 0};
  Tensor y({at.B, at.N, at.H * at.D}, x.dtype());
  for_float("merge_heads", x.dtype(), [&]<class T>() {
    rows(at.count(), at.D, Merge<T>{at, x.data<T>(), {y.mutable_data<T>(), T(0)}});
  });
  record("merge_heads", {x}, y, [at, gx = x.gradient()](const Gradient& gy) {
    for_float("merge_heads", gx.dtype(), [&]<class T>() {
      rows(at.count(), at.D, Split<T>{at, gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

namespace {

Tensor composed_split(const Tensor& packed, int64_t s) {
  const Tensor heads = permute_axes(packed, {2, 0, 3, 1, 4});  // (S,B,H,N,D)
  return slice(heads, 0, s, s + 1).reshape({heads.size(1), heads.size(2), heads.size(3), heads.size(4)});
}

Tensor composed_merge(const Inputs& in) {
  const Tensor x = permute_axes(in[0], {0, 2, 1, 3});
  return x.reshape({x.size(0), x.size(1), x.size(2) * x.size(3)});
}

TESSERA_CASES(OpCase{"split_heads",
                     {"2x5x3x2x4", "1x1x3x1x1", "65537x1x2x1x2"},
                     [](const Inputs& in) { return split_heads(in[0], 1); },
                     [](const Inputs& in) { return composed_split(in[0], 1); }});
TESSERA_CASES(OpCase{"split_heads(all parts)",
                     {"2x5x3x2x4"},
                     [](const Inputs& in) {
                       const Tensor value = split_heads(in[0], 2);
                       return add(mul(split_heads(in[0], 0), split_heads(in[0], 1)), value);
                     },
                     [](const Inputs& in) {
                       const Tensor value = composed_split(in[0], 2);
                       return add(mul(composed_split(in[0], 0), composed_split(in[0], 1)), value);
                     }});
TESSERA_CASES(OpCase{"merge_heads",
                     {"2x3x5x4", "1x1x1x1", "65537x2x1x1"},
                     [](const Inputs& in) { return merge_heads(in[0]); },
                     composed_merge});

}  // namespace
}  // namespace tessera
