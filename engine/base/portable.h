// What lets one function be compiled for the CPU and, by nvcc, for the GPU.
#pragma once

#if defined(__CUDACC__)
#define TESSERA_FN __host__ __device__
#else
#define TESSERA_FN
#endif

// For what stands inside a SIMD loop: a call that is not inlined would undo its vectors.
#define TESSERA_INLINE TESSERA_FN __attribute__((always_inline)) inline
