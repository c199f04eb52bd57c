"""NumPy or CuPy: the only file that names cupy.

The rest of the package asks an array where it lives (`xp = array_module(a)`) and then writes `xp.zeros(...)`. Random
numbers are always drawn by NumPy on the host and copied, so both backends start from the same weights.
"""

import os
import sys
from types import ModuleType
from typing import Any

import numpy as np

from .errors import EPError

Array = np.ndarray  # in every hint: a NumPy array or, with the same methods, a CuPy array
States = list[Array]  # [s_1 ... s_L]
Gradient = dict[str, Array]  # {"1.W": array, ...}, as parameters are kept

INSTALL = "install it with: pip install 'cupy-cuda12x[ctk]' (CUDA 12) or 'cupy-cuda13x[ctk]' (CUDA 13)"
DOCTOR = "python -m ep.doctor says what is missing"


def array_module(a: object) -> ModuleType:
    """The module whose functions take `a`: cupy for a CuPy array, numpy for everything else."""
    cupy = sys.modules.get("cupy")  # an array cannot be CuPy's before someone has imported cupy
    return cupy if cupy is not None and isinstance(a, cupy.ndarray) else np


def to_host(a: Any) -> np.ndarray:
    """`a` as a NumPy array (a copy if it lived on a device)."""
    return np.asarray(a) if array_module(a) is np else a.get()


def device_module(device: str = "auto") -> ModuleType:
    """numpy or cupy for `device` = "cpu", "cuda" or "auto" (cuda where it works, else cpu; where CuPy is broken, it says why).

    Raises EPError for "cuda" without CuPy, with CuPy but without a working GPU, and for any other word.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise EPError(f"unknown device '{device}': expected auto, cpu or cuda")
    if device == "cpu":
        return np
    try:
        return _working_cupy()
    except EPError as error:
        if device == "cuda":
            raise
        if sys.modules.get("cupy"):  # a CPU was hardly meant; without CuPy it was
            print(f"using the CPU: {error}", flush=True)
        return np


def imported_cupy():
    """cupy, whether a GPU works with it or not. Raises EPError if it cannot be imported."""
    try:
        import cupy
    except ImportError as error:
        raise EPError(f"--device cuda needs CuPy, which cannot be imported ({error}): {INSTALL}, "
                      f"or use --device cpu; {DOCTOR}") from None
    return cupy


def tf32():
    """Whether CuPy lets cuBLAS round the factors of float32 products to 10 bits (TF32): its own variable says so."""
    return os.environ.get("CUPY_TF32", "0") not in ("", "0")


def device_error(error):
    """The EPError for memory that was not there, and for all else that CuPy, CUDA, cuBLAS raise; None for another exception."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, MemoryError):  # of the host or, since CuPy's is one too, of a GPU
        return EPError(f"out of memory ({reason}): use a smaller --chunk or --batch-size, or fewer --channels", exit_code=1)
    if type(error).__module__.split(".")[0] in ("cupy", "cupy_backends"):
        return EPError(f"the GPU failed ({reason}): {DOCTOR}", exit_code=1)
    return None


def _working_cupy():
    """cupy after a self-test (its own is_available() is True on machines where no kernel can be compiled)."""
    cupy = imported_cupy()
    try:
        a = cupy.arange(6, dtype=cupy.float32).reshape(2, 3)
        ok = float((a @ a.T * 2.0).sum()) == 166.0  # matmul, elementwise and reduction kernels
    except (RuntimeError, ImportError, cupy.cuda.compiler.CompileException) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EPError(f"CuPy {cupy.__version__} is installed but no GPU works with it ({first_line}): check the driver "
                      f"with nvidia-smi and, if libraries are missing, {INSTALL}, or use --device cpu; {DOCTOR}") from None
    if not ok:
        raise EPError(f"CuPy is installed but computes wrong numbers on this GPU: use --device cpu; {DOCTOR}")
    return cupy
