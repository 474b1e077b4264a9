// Launches of cuda/attention_tiles.h.
#include "cuda/attention_tiles.h"
#include "cuda/context.h"
#include "engine/kernels/backends.h"
#include "engine/tensor/tensor.h"

namespace tessera::cuda {
namespace {

template <int kD, class Program>
__global__ void __launch_bounds__(kMaxWarps* kLanes) run_block(Program program) {
  __shared__ Tiles<kD> tiles;
  program(tiles, blockIdx.x);
}

template <int kD, class Program>
void run(const Program& program, const char* name) {
  const Cut& cut = program.cut;
  const int64_t blocks = program.s.B * program.s.H * cut.blocks_of_head;
  run_block<kD><<<unsigned(blocks), unsigned(cut.warps * kLanes), 0, context().stream>>>(program);
  check_launch(name);
}

}  // namespace

void attention_forward(const AttentionShape& s, const bf16* qkv, float scale, bf16* out, float* lse) {
  if (s.B * s.H * s.N * s.D == 0) return;
  with_head_size(s, [&]<int kD>() {
    run<kD>(AttentionForward<kD>{{s}, Cut(s.N), qkv, scale, out, lse}, "attention_forward (bf16)");
  });
}

void attention_backward(const AttentionShape& s, const bf16* qkv, float scale, const bf16* out,
                        const float* lse, const bf16* dout, bf16* dqkv, float beta) {
  if (s.B * s.H * s.N * s.D == 0) return;
  Tensor deltas({s.B, s.H, s.N}, DType::f32);
  float* const delta = deltas.mutable_data<float>();
  with_head_size(s, [&]<int kD>() {
    run<kD>(AttentionQueryGradient<kD>{{s}, Cut(s.N), qkv, scale, out, dout, lse, delta, dqkv, beta},
            "attention_backward (bf16, queries)");
    run<kD>(AttentionKeyGradient<kD>{{s}, Cut(s.N), qkv, scale, dout, lse, delta, dqkv, beta},
            "attention_backward (bf16, keys)");
  });
}

}  // namespace tessera::cuda
