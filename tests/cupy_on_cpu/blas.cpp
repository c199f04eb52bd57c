// The part of cuBLAS that CuPy's products of real and complex matrices use, and ep/engine/blas.py's, by the definition, on host memory; it counts.
// Matrices are column-major. Every other function of cuBLAS answers "not supported" (executed.py adds those).
#include <complex>
#include <cstddef>

typedef std::complex<float> c32;
typedef std::complex<double> c64;
typedef long long int64;

extern "C" {
int64 blas_calls = 0, blas_flops = 0, blas_bytes = 0;
int blas_dry = 0, blas_compute_type = -1;
}

static float conjugate(float x) { return x; }
static double conjugate(double x) { return x; }
template <class T>
static std::complex<T> conjugate(std::complex<T> x) {
  return std::conj(x);
}

static void count(int64 m, int64 n, int64 k, int64 size) {
  blas_calls++;
  blas_flops += 2 * m * n * k;
  blas_bytes += (m * k + k * n + m * n) * size;
}

// C = alpha op(A) op(B) + beta C,  C (m, n);  op: 0 nothing, 1 transpose, 2 conjugate transpose
template <class T>
static void gemm(int op_a, int op_b, int m, int n, int k, T alpha, const T* A, int64 lda, const T* B, int64 ldb, T beta, T* C,
                 int64 ldc) {
  if (blas_dry) return;
  for (int64 j = 0; j < n; j++)
    for (int64 i = 0; i < m; i++) {
      T sum = 0;
      for (int64 p = 0; p < k; p++) {
        T a = op_a ? A[p + i * lda] : A[i + p * lda], b = op_b ? B[j + p * ldb] : B[p + j * ldb];
        sum += (op_a == 2 ? conjugate(a) : a) * (op_b == 2 ? conjugate(b) : b);
      }
      T& c = C[i + j * ldc];
      c = alpha * sum + (beta == T(0) ? T(0) : beta * c);  // cuBLAS does not read C if beta is 0
    }
}

#define CUBLAS extern "C" int
CUBLAS cublasCreate_v2(void** handle) {
  *handle = (void*)1;
  return 0;
}
CUBLAS cublasDestroy_v2(void*) { return 0; }
CUBLAS cublasGetVersion_v2(void*, int* version) {
  *version = 130000;
  return 0;
}
CUBLAS cublasSetStream_v2(void*, void*) { return 0; }
CUBLAS cublasSetWorkspace_v2(void*, void*, size_t) { return 0; }
CUBLAS cublasGetStream_v2(void*, void** stream) {
  *stream = 0;
  return 0;
}
static int pointer_mode = 0, math_mode = 0;
CUBLAS cublasSetPointerMode_v2(void*, int mode) {
  pointer_mode = mode;
  return 0;
}
CUBLAS cublasGetPointerMode_v2(void*, int* mode) {
  *mode = pointer_mode;
  return 0;
}
CUBLAS cublasSetMathMode(void*, int mode) {
  math_mode = mode;
  return 0;
}
CUBLAS cublasGetMathMode(void*, int* mode) {
  *mode = math_mode;
  return 0;
}

#define GEMM(letter, T)                                                                                                 \
  CUBLAS cublas##letter##gemm_v2(void*, int op_a, int op_b, int m, int n, int k, const T* alpha, const T* A, int lda,   \
                                 const T* B, int ldb, const T* beta, T* C, int ldc) {                                   \
    count(m, n, k, sizeof(T));                                                                                          \
    gemm<T>(op_a, op_b, m, n, k, *alpha, A, lda, B, ldb, *beta, C, ldc);                                                \
    return 0;                                                                                                           \
  }                                                                                                                     \
  CUBLAS cublas##letter##gemv_v2(void*, int op, int m, int n, const T* alpha, const T* A, int lda, const T* x, int dx,  \
                                 const T* beta, T* y, int dy) {                                                         \
    count(op ? n : m, 1, op ? m : n, sizeof(T));                                                                        \
    gemm<T>(0, op ? 0 : 1, 1, op ? n : m, op ? m : n, *alpha, x, dx, A, lda, *beta, y, dy); /* y' = x' op(A)' */        \
    return 0;                                                                                                           \
  }
GEMM(S, float)
GEMM(D, double)
GEMM(C, c32)
GEMM(Z, c64)

#define DOT(name, T)                                                                       \
  CUBLAS cublas##name##_v2(void*, int n, const T* x, int dx, const T* y, int dy, T* out) { \
    count(1, 1, n, sizeof(T));                                                             \
    gemm<T>(0, 1, 1, 1, n, T(1), x, dx, y, dy, T(0), out, 1);                              \
    return 0;                                                                              \
  }
DOT(Sdot, float)
DOT(Ddot, double)
DOT(Cdotu, c32)
DOT(Zdotu, c64)

// cudaDataType: 0 float, 1 double, 4 and 5 complex; all three matrices of one type
CUBLAS cublasGemmEx(void* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* A, int type_a,
                    int lda, const void* B, int type_b, int ldb, const void* beta, void* C, int type_c, int ldc,
                    int compute_type, int) {
  if (type_a != type_b || type_a != type_c) return 15;
  blas_compute_type = compute_type;
#define CASE(letter, T)                                                                                                  \
  return cublas##letter##gemm_v2(handle, op_a, op_b, m, n, k, (const T*)alpha, (const T*)A, lda, (const T*)B, ldb, \
                                 (const T*)beta, (T*)C, ldc);
  switch (type_a) {
    case 0: CASE(S, float)
    case 1: CASE(D, double)
    case 4: CASE(C, c32)
    case 5: CASE(Z, c64)
  }
  return 15;
}
