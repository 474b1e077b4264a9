// What lets one function be compiled for the CPU and, by nvcc, for the GPU.
#pragma once

#if defined(__CUDACC__)
#define TESSERA_FN __host__ __device__
#else
#define TESSERA_FN
#endif
