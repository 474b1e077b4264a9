// Launches of cuda/attention_tiles.h and cuda/attention_head.h.
#include <algorithm>

#include "cuda/attention_head.h"
#include "cuda/context.h"
#include "engine/kernels/backends.h"
#include "engine/tensor/tensor.h"

namespace tessera::cuda {
namespace {

// Blocks stay on the card and take the program's in turn: what does not depend on the head is found out once.
// Program::kBlocks of kWarps warps are to have room on a multiprocessor, which limits their registers.
template <class Program>
__global__ void __launch_bounds__(Program::kWarps* kLanes, Program::kBlocks)
    run_blocks(Program program, int blocks) {
  extern __shared__ uint4 memory[];
  auto& shared = *reinterpret_cast<typename Program::Shared*>(memory);
  program(shared, int(blockIdx.x), int(gridDim.x), blocks);
}

template <class Program>
void run(const Program& program, const Cut& cut, const char* name) {
  constexpr int kBytes = int(sizeof(typename Program::Shared));
  static_assert(kBytes <= 99 << 10, "more than the cards that run code for sm_80 have");
  const auto kernel = run_blocks<Program>;
  if (kBytes > 48 << 10)  // more than a kernel has unasked
    TESSERA_CUDA_CALL(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  // The kernels need no more of the level 1 cache than its rest.
  TESSERA_CUDA_CALL(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                         cudaSharedmemCarveoutMaxShared));
  const int threads = cut.warps * kLanes, blocks = program.s.B * program.s.H * cut.blocks_of_head;
  int at_once = 0;  // on a multiprocessor
  TESSERA_CUDA_CALL(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&at_once, kernel, threads, kBytes));
  at_once *= context().multiprocessors;
  kernel<<<unsigned(std::min(blocks, at_once)), unsigned(threads), kBytes, context().stream>>>(program,
                                                                                               blocks);
  check_launch(name);
}

}  // namespace

void attention_forward(const AttentionShape& s, const bf16* qkv, float scale, bf16* out, float* lse) {
  if (s.B * s.H * s.N * s.D == 0) return;
  const Cut cut(s.N);
  with_head_size(s, [&]<int kD>() {
    if (fits_in_a_tile(s.N))
      run(AttentionOfHead<kD>{s, qkv, scale, out, lse}, cut, "attention_forward (bf16)");
    else
      run(AttentionForward<kD>{s, cut, qkv, scale, out, lse}, cut, "attention_forward (bf16)");
  });
}

void attention_backward(const AttentionShape& s, const bf16* qkv, float scale, const bf16* out,
                        const float* lse, const bf16* dout, bf16* dqkv, float beta) {
  if (s.B * s.H * s.N * s.D == 0) return;
  const Cut cut(s.N);
  with_head_size(s, [&]<int kD>() {
    if (fits_in_a_tile(s.N)) {
      run(AttentionGradientOfHead<kD>{s, qkv, scale, out, dout, lse, dqkv, beta}, cut,
          "attention_backward (bf16)");
      return;
    }
    Tensor both({2, s.B, s.H, s.N}, DType::f32);
    float* const lse_2 = both.mutable_data<float>();
    float* const minus_delta = lse_2 + s.B * s.H * s.N;
    run(AttentionQueryGradient<kD>{s, cut, qkv, scale, out, dout, lse, lse_2, minus_delta, dqkv, beta}, cut,
        "attention_backward (bf16, queries)");
    run(AttentionKeyGradient<kD>{s, cut, qkv, scale, dout, lse_2, minus_delta, dqkv, beta}, cut,
        "attention_backward (bf16, keys)");
  });
}

}  // namespace tessera::cuda
