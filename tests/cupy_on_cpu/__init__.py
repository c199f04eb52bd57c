"""CuPy without a GPU: two ways to run the gpu tests on a CPU, and a counter of what a GPU would be asked to do.

    executed.py   the real CuPy; each kernel it launches is compiled by g++ and run on host memory        needs CuPy, g++
    rules.py      a stand-in for CuPy on NumPy that keeps CuPy's rules and refuses what CuPy refuses       needs nothing
    played.py     what a GPU records as a CUDA graph, played by the first
    count.py      launches, bytes, FLOPs and memory of a training step, and what they would take on a GPU  needs CuPy, g++

The first two are pytest plugins; they make the fixture `xp` give their CuPy, and nothing else changes:

    PYTHONPATH=tests REQUIRE_GPU=1 pytest -m gpu -p cupy_on_cpu.executed
    PYTHONPATH=tests REQUIRE_GPU=1 pytest -m gpu -p cupy_on_cpu.rules

docs/cupy_without_gpu.md says what each of them shows and what it cannot. executed.py relies on private parts of CuPy 14.2.
"""

import sys


def running():
    """Which of the two is in CuPy's place: "executed", "rules", or None (a real GPU, or no CuPy)."""
    return next((name for name in ("executed", "rules") if f"cupy_on_cpu.{name}" in sys.modules), None)


def observe(function):
    """What calling function() makes the device do: (synchronisations, float64 results). For `running()` only."""
    if running() == "executed":
        from cupy_on_cpu import device
        before, device.launches[:] = device.count["synchronisations"], []
        function()
        return device.count["synchronisations"] - before, [name for name in device.launches if "float64" in name]
    from cupy_on_cpu.rules import seen
    seen.clear()
    function()
    return seen["synchronisations"], [name for name in seen if name in ("float64", "complex128")]
