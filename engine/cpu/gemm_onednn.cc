// f32 matrix products through oneDNN, 2.x or 3.x. Its plain sgemm needs no primitives, hence no cache of them
// and no scratchpad that threads could share by mistake, and was not slower than the matmul primitive over
// the layers of a small ViT, forward and backward.
#include <oneapi/dnnl/dnnl.h>

#include "engine/base/check.h"
#include "engine/cpu/gemm_backend.h"

namespace tessera::cpu {

// Only an OpenMP build asks omp_in_parallel(), and so keeps to one thread inside a replica.
static_assert(DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP,
              "this oneDNN is not built with OpenMP; configure with -DTESSERA_ONEDNN=OFF or point "
              "CMAKE_PREFIX_PATH to one that is");

void multiply(const Gemm<float>& g) {
  const dnnl_status_t status = dnnl_sgemm(g.transpose_a ? 'T' : 'N', g.transpose_b ? 'T' : 'N', g.m, g.n, g.k,
                                          1, g.a, g.lda, g.b, g.ldb, g.beta, g.c, g.ldc);
  TESSERA_CHECK(status == dnnl_success, "gemm: oneDNN's sgemm of (m,n,k) = (", g.m, ",", g.n, ",", g.k,
                ") failed with status ", int(status),
                status == dnnl_out_of_memory ? ", out of memory: take a smaller batch"
                                             : "; a build with -DTESSERA_ONEDNN=OFF does without oneDNN");
}

}  // namespace tessera::cpu
