// Small matrix products whose operands lie in cache: C (m,n) = A (m,k) B (k,n), C in registers, a tile at a
// time. A is read one element at a time and broadcast, so any strides do (a transpose is free); B is read by
// packs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "engine/base/vec_math.h"

namespace tessera {

#if defined(__AVX512F__)
inline constexpr int kPackBytes = 64, kMaxPacks = 5;
#elif defined(__AVX__)
inline constexpr int kPackBytes = 32, kMaxPacks = 3;
#else
inline constexpr int kPackBytes = 16, kMaxPacks = 3;
#endif

#define TESSERA_INLINE_LAMBDA __attribute__((always_inline))

// One register of T.
template <class T>
struct PackOf;
template <>
struct PackOf<float> {
  typedef float type __attribute__((vector_size(kPackBytes)));
};
template <>
struct PackOf<double> {
  typedef double type __attribute__((vector_size(kPackBytes)));
};
template <class T>
using Pack = typename PackOf<T>::type;
template <class T>
inline constexpr int kLanes = kPackBytes / int(sizeof(T));

template <class T>
TESSERA_INLINE Pack<T> load(const T* from) {
  Pack<T> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
TESSERA_INLINE void store(T* to, const Pack<T>& value) {
  std::memcpy(to, &value, sizeof value);
}
// The first `count` lanes (at most all of them); the others are 0.
template <class T>
TESSERA_INLINE Pack<T> load_part(const T* from, int64_t count) {
  if (count >= kLanes<T>) return load(from);
  Pack<T> value{};
  std::memcpy(&value, from, size_t(count) * sizeof(T));
  return value;
}
// Keeps a value that is used several times in its register: GCC would read it from memory at every use, and
// the loads would then bound the loop.
template <class Value>
TESSERA_INLINE void keep(Value& value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#else
  (void)value;
#endif
}
TESSERA_INLINE Pack<float> vexp(const Pack<float>& x) {
  typedef int32_t Int __attribute__((vector_size(kPackBytes)));
  return detail::exp32<Pack<float>, Int>(x);
}
inline Pack<double> vexp(const Pack<double>& x) {
  Pack<double> y = x;
  for (int i = 0; i < kLanes<double>; ++i) y[i] = vexp(x[i]);
  return y;
}

// f(0), f(1) ... f(n - 1), each with a constant, so that arrays indexed by it can live in registers.
template <int n, class F>
TESSERA_INLINE void unroll(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) TESSERA_INLINE_LAMBDA {
    (f(std::integral_constant<int, i>{}), ...);
  }
  (std::make_integer_sequence<int, n>{});
}

// Rows of a tile that is `packs` wide: accumulators, one row of B and one element of A fill the register
// file.
constexpr int tile_rows(int packs) {
  constexpr int kAvx512[] = {13, 13, 9, 6, 5}, kAvx[] = {13, 6, 4};
  return kPackBytes == 64 ? kAvx512[packs - 1] : kAvx[packs - 1];
}

// Calls f with the constant `packs`, which is in [1, kMaxPacks].
template <class F>
TESSERA_INLINE void with_packs(int64_t packs, F&& f) {
  unroll<kMaxPacks>([&](auto i) TESSERA_INLINE_LAMBDA {
    if (packs == i + 1) f(std::integral_constant<int, i + 1>{});
  });
}

// Cuts [0, packs) evenly into groups of at most `most`.
struct PackGroups {
  int64_t packs, most = kMaxPacks, count = (packs + most - 1) / most;
  int64_t begin(int64_t group) const { return packs * group / count; }
  int64_t size(int64_t group) const { return begin(group + 1) - begin(group); }
};

// An element (i, j) is at data[i * row + j * column]. A stride known when compiling (an integral_constant)
// frees the registers that its multiples would take.
template <class T, class Row, class Column>
struct Strided {
  const T* data;
  Row row;
  Column column;
};

// Rows [skip, R) and `columns` (at most C packs) of A B, row i times factor[i] unless factor is null, to c,
// or added to c.
template <int R, int C, class T, class A>
TESSERA_INLINE void multiply_tile(int64_t k, A a, const T* b, int64_t b_row, T* c, int64_t c_row, int skip,
                                  int64_t columns, const T* factor, bool add) {
  Pack<T> sum[R][C] = {};
  for (int64_t x = 0; x < k; ++x) {
    Pack<T> row[C];
    unroll<C>([&](int j) TESSERA_INLINE_LAMBDA {
      row[j] = load(b + j * kLanes<T>);
      keep(row[j]);
    });
    unroll<R>([&](int i) TESSERA_INLINE_LAMBDA {
      const T element = a.data[i * a.row];
      unroll<C>([&](int j) TESSERA_INLINE_LAMBDA { sum[i][j] += row[j] * element; });
    });
    a.data += a.column;
    b += b_row;
  }
  if (skip == 0 && columns >= C * kLanes<T>) {
    unroll<R>([&](int i) TESSERA_INLINE_LAMBDA {
      const T row_factor = factor ? factor[i] : T(1);
      unroll<C>([&](int j) TESSERA_INLINE_LAMBDA {
        T* to = c + i * c_row + j * kLanes<T>;
        const Pack<T> value = sum[i][j] * row_factor;
        store(to, add ? load(to) + value : value);
      });
    });
    return;
  }
  T whole[R][C * kLanes<T>];
  unroll<R>([&](int i) TESSERA_INLINE_LAMBDA {
    unroll<C>([&](int j) TESSERA_INLINE_LAMBDA { store(whole[i] + j * kLanes<T>, sum[i][j]); });
  });
  const int64_t count = std::min<int64_t>(columns, C * kLanes<T>);
  for (int i = skip; i < R; ++i) {
    const T row_factor = factor ? factor[i] : T(1);
    for (int64_t j = 0; j < count; ++j) {
      const T value = whole[i][j] * row_factor;
      c[i * c_row + j] = add ? c[i * c_row + j] + value : value;
    }
  }
}

// C (m,n) = A (m,k) B (k,n), row i times factor[i] unless factor is null, or C += that. The rows of B are
// readable up to whole packs.
template <class T, class Row, class Column>
void multiply(int64_t m, int64_t n, int64_t k, Strided<T, Row, Column> a, const T* b, int64_t b_row, T* c,
              int64_t c_row, std::type_identity_t<const T*> factor = nullptr, bool add = false) {
  const PackGroups groups{(n + kLanes<T> - 1) / kLanes<T>};
  for (int64_t group = 0; group < groups.count; ++group)
    with_packs(groups.size(group), [&](auto packs) {
      constexpr int kRows = tile_rows(packs());
      const int64_t first = groups.begin(group) * kLanes<T>;
      const auto tile = [&](auto rows, int64_t i, int skip) TESSERA_INLINE_LAMBDA {
        multiply_tile<rows(), packs()>(k, Strided<T, Row, Column>{a.data + i * a.row, a.row, a.column},
                                       b + first, b_row, c + i * c_row + first, c_row, skip, n - first,
                                       factor ? factor + i : nullptr, add);
      };
      if (m < kRows) {
        for (int64_t i = 0; i < m; ++i) tile(std::integral_constant<int, 1>{}, i, 0);
        return;
      }
      // The last tile reaches back over rows that are done already, so that it is as high as the others; it
      // only must not add twice.
      for (int64_t i = 0; i < m; i += kRows) {
        const int64_t back = std::max<int64_t>(i + kRows - m, 0);
        tile(std::integral_constant<int, kRows>{}, i - back, add ? int(back) : 0);
      }
    });
}

// to (rows_out, lanes) = factor * from^T for one square block: `count` columns of each of `rows` rows; what
// is outside them becomes 0. Each step swaps the off-diagonal quarters of all blocks of 2 `half` lanes.
template <class T>
TESSERA_INLINE void transpose_block(const T* from, int64_t from_row, int64_t rows, int64_t count, T factor,
                                    T* to, int64_t to_row) {
  constexpr int W = kLanes<T>;
  T padded[W * W];
  if (rows < W || count < W) {
    std::fill_n(padded, W * W, T(0));
    for (int64_t i = 0; i < std::min<int64_t>(rows, W); ++i)
      for (int64_t j = 0; j < std::min<int64_t>(count, W); ++j) padded[i * W + j] = from[i * from_row + j];
    from = padded;
    from_row = W;
  }
  Pack<T> line[W];
  unroll<W>([&](int i) TESSERA_INLINE_LAMBDA { line[i] = load(from + i * from_row) * factor; });
  const auto swap_quarters = [&]<int half, int... lane>(
      std::integral_constant<int, half>, std::integer_sequence<int, lane...>) TESSERA_INLINE_LAMBDA {
    unroll<W>([&](int i) TESSERA_INLINE_LAMBDA {
      if (i & half) return;
      const Pack<T> upper = line[i], lower = line[i + half];
      line[i] = __builtin_shufflevector(upper, lower, ((lane & half) ? W + lane - half : lane)...);
      line[i + half] = __builtin_shufflevector(upper, lower, ((lane & half) ? W + lane : lane + half)...);
    });
  };
  constexpr auto lanes = std::make_integer_sequence<int, W>{};
  if constexpr (W > 8) swap_quarters(std::integral_constant<int, 8>{}, lanes);
  if constexpr (W > 4) swap_quarters(std::integral_constant<int, 4>{}, lanes);
  if constexpr (W > 2) swap_quarters(std::integral_constant<int, 2>{}, lanes);
  swap_quarters(std::integral_constant<int, 1>{}, lanes);
  unroll<W>([&](int i) TESSERA_INLINE_LAMBDA { store(to + i * to_row, line[i]); });
}

}  // namespace tessera
