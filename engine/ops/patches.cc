// patches: images(B,C,H,W) cut into P x P squares, each a row of C*P*P numbers in the order of a
// convolution's weight (c, row, column): a patch embedding is then a linear layer.
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// Runs of P neighbours, which lie together on both sides: run i is a row of channel c of a patch.
template <class T>
struct Runs {
  static constexpr int kVec = 4;
  int64_t C, H, W, P;
  const T* from;
  GradTarget<T> to;
  bool back;                                   // from patches to images
  TESSERA_FN int64_t pixel(int64_t i) const {  // the first of run i
    const int64_t r = i % P, c = i / P % C, patch = i / (P * C), across = W / P, down = H / P;
    const int64_t x = patch % across, y = patch / across % down, b = patch / (across * down);
    return ((b * C + c) * H + y * P + r) * W + x * P;
  }
  TESSERA_FN void operator()(const Row& row, int64_t i) const {
    const int64_t source = back ? i * P : pixel(i), target = back ? pixel(i) : i * P;
    row.each(P, [=, this](int64_t j) { to.put(target + j, from[source + j]); });
  }
  // From number i of the patches on, where runs are too short for the threads of a row.
  bool aligned() const { return P % kVec == 0 && aligned_to<kVec>(from, to.data); }
  template <int n>
  TESSERA_FN void vec(int64_t i) const {
    const int64_t at = pixel(i / P) + i % P;
    to.put(back ? at : i, load_vec<n>(from + (back ? i : at)));
  }
};

template <class T>
void move(int64_t count, const Runs<T>& runs) {
  on_card() ? elements(count, runs) : rows(count / runs.P, runs.P, runs);
}

}  // namespace

Tensor patches(const Tensor& images, int64_t P) {
  Dims dim("patches");
  dim(images, "images(B,C,H,W)");
  const int64_t B = dim['B'], C = dim['C'], H = dim['H'], W = dim['W'];
  TESSERA_CHECK(P > 0 && H % P == 0 && W % P == 0, "patches: images", images.shape(),
                " cannot be cut into patches of ", P, " x ", P,
                "; choose a patch size that divides both sides");
  Tensor y({B, (H / P) * (W / P), C * P * P}, images.dtype());
  for_float("patches", images.dtype(), [&]<class T>() {
    move(images.count(), Runs<T>{C, H, W, P, images.data<T>(), {y.mutable_data<T>()}, false});
  });
  record("patches", {images}, y, [=, gx = images.gradient()](const Gradient& gy) {
    for_float("patches", gx.dtype(), [&]<class T>() {
      move(gx.shape().count(), Runs<T>{C, H, W, P, gy.read<T>(), gx.target<T>(), true});
    });
  });
  return y;
}

namespace {

Tensor composed(const Inputs& in, int64_t P) {  // (B,C,h,P,w,P) to (B,h,w,C,P,P)
  const Shape s = in[0].shape();
  const Tensor cut = in[0].reshape({s[0], s[1], s[2] / P, P, s[3] / P, P});
  return permute_axes(cut, {0, 2, 4, 1, 3, 5}).reshape({s[0], s[2] / P * (s[3] / P), s[1] * P * P});
}

TESSERA_CASES(OpCase{"patches",
                     {"2x3x4x6", "1x1x2x2", "65537x1x2x2"},
                     [](const Inputs& in) { return patches(in[0], 2); },
                     [](const Inputs& in) { return composed(in, 2); }});
TESSERA_CASES(OpCase{"patches(4)",
                     {"2x3x4x8"},
                     [](const Inputs& in) { return patches(in[0], 4); },
                     [](const Inputs& in) { return composed(in, 4); }});

}  // namespace
}  // namespace tessera
