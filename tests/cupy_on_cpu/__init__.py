"""CuPy without a GPU: how to run the gpu tests on a CPU, and a counter of what a GPU would be asked to do.

    executed.py   the real CuPy; each kernel it launches is compiled by g++ and run on host memory
    played.py     what a GPU records as a CUDA graph, played by it
    count.py      launches, bytes, FLOPs and memory of a training step, and what they would take on a GPU

The first is a pytest plugin; it makes the fixture `xp` give its CuPy, and nothing else changes:

    PYTHONPATH=tests REQUIRE_GPU=1 pytest -m gpu -p cupy_on_cpu.executed

docs/cupy_without_gpu.md says what it shows and what it cannot. It needs CuPy and g++, and relies on private parts of CuPy 14.2.
"""

import sys


def running():
    """Whether the plugin is at work. If not, there is a real GPU, or no CuPy."""
    return "cupy_on_cpu.executed" in sys.modules


def observe(function):
    """What calling function() makes the device do: (synchronisations, float64 results). Where the plugin is `running()`."""
    from cupy_on_cpu import device
    before, device.launches[:] = device.count["synchronisations"], []
    function()
    return device.count["synchronisations"] - before, [name for name in device.launches if "float64" in name]
