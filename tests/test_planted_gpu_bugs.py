"""A bug of each kind that code for a GPU can have, planted, and the check that finds it.

The checks need the real CuPy on a CPU (cupy_on_cpu); docs/cupy_without_gpu.md has the table. Each test first makes sure that
the check passes without the bug.
"""

import inspect
import textwrap
from functools import partial

import numpy as np
import pytest
import test_graph
import test_kernels
from cupy_on_cpu import running
from test_gpu import check_float32, check_waits, example

import ep
from ep import eqprop
from ep.backend import array_module
from ep.engine import graph, kernels

pytestmark = [pytest.mark.gpu, pytest.mark.parametrize("xp", ["cupy"], indirect=True),
              pytest.mark.skipif(not running(), reason="the checks are those of cupy_on_cpu.executed")]


def with_sigma(network, sigma):
    network.activation = network.activation._replace(sigma=sigma, slope=None)  # no clip that a kernel knows
    return network


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "cast back"])
def test_a_float64_leak_is_seen(xp, hidden):
    """Also where the result is float32 again: the names of the kernels tell, or the types of all results."""
    def leaking(u):
        s = xp.clip(u * np.float64(0.5), 0.0, 1.0)  # float32 * np.float64 is float64; * 0.5 would be float32
        return s.astype(u.dtype) if hidden else s

    network = example(xp)[0]
    check_float32(xp, network)
    with pytest.raises((AssertionError, TypeError), match="float64 in|float32 float64"):  # a kernel of ours refuses mixed types
        check_float32(xp, with_sigma(network, leaking))


@pytest.mark.parametrize("look", [lambda u: float(u.max()), lambda u: bool((u > 9).any()), lambda u: u[0].get()],
                         ids=["float", "bool", "get"])
def test_a_synchronisation_in_the_loop_is_counted(xp, look):
    network, x, y = example(xp)
    check_waits(xp, network, x, y)
    plain = network.activation.sigma
    with pytest.raises(AssertionError, match="waits, not 0"):
        check_waits(xp, with_sigma(network, lambda u: (look(u), plain(u))[1]), x, y)


def planted(monkeypatch, name, right, wrong):
    """The kernel `name` with `wrong` in the place of `right` in its code."""
    arguments, results, code = kernels.KERNELS[name]
    assert right in code
    monkeypatch.setitem(kernels.KERNELS, name, (arguments, results, code.replace(right, wrong)))
    kernels.compiled.cache_clear()
    monkeypatch.setattr(kernels, "compiled", kernels.compiled.__wrapped__)  # whatever it compiles is forgotten afterwards


@pytest.mark.parametrize("name, right, wrong, check", [
    ("max_pool", "y1 > most", "y1 >= most",  # the last of equals wins
     lambda xp: test_kernels.test_pooling(xp, 4, 6, "float32", 5)),
    ("max_pool", "if (y1 != y1 ||", "if (false &&", lambda xp: test_kernels.test_pooling_keeps_a_nan(xp, 1)),
    ("max_unpool", "row % 2 * 2 + column % 2", "column % 2 * 2 + row % 2",
     lambda xp: test_kernels.test_pooling(xp, 4, 6, "float32", 5)),
    ("im2col", "a - PADDING", "a", lambda xp: test_kernels.test_patches_and_their_adjoint(xp, 8, 8, 3, 1, 1, "float32", 3)),
    ("col2im", "i_out < H_OUT", "i_out < H_OUT - 1",
     lambda xp: test_kernels.test_patches_and_their_adjoint(xp, 8, 8, 3, 1, 1, "float32", 3)),
    ("im2col_by_4", "a - PADDING", "a",
     lambda xp: test_kernels.test_patches_and_their_adjoint(xp, 8, 8, 3, 1, 1, "float32", 8)),
    ("max_unpool_by_4", "row % 2 * 2 + column % 2", "column % 2 * 2 + row % 2",
     lambda xp: test_kernels.test_pooling(xp, 4, 6, "float32", 8)),
    ("update", "up + gain * down", "up + down", lambda xp: test_graph.test_gradients(xp, "symmetric", True, "symmetric")),
    ("deviation", "w * (v - s)", "(v - s)", lambda xp: test_graph.test_gradients(xp, "symmetric", True, "symmetric")),
    ("column_sums", "row += OUT", "row += OUT + 1", lambda xp: test_graph.test_column_sums(xp)),
    ("adam", "sqrt(v) * root", "sqrt(v)", lambda xp: test_graph.test_adam_is_numpys(xp, "float32")),
    ("sigma", "z > high", "z > 2 * high", lambda xp: test_kernels.test_activations(xp, "hard-sigmoid", "float32")),
    ("im2col", "inside ? x", "true ? x",  # reads before and behind the image, and beyond the array: POISON is no number of it
     lambda xp: test_kernels.test_patches_and_their_adjoint(xp, 8, 8, 3, 1, 1, "float32", 3))],
    ids=["tie rule", "NaN lost", "corners exchanged", "no padding", "border left out", "no padding, by 4", "corners, by 4",
         "no gain", "no weight", "rows left out", "no correction", "wrong bound", "read beyond the end"])
def test_a_wrong_kernel_differs_from_its_twin(xp, monkeypatch, name, right, wrong, check):
    check(xp)
    planted(monkeypatch, name, right, wrong)
    with pytest.raises(AssertionError):
        check(xp)


@pytest.mark.parametrize("owner, name, right, wrong, check", [
    (graph.Recorder, "__call__", "a.copy() for a in results", "a for a in results", test_graph.test_chunks_of_a_batch),
    (graph.Recorder, "__call__", "parts, network.feedback, key", "parts, key", test_graph.test_what_is_recorded_anew),
    (graph.Recorder, "__call__", "type(network.cost)", "network.cost", test_graph.test_a_job_records_a_step_once),
    (eqprop, "nudged_phases", "phases.free.tolerance > 0 and free.converged", "free.converged",
     partial(test_graph.test_by_states, connections="symmetric", nudging="five points",
             function=partial(ep.eqprop_gradient, transposed=False)))],
    ids=["overwritten by the next chunk", "another gain replayed", "recorded at every step", "a wait in a recorded step"])
def test_a_wrong_recording_is_found(xp, monkeypatch, owner, name, right, wrong, check):
    check(xp)
    source, module = textwrap.dedent(inspect.getsource(getattr(owner, name))), inspect.getmodule(getattr(owner, name))
    assert right in source
    names = dict(vars(module))
    exec(source.replace(right, wrong), names)
    monkeypatch.setattr(owner, name, names[name])
    with pytest.raises((AssertionError, RuntimeError)):
        check(xp)


def test_a_write_beyond_the_end_is_found(xp):
    """The guards on both sides of every array tell, also when the array has been freed."""
    from cupy_on_cpu import device
    device.found_overruns()
    off_by_one = xp.ElementwiseKernel("raw T x", "raw T y", "y[i + 1] = x[i]", "ep_off_by_one")
    x, y = xp.ones(5, dtype="float32"), xp.empty(5, dtype="float32")
    off_by_one(x, y, size=4)
    assert device.found_overruns() == []
    off_by_one(x, y, size=5)
    assert device.found_overruns() == ["something was written behind an array of 20 bytes"]


def test_every_test_is_asked_for_overruns(xp, request):
    """When it is over, by the plugin: the bug need not be in an array that the test looks at."""
    from cupy_on_cpu import executed
    executed.pytest_runtest_teardown(request.node)
    xp.ElementwiseKernel("raw T x", "raw T y", "y[i - 1] = x[i]", "ep_one_before")(xp.ones(5), xp.empty(5), size=5)
    with pytest.raises(AssertionError, match="before an array of 40 bytes"):
        executed.pytest_runtest_teardown(request.node)
    executed.pytest_runtest_teardown(request.node)


def test_a_kernel_that_does_not_compile_is_an_error(xp, monkeypatch):
    planted(monkeypatch, "max_pool", "T most", "U most")
    with pytest.raises((RuntimeError, array_module(xp.zeros(1)).cuda.compiler.CompileException)):
        kernels.max_pool(xp.zeros((1, 2, 2, 1), dtype="float32"))
