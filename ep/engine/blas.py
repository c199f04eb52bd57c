"""Products of matrices on a GPU: cuBLAS asked directly, because a CUDA graph can record that, and cannot record CuPy's own.

CuPy refuses `a @ b` while a stream is being recorded. The library below it does not, so `matmul` calls it through ctypes, with
a workspace of its own, in CuPy's current stream. Where that library cannot be found, `matmul` is CuPy's product, and nothing
can be recorded: `direct()` is None.
"""

import ctypes
from functools import cache

from ..backend import array_module, tf32

WORKSPACE = 1 << 26  # bytes that cuBLAS may use
FLOATS = {"float32": (ctypes.c_float, 0, 68), "float64": (ctypes.c_double, 1, 70)}  # cudaDataType, cublasComputeType_t
TF32 = 77  # CUBLAS_COMPUTE_32F_FAST_TF32
DEFAULT = -1  # CUBLAS_GEMM_DEFAULT: cuBLAS chooses how


def matmul(a, b):
    """a @ b for matrices (m, k) and (k, n); either may be the transpose of one that lies in rows."""
    blas = direct(array_module(a)) if a.dtype == b.dtype and str(a.dtype) in FLOATS else None
    return a @ b if blas is None else blas(a, b)


def direct(xp):
    """What multiplies on the current device, or None: in NumPy, and where CuPy's cuBLAS cannot be found."""
    return _direct(xp, xp.cuda.Device().id) if hasattr(xp, "ElementwiseKernel") else None


@cache
def _direct(cupy, device):
    cupy.cuda.device.get_cublas_handle()  # loads the library
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    for name in (f"libcublas.so.{major}", f"cublas64_{major}.dll"):  # which is there by now: only its name is looked up
        try:
            return Blas(cupy, ctypes.CDLL(name))
        except (OSError, AttributeError):
            pass
    return None


class Blas:
    """A handle of cuBLAS, its workspace, and the product of two matrices."""

    def __init__(self, cupy, library):
        self.cupy, self.handle = cupy, ctypes.c_void_p()
        self.gemm, self.stream = library.cublasGemmEx, library.cublasSetStream_v2
        self.set_workspace = library.cublasSetWorkspace_v2
        self.workspace = cupy.cuda.alloc(WORKSPACE)
        self.check(library.cublasCreate_v2(ctypes.byref(self.handle)))

    def check(self, status):
        if status:
            raise RuntimeError(f"cuBLAS failed with status {status}")

    def __call__(self, a, b):
        """cuBLAS counts in columns, and a matrix in rows is the transpose of one in columns: it is asked for b^T a^T."""
        cupy = self.cupy
        (m, k), n = a.shape, b.shape[1]
        (a, a_turned), (b, b_turned) = rows(a), rows(b)
        c, (number, kind, compute) = cupy.empty((m, n), a.dtype), FLOATS[str(a.dtype)]
        one, zero = number(1), number(0)
        if number is ctypes.c_float and tf32():
            compute = TF32
        self.check(self.stream(self.handle, ctypes.c_void_p(cupy.cuda.get_current_stream().ptr)))
        self.check(self.set_workspace(self.handle, ctypes.c_void_p(self.workspace.ptr), ctypes.c_size_t(WORKSPACE)))
        self.check(self.gemm(
            self.handle, int(b_turned), int(a_turned), n, m, k, ctypes.byref(one), ctypes.c_void_p(b.data.ptr), kind, b.shape[1],
            ctypes.c_void_p(a.data.ptr), kind, a.shape[1], ctypes.byref(zero), ctypes.c_void_p(c.data.ptr), kind, n, compute,
            DEFAULT))
        return c


def rows(a):
    """(matrix that lies in rows, whether it is the transpose of a)."""
    if a.flags.c_contiguous:
        return a, False
    if a.flags.f_contiguous:
        return a.T, True
    return array_module(a).ascontiguousarray(a), False
