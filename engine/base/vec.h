// Neighbours in memory that a card reads or writes at once. A program of elements or of columns may have, in
// place of operator(), a member vec<n> for n of them: a card runs it with n = kVec where aligned() allows
// that, and the CPU with n = 1, in loops that become vector code. One of rows takes n as a parameter
// (with_vec and Row::each_vec in rows.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/base/bf16.h"
#include "engine/base/portable.h"

namespace tessera {

template <class T, int n>
struct alignas(n * sizeof(T)) Vec {
  T v[n];
};

template <int n, class T>
TESSERA_INLINE Vec<T, n> load_vec(const T* at) {
  return *reinterpret_cast<const Vec<T, n>*>(at);
}
template <class T, int n>
TESSERA_INLINE void store_vec(T* at, const Vec<T, n>& vec) {
  *reinterpret_cast<Vec<T, n>*>(at) = vec;
}

// In what numbers stored as T are computed in.
template <int n, class T>
TESSERA_INLINE Vec<Wide<T>, n> load_wide(const T* at) {
  const Vec<T, n> stored = load_vec<n>(at);
  Vec<Wide<T>, n> wide;
  for (int k = 0; k < n; ++k) wide.v[k] = stored.v[k];
  return wide;
}

template <class F>
concept Vectorized = requires {
  F::kVec;
};

// The terms of K sums in row i and the columns j to j + n - 1.
template <int n, class T, size_t K, class F>
TESSERA_INLINE std::array<Vec<T, n>, K> vecs_at(const F& f, int64_t i, int64_t j) {
  if constexpr (Vectorized<F>) {
    return f.template vec<n>(i, j);
  } else {
    std::array<Vec<T, n>, K> vecs;
    for (int v = 0; v < n; ++v) {
      const std::array<T, K> terms = f(i, j + v);
      for (size_t k = 0; k < K; ++k) vecs[k].v[v] = terms[k];
    }
    return vecs;
  }
}

// Whether all of them may be read by n numbers at a time.
template <int n, class... T>
bool aligned_to(const T*... at) {
  return ((reinterpret_cast<uintptr_t>(at) % (n * sizeof(T)) == 0) && ...);
}

}  // namespace tessera
