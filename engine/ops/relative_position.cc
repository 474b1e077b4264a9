// relative_position_bias: y(h,i,j) = table(r,h), a number for each offset r of the tokens i and j of a W x W
// window (Liu et al., "Swin Transformer", 2021, eq. 4), to be added to the scores of attention. An offset is
// numbered (row of i - row of j + W-1) (2W-1) + the same of the columns. dtable(r,h) = the sum of dy over all
// pairs at it.
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// The number of the offset of two tokens.
TESSERA_FN inline int64_t offset_of(int64_t W, int64_t i, int64_t j) {
  return (i / W - j / W + W - 1) * (2 * W - 1) + i % W - j % W + W - 1;
}

template <class T>
struct Forward {
  int64_t W, H;
  const T* table;
  T* y;
  TESSERA_FN void operator()(const Row& row, int64_t at) const {  // at = (h,i)
    const int64_t N = W * W, h = at / N, i = at % N;
    row.each(N, [=, this](int64_t j) { y[at * N + j] = table[offset_of(W, i, j) * H + h]; });
  }
};

// The tokens i that have a token at this offset are a rectangle of the window, and j = i - the offset.
template <class T>
struct Backward {
  int64_t W, H;
  const T* dy;
  GradTarget<T> dtable;
  TESSERA_FN void operator()(const Row& row, int64_t r) const {
    const int64_t N = W * W, down = r / (2 * W - 1) - (W - 1), right = r % (2 * W - 1) - (W - 1);
    const int64_t top = down > 0 ? down : 0, bottom = down > 0 ? W : W + down;
    const int64_t left = right > 0 ? right : 0, end = right > 0 ? W : W + right;
    row.each(H, [=, this](int64_t h) {
      T sum = 0;
      for (int64_t y = top; y < bottom; ++y)
        for (int64_t x = left; x < end; ++x) {
          const int64_t i = y * W + x, j = (y - down) * W + x - right;
          sum += dy[(h * N + i) * N + j];
        }
      dtable.put(r * H + h, sum);
    });
  }
};

}  // namespace

Tensor relative_position_bias(const Tensor& table, int64_t W) {
  Dims dim("relative_position_bias");
  dim(table, "table(R,H)");
  const int64_t offsets = (2 * W - 1) * (2 * W - 1), H = dim['H'], N = W * W;
  TESSERA_CHECK(dim['R'] == offsets, "relative_position_bias: table", table.shape(), " has ", dim['R'],
                " rows where a window of ", W, " x ", W, " has ", offsets, " offsets");
  Tensor y({H, N, N}, table.dtype());
  for_float("relative_position_bias", y.dtype(), [&]<class T>() {
    rows(H * N, N, Forward<T>{W, H, table.data<T>(), y.mutable_data<T>()});
  });
  record("relative_position_bias", {table}, y, [W, H, N, offsets, gt = table.gradient()](const Gradient& gy) {
    for_float("relative_position_bias", gt.dtype(), [&]<class T>() {
      rows(offsets, N * H, Backward<T>{W, H, gy.read<T>(), gt.target<T>()});
    });
  });
  return y;
}

namespace {

Tensor composed(const Tensor& table, int64_t W) {  // by counting out every pair of coordinates
  const int64_t H = table.size(1), N = W * W;
  std::vector<int64_t> index;
  for (int64_t h = 0; h < H; ++h)
    for (int64_t y = 0; y < W; ++y)
      for (int64_t x = 0; x < W; ++x)
        for (int64_t v = 0; v < W; ++v)
          for (int64_t u = 0; u < W; ++u)
            index.push_back(((y - v + W - 1) * (2 * W - 1) + (x - u + W - 1)) * H + h);
  return take(table, index, {H, N, N});
}

int64_t window_of(const Tensor& table) { return (std::llround(std::sqrt(double(table.size(0)))) + 1) / 2; }

TESSERA_CASES(OpCase{"relative_position_bias",
                     {"25x3", "1x1", "49x2", "1x65537"},
                     [](const Inputs& in) { return relative_position_bias(in[0], window_of(in[0])); },
                     [](const Inputs& in) { return composed(in[0], window_of(in[0])); }});

}  // namespace
}  // namespace tessera
