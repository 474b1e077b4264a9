// The card's attention in bf16, run on the host: its kernels' whole blocks, with tensor cores and ldmatrix
// played as their documentation says, against the definition in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "cuda/attention_head.h"
#include "tests/attention_reference.h"
#include "tests/random_inputs.h"
#include "tests/worst.h"

namespace tessera {
namespace {

using testing::AttentionReference;
using Halves = std::vector<bf16>;

const bf16 kNanHalf(std::nanf(""));

struct TileCase {
  AttentionShape s;
  float scale;
  Halves qkv, dout, out, dqkv;
  std::vector<float> lse, lse_2, minus_delta;

  explicit TileCase(const AttentionShape& shape, double deviation = 1)
      : s(shape), scale(float(1 / std::sqrt(double(s.D)))) {
    const int64_t size = s.B * s.N * s.H * s.D, rows = s.B * s.H * s.N;
    qkv = normal_values<bf16>(3 * size, 1, deviation);
    dout = normal_values<bf16>(size, 2);
    out.assign(size_t(size), kNanHalf);
    dqkv.assign(size_t(3 * size), kNanHalf);
    lse.assign(size_t(rows), std::nanf(""));
    lse_2 = minus_delta = lse;
  }

  AttentionReference reference() const { return {s, double(scale), qkv, dout}; }

  // Every block of a program, taken in turn by two that stay, each in memory that holds NaN.
  template <class Program>
  void run(const Program& program) const {
    const int blocks = int(s.B * s.H) * cuda::Cut(s.N).blocks_of_head;
    for (int first = 0; first < std::min(blocks, 2); ++first) {
      typename Program::Shared shared;
      std::memset(static_cast<void*>(&shared), 0xFF, sizeof shared);
      program(shared, first, 2, blocks);
    }
  }
  void forward() {
    cuda::with_head_size(s, [&]<int kD>() {
      if (cuda::fits_in_a_tile(s.N))
        run(cuda::AttentionOfHead<kD>{s, qkv.data(), scale, out.data(), lse.data()});
      else
        run(cuda::AttentionForward<kD>{s, cuda::Cut(s.N), qkv.data(), scale, out.data(), lse.data()});
    });
  }
  void backward(float beta) {
    const cuda::Cut cut(s.N);
    cuda::with_head_size(s, [&]<int kD>() {
      if (cuda::fits_in_a_tile(s.N)) {
        run(cuda::AttentionGradientOfHead<kD>{s, qkv.data(), scale, out.data(), dout.data(), lse.data(),
                                              dqkv.data(), beta});
        return;
      }
      run(cuda::AttentionQueryGradient<kD>{s, cut, qkv.data(), scale, out.data(), dout.data(), lse.data(),
                                           lse_2.data(), minus_delta.data(), dqkv.data(), beta});
      run(cuda::AttentionKeyGradient<kD>{s, cut, qkv.data(), scale, dout.data(), lse_2.data(),
                                         minus_delta.data(), dqkv.data(), beta});
    });
  }
};

// A result is rounded once, by 2^-8 of it at most, and so is every weight and slope in its sums, whose errors
// partly cancel; a wrong index is an error of the size of the numbers.
constexpr double kRounding = 0.006;

void check_tiles(TileCase c) {
  CAPTURE(c.s.N);
  CAPTURE(c.s.D);
  const AttentionReference reference = c.reference();
  c.forward();
  CHECK(apart(c.out, reference.out) < kRounding);
  CHECK(apart(c.lse, reference.lse) < 1e-6);
  c.backward(0);  // over NaN
  CHECK(apart(c.dqkv, reference.dqkv) < kRounding);
}

}  // namespace

TEST_CASE("attention in bf16: head sizes and lengths of the models, and those beside them") {
  for (const int64_t D : {16, 32, 64})
    for (const int64_t N : {1, 16, 17, 64, 65, 80, 81, 96, 129, 197}) check_tiles(TileCase({2, N, 2, D}));
  for (const int64_t D : {16, 32, 64}) check_tiles(TileCase({1, 577, 1, D}));
  for (const int64_t D : {1, 5, 7, 8, 10, 24, 48, 63})
    for (const int64_t N : {33, 81}) check_tiles(TileCase({2, N, 3, D}));
}

TEST_CASE("attention in bf16: gradients are added to what is there") {
  for (const int64_t D : {16, 7, 64})
    for (const int64_t N : {33, 97}) {
      TileCase c({1, N, 2, D});
      const AttentionReference reference = c.reference();
      c.forward();
      c.dqkv = normal_values<bf16>(int64_t(c.dqkv.size()), 3, 4);
      std::vector<double> sums = reference.dqkv;
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += double(c.dqkv[i]);
      c.backward(1);
      CHECK(apart(c.dqkv, sums) < kRounding);
    }
}

TEST_CASE("attention in bf16: large scores overflow neither in what is there nor beyond it") {
  for (const float sign : {1.0f, -1.0f})
    for (const int64_t N : {33, 97}) {
      TileCase c({1, N, 1, 16});
      for (int64_t n = 0; n < N; ++n)  // scores around 200 of either sign, apart by a few
        for (int64_t d = 0; d < 16; ++d) {
          bf16 &query = c.qkv[size_t(n * 48 + d)], &key = c.qkv[size_t(n * 48 + 16 + d)];
          query = 7 + query / 8;
          key = sign * (7 + key / 8);
        }
      check_tiles(c);
    }
}

TEST_CASE("attention in bf16: a NaN reaches what depends on it and stays in its head") {
  for (const size_t N : {33, 97})
    for (size_t which = 0; which < 3; ++which) {
      CAPTURE(N);
      CAPTURE(which);
      TileCase c({2, int64_t(N), 2, 16});
      c.qkv[(20 * 3 + which) * 32 + 16 + 5] = kNanHalf;  // image 0, token 20, head 1
      c.forward();
      c.backward(0);
      for (size_t n = 0; n < N; ++n)
        for (size_t d = 0; d < 16; ++d) {
          const bool spoilt = which == 0 ? n == 20 : which == 1 || d == 5;  // its row, every row, its column
          CHECK(std::isnan(float(c.out[n * 32 + 16 + d])) == spoilt);
          CHECK(std::isfinite(float(c.out[n * 32 + d])));
          CHECK(std::isfinite(float(c.out[(N + n) * 32 + 16 + d])));
          if (n == 20) CHECK(std::isnan(float(c.dqkv[n * 96 + 16 + d])));
          CHECK(std::isfinite(float(c.dqkv[n * 96 + d])));
        }
    }
}

}  // namespace tessera
