// Matrix products: f32 (or tf32) and bf16 with sums in f32 through cuBLASLt, whose descriptors and algorithms
// are found once for each shape, and f64 through cuBLAS. Both count in columns: a row-major C = op(A) op(B)
// is their C^T = op(B)^T op(A)^T, where every matrix is read as its own transpose, so that the operands
// change places and nothing else changes.
#include <cublasLt.h>
#include <cublas_v2.h>

#include <algorithm>
#include <array>
#include <compare>
#include <map>
#include <memory>
#include <mutex>

#include "cuda/context.h"
#include "cuda/programs.cuh"
#include "cuda/runtime.h"
#include "engine/kernels/backends.h"

namespace tessera::cuda {
namespace {

void check(cublasStatus_t status, const char* call) {
  TESSERA_CHECK_AS(Exit::device, status == CUBLAS_STATUS_SUCCESS, "CUDA: ", call, ": ",
                   cublasGetStatusString(status));
}

#define TESSERA_CUBLAS_CALL(call) check(call, #call)

template <class T>
constexpr cudaDataType_t kDataType = CUDA_R_32F;
template <>
constexpr cudaDataType_t kDataType<bf16> = CUDA_R_16BF;

// All that an algorithm is chosen by.
struct Key {
  cudaDataType_t operands, result;
  bool transpose_a, transpose_b, biased, adds, tf32;
  int64_t m, n, k, lda, ldb, ldc, count, stride_a, stride_b, stride_c, stride_bias;
  std::array<unsigned, 3> alignment;  // of a, b and c, in bytes
  auto operator<=>(const Key&) const = default;
};

// That of all products' operands, `stride` from one another.
template <class T>
unsigned alignment(const T* at, int64_t stride) {
  unsigned bytes = 16;  // what vector loads need; a plan must not depend on where the arena put a block
  while ((reinterpret_cast<uintptr_t>(at) | uintptr_t(stride) * sizeof(T)) % bytes != 0) bytes /= 2;
  return bytes;
}

// What a product adds to.
template <class T, class Out>
const Out* before(const Gemm<T, Out>& g) {
  return g.addend ? g.addend : g.c;
}

// What cuBLASLt needs for the products of one key.
class Plan {
 public:
  Plan(cublasLtHandle_t handle, const Key& key, size_t workspace, const void* bias) {
    const cublasComputeType_t compute = key.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    TESSERA_CUBLAS_CALL(cublasLtMatmulDescCreate(&product_, compute, CUDA_R_32F));
    set(CUBLASLT_MATMUL_DESC_TRANSA, key.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, key.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (bias) {  // the heuristic may look at it
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
      set(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, key.stride_bias);
    }
    const auto layout = [&](cublasLtMatrixLayout_t& made, cudaDataType_t type, int64_t rows, int64_t columns,
                            int64_t ld, int64_t stride) {
      TESSERA_CUBLAS_CALL(cublasLtMatrixLayoutCreate(&made, type, uint64_t(rows), uint64_t(columns), ld));
      const int32_t count = int32_t(key.count);
      TESSERA_CUBLAS_CALL(
          cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
      TESSERA_CUBLAS_CALL(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                           &stride, sizeof stride));
    };
    layout(left_, key.operands, key.transpose_b ? key.k : key.n, key.transpose_b ? key.n : key.k, key.ldb,
           key.stride_b);
    layout(right_, key.operands, key.transpose_a ? key.m : key.k, key.transpose_a ? key.k : key.m, key.lda,
           key.stride_a);
    layout(result_, key.result, key.n, key.m, key.ldc, key.stride_c);

    cublasLtMatmulPreference_t preference = nullptr;
    TESSERA_CUBLAS_CALL(cublasLtMatmulPreferenceCreate(&preference));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(preference, what, &value, sizeof value),
            "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t(workspace));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, uint32_t(key.alignment[1]));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, uint32_t(key.alignment[0]));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, uint32_t(key.alignment[2]));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, uint32_t(key.alignment[2]));
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, product_, left_, right_, result_,
                                                                 result_, preference, 1, &found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    possible_ = status == CUBLAS_STATUS_SUCCESS && count > 0;
    algorithm_ = found.algo;
  }
  ~Plan() {
    for (cublasLtMatrixLayout_t layout : {left_, right_, result_})
      if (layout) cublasLtMatrixLayoutDestroy(layout);
    if (product_) cublasLtMatmulDescDestroy(product_);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  // Whether cuBLASLt has an algorithm for it.
  bool possible() const { return possible_; }

  template <class T, class Out>
  void run(cublasLtHandle_t handle, const Gemm<T, Out>& g, void* workspace, size_t bytes,
           cudaStream_t stream) {
    if (g.bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(g.bias));
    const float alpha = 1, beta = g.addend ? 1 : g.beta;
    check(cublasLtMatmul(handle, product_, &alpha, g.b, left_, g.a, right_, &beta, before(g), result_, g.c,
                         result_, &algorithm_, workspace, bytes, stream),
          "cublasLtMatmul");
  }

 private:
  template <class V>
  void set(cublasLtMatmulDescAttributes_t what, V value) {
    check(cublasLtMatmulDescSetAttribute(product_, what, &value, sizeof value),
          "cublasLtMatmulDescSetAttribute");
  }

  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t left_ = nullptr, right_ = nullptr, result_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_{};
  bool possible_ = false;
};

// The libraries' state on one card; one stream's products share the workspace, in order.
struct Products {
  static constexpr size_t kWorkspace = size_t{32} << 20;  // what NVIDIA advises for sm_90
  cublasLtHandle_t lt = nullptr;
  cublasHandle_t blas = nullptr;
  void* workspace = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans;

  Products() {
    TESSERA_CUBLAS_CALL(cublasLtCreate(&lt));
    TESSERA_CUBLAS_CALL(cublasCreate(&blas));
    TESSERA_CUBLAS_CALL(cublasSetStream(blas, context().stream));
    TESSERA_CUDA_CALL(cudaMalloc(&workspace, kWorkspace));
    TESSERA_CUBLAS_CALL(cublasSetWorkspace(blas, workspace, kWorkspace));
  }
};

// A card is worked by one thread at a time.
Products& products() {
  static std::array<std::unique_ptr<Products>, kMaxCards> cards;
  context();  // on this thread
  auto& slot = cards[size_t(Device::current().index)];
  if (!slot) slot = std::make_unique<Products>();
  return *slot;
}

// C's rows, of each product, start as what is added to, with the bias.
template <class Out>
struct Start {
  int64_t m, n, ldc, stride_c, stride_bias;
  Wide<Out> beta;
  const Out *before, *bias;
  Out* c;
  TESSERA_FN void operator()(int64_t i) const {
    using W = Wide<Out>;
    const int64_t product = i / (m * n), row = i / n % m, j = i % n;
    const int64_t at = product * stride_c + row * ldc + j;
    const W start = beta == W(0) ? W(0) : beta * W(before[at]);
    c[at] = start + (bias ? W(bias[product * stride_bias + j]) : W(0));
  }
};

template <class T, class Out>
void start(const Gemm<T, Out>& g, const GemmBatch& batch) {
  elements(batch.count * g.m * g.n, Start<Out>{g.m, g.n, g.ldc, batch.stride_c, batch.stride_bias,
                                               g.addend ? 1 : g.beta, before(g), g.bias, g.c});
}

// Leaves products without a bias that are added to C.
template <class T, class Out>
void start_first(Gemm<T, Out>& g, const GemmBatch& batch) {
  start(g, batch);
  g.bias = g.addend = nullptr;
  g.beta = 1;
}

// Does nothing, and says so, where cuBLASLt has no algorithm for it.
template <class T, class Out>
bool try_multiply(const Gemm<T, Out>& g, const GemmBatch& batch) {
  Products& own = products();
  const Key key{kDataType<T>,
                kDataType<Out>,
                g.transpose_a,
                g.transpose_b,
                g.bias != nullptr,
                g.addend || g.beta != 0,
                kDataType<T> == CUDA_R_32F && use_tf32(),
                g.m,
                g.n,
                g.k,
                g.lda,
                g.ldb,
                g.ldc,
                batch.count,
                batch.stride_a,
                batch.stride_b,
                batch.stride_c,
                g.bias ? batch.stride_bias : 0,
                {alignment(g.a, batch.stride_a), alignment(g.b, batch.stride_b),
                 std::min(alignment(before(g), batch.stride_c), alignment(g.c, batch.stride_c))}};
  std::unique_ptr<Plan>& plan = own.plans[key];
  if (!plan) plan = std::make_unique<Plan>(own.lt, key, Products::kWorkspace, g.bias);
  if (plan->possible()) plan->run(own.lt, g, own.workspace, Products::kWorkspace, context().stream);
  return plan->possible();
}

template <class T, class Out>
void multiply(const Gemm<T, Out>& given, const GemmBatch& batch) {
  Gemm<T, Out> g = given;
  if (g.bias) {  // an epilogue reads it by vectors
    const bool fits = g.n > 1 && g.k > 1 && alignment(g.bias, batch.stride_bias) == 16;
    if (fits && try_multiply(g, batch)) return;
    start_first(g, batch);
  }
  TESSERA_CHECK_AS(Exit::device, try_multiply(g, batch), "CUDA: cuBLASLt has no algorithm for ", batch.count,
                   " of the product (m,n,k) = (", g.m, ",", g.n, ",", g.k, ") with lda ", g.lda, ", ldb ",
                   g.ldb, ", ldc ", g.ldc);
}

void multiply(const Gemm<double>& given, const GemmBatch& batch) {
  Gemm<double> g = given;
  if (g.bias || g.addend) start_first(g, batch);  // cuBLAS knows neither
  const double alpha = 1;
  check(cublasDgemmStridedBatched(products().blas, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                                  g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, int(g.n), int(g.m), int(g.k),
                                  &alpha, g.b, int(g.ldb), batch.stride_b, g.a, int(g.lda), batch.stride_a,
                                  &g.beta, g.c, int(g.ldc), batch.stride_c, int(batch.count)),
        "cublasDgemmStridedBatched");
}

}  // namespace

template <class T, class Out>
void gemm(const Gemm<T, Out>& g, const GemmBatch& batch) {
  if (g.k > 0) return multiply(g, batch);
  start(g, batch);
}

template void gemm(const Gemm<float>&, const GemmBatch&);
template void gemm(const Gemm<double>&, const GemmBatch&);
template void gemm(const Gemm<bf16>&, const GemmBatch&);
template void gemm(const Gemm<bf16, float>&, const GemmBatch&);

}  // namespace tessera::cuda
