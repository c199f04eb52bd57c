"""The device that the gpu tests run on without a GPU: does it compute, count and refuse what a GPU with CuPy would?"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cupy_on_cpu import running
from helpers import normal

from ep.backend import device_error, to_host

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.gpu, pytest.mark.parametrize("xp", ["cupy"], indirect=True),
              pytest.mark.skipif(not running(), reason="for the real CuPy executed on a CPU (cupy_on_cpu.executed)")]

TRAIN = """
import functools, sys, tempfile
from cupy_on_cpu import executed
import cupy, ep
from ep.datasets import synthetic
from ep.train import experiment, job
synthetic.synthetic_images = functools.partial(synthetic.synthetic_images, 16, 8)  # to save time
job.runs.plot_curves = lambda *arguments: None
experiment.PRESETS["cpu", "synthetic"] |= dict(channels=[4, 3], scale=[2.0], lr=[0.01], train_images=16, test_images=8,
                                               final_test_images=8, epochs=1, flip=True, pad=4)
for options in ("", "--algorithm bptt", "--cost squared-error --connections asymmetric --feedback-update exact",
                "--connections asymmetric --algorithm bptt", "--nudging four-point --connections asymmetric"):
    sys.argv = ["job", *"--preset cpu --dataset synthetic --device cuda --steps-free 4 --steps-nudged 2 --batch-size 8".split(),
                *options.split(), "--out", tempfile.mkdtemp()]
    job.main()
network = ep.engine.prepared(ep.resnet(1, (3,), (8, 8, 3), 3).to(cupy))
ep.relax(network, cupy.zeros((2, 8, 8, 3), "float32"), 2)
print("compiled:", *sorted(set(executed.compiled_by_nvrtc)))
"""


def python(*arguments, **environment):
    """A Python process with the package and these tests on its path."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": path, **environment})


def test_kernels_compute(xp):
    """Generated, hand-written, with threads that wait for each other, and cuBLAS's: numbers against NumPy."""
    a = np.random.default_rng(0).normal(size=(70, 33))
    b = xp.asarray(a)
    np.testing.assert_allclose(to_host(b.sum(0)), a.sum(0), rtol=1e-13)
    np.testing.assert_array_equal(to_host(b.argmax(1)), a.argmax(1))
    np.testing.assert_array_equal(to_host(b[:, ::3].T.copy()), a[:, ::3].T)
    np.testing.assert_allclose(to_host(b.T @ b), a.T @ a, rtol=1e-12)
    raw = xp.RawKernel('extern "C" __global__ void half_of(const float* x, float* y, int n) {'
                       ' int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) y[i] = 0.5f * x[i]; }', "half_of")
    x, y = xp.arange(100, dtype="float32"), xp.empty(100, dtype="float32")
    raw((4,), (32,), (x, y, np.int32(100)))
    np.testing.assert_array_equal(to_host(y), np.arange(100, dtype="float32") / 2)
    reversed_ = xp.RawKernel('extern "C" __global__ void turned(float* x) { __shared__ float s[64]; int i = threadIdx.x;'
                             ' s[i] = x[i]; __syncthreads(); x[i] = s[63 - i]; }', "turned")
    reversed_((1,), (64,), (x,))
    np.testing.assert_array_equal(to_host(x[:64]), np.arange(64)[::-1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_products(xp, dtype):
    """Matrices and vectors, transposed or not; FLOPs are counted."""
    from cupy_on_cpu.executed import gemms
    A, B, v = (normal(np, shape, k, dtype) for k, shape in enumerate(((5, 7), (7, 3), (7,))))
    a, b, w, before = xp.asarray(A), xp.asarray(B), xp.asarray(v), gemms()["flops"]
    for found, expected in ((a @ b, A @ B), (b.T @ a.T, B.T @ A.T), (a @ w, A @ v), (w @ b, v @ B), (w @ w, v @ v)):
        np.testing.assert_allclose(to_host(found), expected, rtol=1e-5)
    assert gemms()["flops"] - before >= 2 * 5 * 7 * 3


def test_counts(xp):
    """Launches, the bytes of their arrays, uploads, waits, and bytes in use."""
    from cupy_on_cpu import device
    x = xp.asarray(np.ones(1000, "float32"))
    before, moved_before, device.launches[:] = device.count.copy(), sum(device.moved.values()), []
    y = x + x
    assert device.launches == ["cupy_add__float32_float32_float32"]
    assert sum(device.moved.values()) - moved_before == 3 * 4000
    float(y[0])
    changes = device.count - before
    assert (changes["launches"], changes["synchronisations"], changes["bytes in use"]) == (1, 1, 4000)
    xp.asarray(np.ones(3))
    assert device.count["uploads"] == before["uploads"] + 1


@pytest.mark.parametrize("tf32,expected", [("0", "68"), ("1", "77")])
def test_products_are_full_float32_unless_tf32_is_asked_for(xp, tf32, expected):
    """By CUPY_TF32=1: what cuBLAS is told, by CuPy and by blas.py. Ours computes in float32 all the same."""
    program = ("import operator\nfrom cupy_on_cpu import executed\nfrom ep.engine.blas import matmul\n"
               "a = executed.cupy.ones((8, 8), dtype='float32')\n"
               "for product in (operator.matmul, matmul):\n"
               "    assert float(product(a, a)[0, 0]) == 8\n    print(executed.compute_type())")
    done = python("-c", program, CUPY_TF32=tf32)
    assert done.stdout.split() == [expected] * 2, done.stderr[-2000:]


def test_the_errors_of_a_gpu_are_known(xp):
    """The classes of the real CuPy: out of memory is Python's MemoryError too, the others are told by their module."""
    from cupy_backends.cuda.api.runtime import CUDARuntimeError
    from cupy_backends.cuda.libs.cublas import CUBLASError
    from cupy_backends.cuda.libs.nvrtc import NVRTCError
    assert issubclass(xp.cuda.memory.OutOfMemoryError, MemoryError)
    not_compiled = xp.cuda.compiler.CompileException("error: x is undefined", "source", "kernel", (), "nvrtc")
    for error in (CUDARuntimeError(700), CUBLASError(13), NVRTCError(2), not_compiled):
        assert "the GPU failed" in str(device_error(error)), error


def test_fresh_memory_is_poisoned(xp):
    assert float(xp.empty(1, dtype="float32")[0]) < -4e8


def test_cupy_records_no_graph_with_cublas_in_it(xp, monkeypatch):
    """Why ep/engine/blas.py is there: CuPy 14.2 refuses cuBLAS while a stream is captured. If this fails, look again."""
    from cupy_on_cpu import device
    a = xp.ones((3, 3), dtype="float32")
    monkeypatch.setattr(device, "capturing", True)
    with pytest.raises(NotImplementedError, match="cuBLAS API during stream capture is currently unsupported"):
        a @ a


@pytest.mark.parametrize("capability", ["80", "90"])
def test_every_kernel_compiles_with_nvrtc(xp, capability):
    """Hand-written and generated ones of the main job and its variants, for A100 and H100."""
    from ep.engine.kernels import KERNELS
    done = python("-c", TRAIN, CUPY_ON_CPU_NVRTC="1", FAKE_COMPUTE_CAPABILITY=capability)
    if "libnvrtc" in done.stderr and os.environ.get("REQUIRE_GPU") != "1":
        pytest.skip("NVRTC is not installed: pip install 'nvidia-cuda-nvrtc==13.*' 'nvidia-cuda-runtime==13.*'")
    assert done.returncode == 0, done.stderr[-2000:]
    compiled = done.stdout.partition("compiled: ")[2].split()
    missing = {f"ep_{name}" for name in KERNELS} - set(compiled)
    others = "take copy__uint8_float32 square all absolute max argmax sum exp log multiply".split()
    missing |= {name for name in others if not any(kernel.startswith(f"cupy_{name}") for kernel in compiled)}
    assert not missing and len(compiled) > 40, compiled


def test_the_table_of_the_docs(xp):
    """docs/gpu.md shows what count.py counts today; memory by the formula is within 10% of it."""
    done = python("-m", "cupy_on_cpu.count", CUPY_ON_CPU_NVRTC="0")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() in (ROOT / "docs" / "gpu.md").read_text()
    for line in done.stdout.split("\n\n")[1].splitlines()[2:]:
        _, counted, formula = (float(cell.replace(",", "")) for cell in line.strip("| ").split("|"))
        assert abs(formula / counted - 1) < 0.1
