"""Pytest plugin: the real CuPy on the device of device.py, its kernels compiled by g++ and executed on host memory.

Each source that CuPy would give to NVRTC, its own and those of ElementwiseKernel and RawKernel, is compiled against
cuda_on_cpu.h into a library of its own, kept in a cache folder; cuBLAS is blas.cpp. Settings, by the environment:

    CUPY_ON_CPU_CACHE         folder of compiled kernels (default: cupy-on-cpu in the temporary directory); may be shared
    CUPY_ON_CPU_NVRTC=1       let NVRTC compile each kernel too, for FAKE_COMPUTE_CAPABILITY (80, 90 ...); a kernel that NVRTC
                              refuses is an error (pip install 'nvidia-cuda-nvrtc==13.*' 'nvidia-cuda-runtime==13.*')

Importing this module before anything else imports cupy does it all; `device.count` and `gemms()` then say what was asked.
"""

import ctypes
import glob
import hashlib
import importlib
import os
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

os.environ["CUPY_ACCELERATORS"] = ""  # CuPy's default reductions, CUB, are compiled into it for a GPU
os.environ["CUPY_CACHE_IN_MEMORY"] = "1"  # what is compiled here must not meet what a GPU has in its cache

from cupy_on_cpu import device

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("CUPY_ON_CPU_CACHE") or Path(tempfile.gettempdir(), "cupy-on-cpu"))
NVRTC = os.environ.get("CUPY_ON_CPU_NVRTC") == "1"
FLAGS = ["-std=c++17", "-O1", "-w", "-fPIC", "-fpermissive", "-fno-strict-aliasing"]
CUBLAS_NAMES = re.compile(r"\b(cublas\w+)(?:@\S+)?$", re.MULTILINE)
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')

compiled_by_nvrtc = []  # names of the kernels


# --- compiling --------------------------------------------------------------------------------------------------------


def _write(path, text):
    """Other processes that share the cache see all of the file or nothing; so they do in `_build`."""
    if not path.exists():
        temporary = path.with_name(f"{os.getpid()}-{path.name}")
        temporary.write_text(text)
        os.replace(temporary, path)
    return path


def _build(target, *command):
    """Run a compiler that writes `target`, unless it is there."""
    if not target.exists():
        temporary = target.with_name(f"{os.getpid()}-{target.name}")
        done = subprocess.run([*map(str, command), "-o", str(temporary)], capture_output=True, text=True)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            raise RuntimeError("g++ failed: " + " ".join(errors or done.stderr.splitlines())[:1000])
        os.replace(temporary, target)
    return target


def _digest(*texts):
    return hashlib.sha1("\0".join(map(str, texts)).encode()).hexdigest()[:20]


def _load_cublas():
    """Our cuBLAS in the place of the library that CuPy's extension module asks for."""
    import cupy_backends
    [wrapper] = glob.glob(os.path.join(cupy_backends.__path__[0], "cuda/libs/cublas.*.so"))
    listed = subprocess.run(["nm", "-D", "--undefined-only", wrapper], capture_output=True, text=True, check=True).stdout
    needed = set(CUBLAS_NAMES.findall(listed))
    source = (HERE / "blas.cpp").read_text()
    folder = CACHE / _digest(source, sorted(needed))
    folder.mkdir(exist_ok=True, parents=True)
    own = _build(folder / "blas.o", "g++", "-O2", "-w", "-fPIC", "-c", HERE / "blas.cpp")
    listed = subprocess.run(["nm", "--defined-only", own], capture_output=True, text=True, check=True).stdout
    missing = sorted(needed - set(CUBLAS_NAMES.findall(listed)))
    rest = _write(folder / "missing.c", "".join(f"int {name}(void) {{ return 15; }}\n" for name in missing))
    versions = _write(folder / "versions", "libcublas.so.13 { global: *; };\n")
    library = _build(folder / "libcublas.so.13", "g++", "-shared", "-fPIC", "-Wl,-soname,libcublas.so.13",
                     f"-Wl,--version-script,{versions}", own, "-x", "c", rest)
    loaded = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    importlib.import_module("cupy_backends.cuda.libs.cublas")  # now, or CuPy looks for the real libraries
    return loaded


def _includes():
    import cupy
    return [f"-I{HERE}", f"-I{HERE / 'include'}", f"-I{Path(cupy.__file__).parent / '_core' / 'include'}"]


def _library_of(source):
    """(file of the compiled source, names of its kernels): in the library, kernel i is run_i and counted by bytes_i."""
    names = KERNEL.findall(source)
    waits = int("__syncthreads" in source)
    body = re.sub(r'extern\s+"C"\s+__global__', "__global__", source)
    for i, name in enumerate(names):
        body += (f"\nstatic void body_{i}(void** p) {{ call({name}, p); }}"
                 f'\nextern "C" void run_{i}(unsigned* g, unsigned* b, void** p) {{ launch(body_{i}, g, b, p, {waits}); }}'
                 f'\nextern "C" size_t bytes_{i}(void** p) {{ return bytes_of_all({name}, p); }}\n')
    headers = "".join((HERE / name).read_text() for name in ("cuda_on_cpu.h", "cupy_kernel.h"))
    folder = CACHE / _digest(headers, FLAGS, cupy.__version__)
    folder.mkdir(exist_ok=True, parents=True)
    _write(folder / "cupy_kernel.h", f'#include "{HERE / "cupy_kernel.h"}"\n')
    _build(folder / "cupy_kernel.h.gch", "g++", *FLAGS, *_includes(), "-x", "c++-header", HERE / "cupy_kernel.h")
    cpp = _write(folder / f"{_digest(body)}.cpp", '#include "cupy_kernel.h"\n' + body)
    return _build(cpp.with_suffix(".so"), "g++", *FLAGS, "-shared", f"-I{folder}", *_includes(), cpp), names


def _compile(source, options=(), arch=None, filename="kernel.cu", name_expressions=None, *others, **keywords):
    """What CuPy calls instead of NVRTC. The "binary" it gets, and later loads, names our library."""
    if name_expressions:
        raise NotImplementedError("kernels that are C++ templates are not executed here")
    if NVRTC:
        _compile_by_nvrtc(source, options, arch, filename, name_expressions, *others, **keywords)
        compiled_by_nvrtc.extend(KERNEL.findall(source))
    library, names = _library_of(source)
    return "|".join([str(library), *names]).encode(), None


# --- launching --------------------------------------------------------------------------------------------------------

_sizes = ctypes.c_uint * 3


@cache
def _kernel(module, name):
    """(what runs it, what counts its bytes), from the "binary" that `_compile` returned."""
    path, *names = module.decode().split("|")
    library, number = ctypes.CDLL(path), names.index(name)
    run, count = library[f"run_{number}"], library[f"bytes_{number}"]
    run.argtypes, run.restype = [_sizes, _sizes, ctypes.c_void_p], None
    count.argtypes, count.restype = [ctypes.c_void_p], ctypes.c_size_t
    return run, count


def _launch(name, module, grid, block, parameters):
    run, count = _kernel(module, name)
    if not device.dry:
        run(_sizes(*grid), _sizes(*block), parameters)
    return count(parameters)


def gemms(dry=None):
    """{"calls", "flops", "bytes"} of cuBLAS so far; dry: whether later calls compute nothing."""
    if dry is not None:
        ctypes.c_int.in_dll(_cublas, "blas_dry").value = dry
    return {name: ctypes.c_longlong.in_dll(_cublas, f"blas_{name}").value for name in ("calls", "flops", "bytes")}


def compute_type():
    """How the last product was to be computed, a cublasComputeType_t: 68 float32, 77 float32 with TF32 factors."""
    return ctypes.c_int.in_dll(_cublas, "blas_compute_type").value


# --- as a plugin ------------------------------------------------------------------------------------------------------


@pytest.hookimpl(trylast=True)  # when its fixtures have been taken down
def pytest_runtest_teardown(item):
    """Every test fails that lets something write beyond the end of an array (test_planted_gpu_bugs.py looks at its own)."""
    found = device.found_overruns()
    assert not found, f"{item.nodeid}: {'; '.join(found)}"


# --- at import --------------------------------------------------------------------------------------------------------

device.install()
_cublas = _load_cublas()

import cupy  # noqa: E402 - after the device is in place
from cupy.cuda import compiler  # noqa: E402

from cupy_on_cpu.played import Played  # noqa: E402
from ep.engine import graph  # noqa: E402

graph.Recorded = Played

cupy.cuda.set_allocator(None)  # no memory pool: each array has guards of its own, and is counted when it is freed
_compile_by_nvrtc = compiler._compile_using_nvrtc_no_warning
compiler._compile_using_nvrtc_no_warning = _compile
device.launch_kernel = _launch
if not NVRTC:
    compiler._get_nvrtc_version = lambda: (13, 0)
    compiler._preprocess = lambda *_: ""
    compiler._get_arch_for_options_for_nvrtc = lambda arch=None: (f"-arch=sm_{arch}", "cubin")
