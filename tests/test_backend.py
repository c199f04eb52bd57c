"""Choosing a device: what works is taken, and what does not is one sentence: what is missing, and what to install."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from ep.backend import array_module, device_error, device_module, tf32, to_host
from ep.errors import EPError


def broken_cupy(error):
    """A CuPy that imports, but whose first array raises `error`: what an installation without a GPU does."""
    cupy = ModuleType("cupy")
    cupy.__version__, cupy.float32, cupy.ndarray = "14.2.0", np.float32, type("ndarray", (), {})
    cupy.cuda = SimpleNamespace(compiler=SimpleNamespace(CompileException=type("CompileException", (Exception,), {})))

    def arange(*_, **__):
        raise error if error is not None else cupy.cuda.compiler.CompileException("no nvrtc\nline 2")

    cupy.arange = arange
    return cupy


def test_the_cpu_is_numpy():
    """cpu = numpy, whatever is installed."""
    assert device_module("cpu") is np


def test_an_unknown_device_is_refused():
    """The three words are named."""
    with pytest.raises(EPError, match="unknown device 'gpu': expected auto, cpu or cuda"):
        device_module("gpu")


def test_without_cupy(monkeypatch, capsys):
    """cuda says that CuPy cannot be imported and how to install it; auto takes the CPU."""
    monkeypatch.setitem(sys.modules, "cupy", None)  # what makes `import cupy` an ImportError
    with pytest.raises(EPError, match=r"needs CuPy, which cannot be imported .* pip install 'cupy-cuda12x\[ctk\]'"):
        device_module("cuda")
    assert device_module("auto") is np
    assert array_module(np.zeros(1)) is np and capsys.readouterr().out == ""


@pytest.mark.parametrize("error,reason", [
    (RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected"), "cudaErrorNoDevice"),
    (ImportError("libnvrtc.so.13: cannot open shared object file"), "libnvrtc"), (None, "no nvrtc")])
def test_with_cupy_but_without_a_gpu(monkeypatch, capsys, error, reason):
    """cuda says that CuPy is there but no GPU works, with CuPy's first line; auto says so too, once, and takes the CPU."""
    monkeypatch.setitem(sys.modules, "cupy", broken_cupy(error))
    with pytest.raises(EPError, match=rf"CuPy 14.2.0 is installed but no GPU works .*{reason}.* nvidia-smi") as caught:
        device_module("cuda")
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    capsys.readouterr()
    assert device_module("auto") is np and capsys.readouterr().out == f"using the CPU: {caught.value}\n"


def test_a_gpu_that_computes_wrong_numbers_is_refused(monkeypatch):
    """The self-test compares a number, not only the absence of errors."""
    cupy = broken_cupy(None)
    cupy.arange = lambda *_, **__: np.ones(6, np.float32)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(EPError, match="wrong numbers"):
        device_module("cuda")


def test_whose_error_it_is():
    """CuPy's own modules raise what is a GPU's, whatever class it derives from; a RuntimeError of ours is a bug."""
    for module in ("cupy.cuda.memory", "cupy.cuda.compiler", "cupy_backends.cuda.libs.cublas"):
        error = device_error(type("E", (Exception,), {"__module__": module})("first line\nsecond"))
        assert str(error).startswith("the GPU failed (first line): python -m ep.doctor") and error.exit_code == 1
    assert str(device_error(MemoryError())).startswith("out of memory (MemoryError): use a smaller --chunk")
    assert device_error(RuntimeError("cupy")) is None


@pytest.mark.parametrize("value, expected", [(None, False), ("0", False), ("1", True)])
def test_tf32_is_cupys_own_variable(monkeypatch, value, expected):
    monkeypatch.delenv("CUPY_TF32", raising=False)
    if value:
        monkeypatch.setenv("CUPY_TF32", value)
    assert tf32() is expected


def test_arrays_know_their_module(xp):
    """array_module of an array, to_host back: the same numbers and dtype, as a NumPy array."""
    host = np.arange(6, dtype=np.float32).reshape(2, 3)
    a = xp.asarray(host)
    assert array_module(a) is xp and array_module(host) is np
    assert type(to_host(a)) is np.ndarray and to_host(a).dtype == host.dtype and np.array_equal(to_host(a), host)
