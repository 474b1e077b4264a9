// Matrix products: f32 (or tf32) through cuBLASLt, whose descriptors and algorithms are found once for each
// shape, and f64 through cuBLAS. Both count in columns: a row-major C = op(A) op(B) is their C^T = op(B)^T
// op(A)^T, where every matrix is read as its own transpose, so that the operands change places and nothing
// else changes.
#include <cublasLt.h>
#include <cublas_v2.h>

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

// All that an algorithm is chosen by.
struct Key {
  bool transpose_a, transpose_b, bias, adds, tf32;
  int64_t m, n, k, lda, ldb, ldc, count, stride_a, stride_b, stride_c;
  std::array<unsigned, 3> alignment;  // of a, b and c, in bytes
  auto operator<=>(const Key&) const = default;
};

unsigned alignment(const void* at) {
  unsigned bytes = 16;  // what vector loads need; a plan must not depend on where the arena put a block
  while (reinterpret_cast<uintptr_t>(at) % bytes != 0) bytes /= 2;
  return bytes;
}

// What cuBLASLt needs for the products of one key.
class Plan {
 public:
  Plan(cublasLtHandle_t handle, const Key& key, size_t workspace, const float* bias) {
    const cublasComputeType_t compute = key.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    TESSERA_CUBLAS_CALL(cublasLtMatmulDescCreate(&product_, compute, CUDA_R_32F));
    set(CUBLASLT_MATMUL_DESC_TRANSA, key.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, key.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, key.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT);
    if (bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);  // the heuristic may look at it
    const auto layout = [&](cublasLtMatrixLayout_t& made, int64_t rows, int64_t columns, int64_t ld,
                            int64_t stride) {
      TESSERA_CUBLAS_CALL(
          cublasLtMatrixLayoutCreate(&made, CUDA_R_32F, uint64_t(rows), uint64_t(columns), ld));
      const int32_t count = int32_t(key.count);
      TESSERA_CUBLAS_CALL(
          cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
      TESSERA_CUBLAS_CALL(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                           &stride, sizeof stride));
    };
    layout(left_, key.transpose_b ? key.k : key.n, key.transpose_b ? key.n : key.k, key.ldb, key.stride_b);
    layout(right_, key.transpose_a ? key.m : key.k, key.transpose_a ? key.k : key.m, key.lda, key.stride_a);
    layout(result_, key.n, key.m, key.ldc, key.stride_c);

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
    TESSERA_CHECK_AS(Exit::device, status == CUBLAS_STATUS_SUCCESS && count > 0,
                     "CUDA: cuBLASLt has no algorithm for the product (m,n,k) = (", key.m, ",", key.n, ",",
                     key.k, ") with lda ", key.lda, ", ldb ", key.ldb, ", ldc ", key.ldc, ": ",
                     cublasGetStatusString(status));
    algorithm_ = found.algo;
  }
  ~Plan() {
    for (cublasLtMatrixLayout_t layout : {left_, right_, result_})
      if (layout) cublasLtMatrixLayoutDestroy(layout);
    if (product_) cublasLtMatmulDescDestroy(product_);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  void run(cublasLtHandle_t handle, const Gemm<float>& g, void* workspace, size_t bytes,
           cudaStream_t stream) {
    if (g.bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
    const float alpha = 1;
    check(cublasLtMatmul(handle, product_, &alpha, g.b, left_, g.a, right_, &g.beta, g.c, result_, g.c,
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

// C's rows start as beta C + bias, or as beta C.
template <class T>
struct Start {
  int64_t n, ldc;
  T beta;
  const T* bias;
  T* c;
  TESSERA_FN void operator()(int64_t i) const {
    T* const at = c + i / n * ldc + i % n;
    *at = (beta == T(0) ? T(0) : beta * *at) + (bias ? bias[i % n] : T(0));
  }
};

template <class T>
void start(const Gemm<T>& g) {
  elements(g.m * g.n, Start<T>{g.n, g.ldc, g.beta, g.bias, g.c});
}

// Leaves a product without a bias that is added to C.
template <class T>
void start_with_bias(Gemm<T>& g) {
  start(g);
  g.bias = nullptr;
  g.beta = 1;
}

void multiply(const Gemm<float>& given, const GemmBatch& batch) {
  constexpr unsigned kVector = 16;  // bytes: what the epilogue may read a bias by
  Gemm<float> g = given;
  if (g.bias && (g.n == 1 || g.k == 1 || alignment(g.bias) < kVector)) start_with_bias(g);
  Products& own = products();
  const Key key{g.transpose_a,
                g.transpose_b,
                g.bias != nullptr,
                g.beta != 0,
                use_tf32(),
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
                {alignment(g.a), alignment(g.b), alignment(g.c)}};
  std::unique_ptr<Plan>& plan = own.plans[key];
  if (!plan) plan = std::make_unique<Plan>(own.lt, key, Products::kWorkspace, g.bias);
  plan->run(own.lt, g, own.workspace, Products::kWorkspace, context().stream);
}

void multiply(const Gemm<double>& given, const GemmBatch& batch) {
  Gemm<double> g = given;
  if (g.bias) start_with_bias(g);  // cuBLAS knows none
  const double alpha = 1;
  check(cublasDgemmStridedBatched(products().blas, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                                  g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, int(g.n), int(g.m), int(g.k),
                                  &alpha, g.b, int(g.ldb), batch.stride_b, g.a, int(g.lda), batch.stride_a,
                                  &g.beta, g.c, int(g.ldc), batch.stride_c, int(batch.count)),
        "cublasDgemmStridedBatched");
}

}  // namespace

template <class T>
void gemm(const Gemm<T>& g, const GemmBatch& batch) {
  multiply(g, batch);
}

template <class T>
void gemm(const Gemm<T>& g) {
  if (g.k == 0) return start(g);
  multiply(g, {});
}

template void gemm(const Gemm<float>&);
template void gemm(const Gemm<double>&);
template void gemm(const Gemm<float>&, const GemmBatch&);
template void gemm(const Gemm<double>&, const GemmBatch&);

}  // namespace tessera::cuda
