// matmul: c = op(a) op(b) over equal leading axes; da = dc op(b)^T and db = op(a)^T dc, transposed where the
// operand is.
#include "engine/kernels/gemm.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

struct Sizes {
  int64_t batch, m, n, k;
};

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  TESSERA_CHECK(a.rank() == b.rank() && a.rank() >= 2, "matmul: a", a.shape(), " and b", b.shape(),
                " need equal ranks of at least 2");
  for (int axis = 0; axis < a.rank() - 2; ++axis)
    TESSERA_CHECK(a.size(axis) == b.size(axis), "matmul: a", a.shape(), " and b", b.shape(),
                  " differ in leading axis ", axis, ": ", a.size(axis), " and ", b.size(axis));
  const int64_t k = a.size(transpose_a ? -2 : -1), k_b = b.size(transpose_b ? -1 : -2);
  TESSERA_CHECK(k == k_b, "matmul: a", a.shape(), " and b", b.shape(), " differ in the summed axis: ", k,
                " and ", k_b);
  const Sizes s{a.shape().count(0, a.rank() - 2), a.size(transpose_a ? -1 : -2),
                b.size(transpose_b ? -2 : -1), k};
  Shape shape = a.shape();
  shape[-2] = s.m;
  shape[-1] = s.n;
  Tensor c(shape, a.dtype());
  for_float("matmul", a.dtype(), [&]<class T>() {
    gemm(Gemm<T>{.transpose_a = transpose_a,
                 .transpose_b = transpose_b,
                 .m = s.m,
                 .n = s.n,
                 .k = s.k,
                 .a = a.data<T>(),
                 .b = b.data<T>(),
                 .c = c.mutable_data<T>()},
         {s.batch, s.m * s.k, s.k * s.n, s.m * s.n});
  });
  record("matmul", {a, b}, c,
         [s, transpose_a, transpose_b, a, b, ga = a.gradient(), gb = b.gradient()](const Gradient& gc) {
           for_float("matmul", a.dtype(), [&]<class T>() {
             const T *pa = a.data<T>(), *pb = b.data<T>(), *dc = gc.read<T>();
             const int64_t mk = s.m * s.k, kn = s.k * s.n, mn = s.m * s.n;
             if (const auto da = ga.target<T>()) {
               if (transpose_a)  // da^T = op(b) dc^T
                 gemm(Gemm<T>{.transpose_a = transpose_b,
                              .transpose_b = true,
                              .m = s.k,
                              .n = s.m,
                              .k = s.n,
                              .a = pb,
                              .b = dc,
                              .c = da.data,
                              .beta = da.beta},
                      {s.batch, kn, mn, mk});
               else
                 gemm(Gemm<T>{.transpose_b = !transpose_b,
                              .m = s.m,
                              .n = s.k,
                              .k = s.n,
                              .a = dc,
                              .b = pb,
                              .c = da.data,
                              .beta = da.beta},
                      {s.batch, mn, kn, mk});
             }
             if (const auto db = gb.target<T>()) {
               if (transpose_b)  // db^T = dc^T op(a)
                 gemm(Gemm<T>{.transpose_a = true,
                              .transpose_b = transpose_a,
                              .m = s.n,
                              .n = s.k,
                              .k = s.m,
                              .a = dc,
                              .b = pa,
                              .c = db.data,
                              .beta = db.beta},
                      {s.batch, mn, mk, kn});
               else
                 gemm(Gemm<T>{.transpose_a = !transpose_a,
                              .m = s.k,
                              .n = s.n,
                              .k = s.m,
                              .a = pa,
                              .b = dc,
                              .c = db.data,
                              .beta = db.beta},
                      {s.batch, mk, mn, kn});
             }
           });
         });
  return c;
}

namespace {

// sum_k a(.,m,k,1) b(.,1,k,n) by broadcasting.
Tensor composed(Tensor a, Tensor b, bool transpose_a, bool transpose_b) {
  const int last = a.rank() - 1;
  std::vector<int> swap(size_t(a.rank()));
  for (int axis = 0; axis <= last; ++axis) swap[size_t(axis)] = axis;
  std::swap(swap[size_t(last)], swap[size_t(last - 1)]);
  if (transpose_a) a = permute_axes(a, swap);
  if (transpose_b) b = permute_axes(b, swap);
  Shape left = a.shape(), right(b.shape().begin(), b.shape().end() - 2);
  left.push_back(1);
  right.push_back(1);
  right.push_back(b.size(-2));
  right.push_back(b.size(-1));
  return scale(mean(mul(a.reshape(left), b.reshape(right)), last), double(a.size(-1)));
}

#define MATMUL_CASE(shapes, ta, tb)                                                   \
  TESSERA_CASES(OpCase{"matmul(" #ta "," #tb ")", shapes,                             \
                       [](const Inputs& in) { return matmul(in[0], in[1], ta, tb); }, \
                       [](const Inputs& in) { return composed(in[0], in[1], ta, tb); }})
using Shapes = std::vector<const char*>;
MATMUL_CASE((Shapes{"3x5 5x7", "1x1 1x1", "2x3x5 2x5x4", "65537x2 2x3"}), false, false);
MATMUL_CASE((Shapes{"3x5 7x5", "1x1 1x1", "2x3x5 2x4x5"}), false, true);
MATMUL_CASE((Shapes{"5x3 5x7", "1x1 1x1", "2x5x3 2x5x4"}), true, false);
MATMUL_CASE((Shapes{"5x3 7x5", "1x1 1x1", "2x5x3 2x4x5"}), true, true);
#undef MATMUL_CASE

}  // namespace
}  // namespace tessera
