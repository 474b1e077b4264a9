// What lets one function be compiled for the CPU and, by nvcc, for the GPU.
#pragma once

#if defined(__CUDACC__)
#define TESSERA_FN __host__ __device__
#else
#define TESSERA_FN
#endif

// Before a loop whose passes know nothing of one another, for programs whose pointers might overlap for all
// that the compiler knows.
#if defined(__clang__)
#define TESSERA_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define TESSERA_INDEPENDENT _Pragma("GCC ivdep")
#else
#define TESSERA_INDEPENDENT
#endif

// For what stands inside a SIMD loop: a call that is not inlined would undo its vectors.
#define TESSERA_INLINE TESSERA_FN __attribute__((always_inline)) inline
