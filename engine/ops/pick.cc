// pick: y_ij = x_i,index(i,j); dx_ie = sum of dy_ij over the j with index(i,j) = e.
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

template <class T>
struct Forward {
  int64_t E, k;
  const int32_t* index;
  const T* x;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    row.each(k, [=, this](int64_t j) { y[i * k + j] = x[i * E + index[i * k + j]]; });
  }
};

template <class T>
struct Backward {
  int64_t E, k;
  const int32_t* index;
  const T* dy;
  GradTarget<T> dx;
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    row.each(E, [=, this](int64_t e) {
      T total = 0;
      for (int64_t j = 0; j < k; ++j) total += index[i * k + j] == e ? dy[i * k + j] : T(0);
      dx.put(i * E + e, total);
    });
  }
};

}  // namespace

Tensor pick(const Tensor& x, const Tensor& index) {
  Dims dim("pick");
  dim(x, "x(M,E)")(index, "index(M,k)");
  const int64_t M = dim['M'], E = dim['E'], k = dim['k'];
  for (int64_t i = 0; i < index.count() && !on_card(); ++i)  // there looking would wait
    TESSERA_CHECK(index.data<int32_t>()[i] >= 0 && index.data<int32_t>()[i] < E, "pick: index", index.shape(),
                  " holds ", index.data<int32_t>()[i], " at ", i, ", outside x", x.shape());
  Tensor y({M, k}, x.dtype());
  for_float("pick", x.dtype(), [&]<class T>() {
    rows(M, E, Forward<T>{E, k, index.data<int32_t>(), x.data<T>(), y.mutable_data<T>()});
  });
  record("pick", {x}, y, [=, gx = x.gradient()](const Gradient& gy) {
    for_float("pick", gx.dtype(), [&]<class T>() {
      rows(M, E, Backward<T>{E, k, index.data<int32_t>(), gy.read<T>(), gx.target<T>()});
    });
  });
  return y;
}

namespace {

// Two elements of each row, at times the same one.
std::vector<int32_t> some_index(const Tensor& x) {
  std::vector<int32_t> index;
  for (int64_t i = 0; i < 2 * x.size(0); ++i)
    index.push_back(int32_t(Draw{.seed = 4}.below(uint32_t(x.size(1)), uint64_t(i))));
  return index;
}

Tensor composed(const Inputs& in) {
  std::vector<int64_t> flat;
  for (const int32_t e : some_index(in[0])) flat.push_back(int64_t(flat.size()) / 2 * in[0].size(1) + e);
  return take(in[0], flat, {in[0].size(0), 2});
}

TESSERA_CASES(OpCase{"pick",
                     {"7x3", "1x1", "65537x2"},
                     [](const Inputs& in) {
                       return pick(in[0], Tensor::of({in[0].size(0), 2}, some_index(in[0])));
                     },
                     composed});

}  // namespace
}  // namespace tessera
