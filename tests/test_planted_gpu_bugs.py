"""What code for a GPU can do wrong, planted: each check of it finds the bug, and is silent without it.

Where the real CuPy runs on a CPU, or its rules are asked for (docs/cupy_without_gpu.md). Wrong rules of the core are in
test_mutants.py.
"""

import numpy as np
import pytest
import test_graph
import test_kernels
from cupy_on_cpu import running
from test_gpu import check_float32, check_waits, example
from test_graph import can_record  # noqa: F401 - a fixture: the checks of recorded steps need it

import ep
from ep.backend import array_module, to_host
from ep.engine import kernels

# --- the code that a GPU compiles ---------------------------------------------------------------------------------------------

PATCHES = (test_kernels.test_patches_and_their_adjoint, 8, 8, 3, 1, 1, "float32")
POOLING, GRADIENTS = (test_kernels.test_pooling, 4, 6, "float32"), (test_graph.test_gradients, "symmetric", True, "symmetric")
PLANTED = {name: bug for name, *bug in (
    ("tie rule", "max_pool", "y1 > most", "y1 >= most", (*POOLING, 5)),
    ("NaN lost", "max_pool", "if (y1 != y1 ||", "if (false &&", (test_kernels.test_pooling_keeps_a_nan, 1)),
    ("corners exchanged", "max_unpool", "row % 2 * 2 + column % 2", "column % 2 * 2 + row % 2", (*POOLING, 5)),
    ("no padding", "im2col", "a - PADDING", "a", (*PATCHES, 3)),
    ("border left out", "col2im", "i_out < H_OUT", "i_out < H_OUT - 1", (*PATCHES, 3)),
    ("no padding, by 4", "im2col_by_4", "a - PADDING", "a", (*PATCHES, 8)),
    ("corners, by 4", "max_unpool_by_4", "row % 2 * 2 + column % 2", "column % 2 * 2 + row % 2", (*POOLING, 8)),
    ("no gain", "update", "up + gain * down", "up + down", GRADIENTS),
    ("no weight", "deviation", "w * (v - at)", "(v - at)", GRADIENTS),
    ("rows left out", "column_sums", "row += OUT", "row += OUT + 1", (test_graph.test_column_sums,)),
    ("no correction", "adam", "sqrt(v) * root", "sqrt(v)", (test_graph.test_adam_is_numpys, "float32")),
    ("wrong bound", "sigma", "z > high", "z > 2 * high", (test_kernels.test_activations, "hard-sigmoid", "float32")),
    # reads before and behind the image, and beyond the array: POISON is no number of it
    ("read beyond the end", "im2col", "inside ? x", "true ? x", (*PATCHES, 3)))}


def on_the_double(*names):
    """A test that needs one of these in the place of CuPy; its fixture xp gives it."""
    def decorate(test):
        reason = f"this check is one of {' and '.join(names)} in cupy_on_cpu"
        for mark in (pytest.mark.gpu, pytest.mark.parametrize("xp", ["cupy"], indirect=True),
                     pytest.mark.skipif(running() not in names, reason=reason)):
            test = mark(test)
        return test
    return decorate


def plant(patch, kernel, right, wrong):
    """The kernel with this replacement; whatever is compiled is forgotten afterwards."""
    arguments, results, source = kernels.KERNELS[kernel]
    assert right in source, f"'{right}' is not in {kernel} any more: bring this bug up to date"
    patch.setitem(kernels.KERNELS, kernel, (arguments, results, source.replace(right, wrong)))
    kernels.compiled.cache_clear()
    patch.setattr(kernels, "compiled", kernels.compiled.__wrapped__)


@pytest.mark.parametrize("name", PLANTED)
def test_every_planted_bug_is_up_to_date(name, monkeypatch):
    """Its text stands in the source of the kernel, also where no kernel is compiled."""
    plant(monkeypatch, *PLANTED[name][:3])


@on_the_double("executed")
@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_kernel_differs_from_its_twin(xp, monkeypatch, name):
    """And not without the bug."""
    kernel, right, wrong, (test, *arguments) = PLANTED[name]
    test(xp, *arguments)
    plant(monkeypatch, kernel, right, wrong)
    with pytest.raises(AssertionError):
        test(xp, *arguments)


# --- what else code for a GPU can do wrong: the check that finds it, and is silent without it ---------------------------------

def with_sigma(network, sigma):
    network.activation = network.activation._replace(sigma=sigma, slope=None)  # no clip that a kernel knows
    return network


@on_the_double("executed", "rules")
def test_a_host_array_mixed_in_is_refused(xp):
    network, x, _ = example(xp)
    ep.relax(network, x, 2)
    network.synapses[1].b = to_host(network.synapses[1].b)
    with pytest.raises(TypeError, match="Unsupported type <class 'numpy.ndarray'>|got numpy.ndarray"):
        ep.relax(network, x, 2)


@on_the_double("executed", "rules")
def test_a_keyword_that_cupy_lacks_is_refused(xp):
    network, x, _ = example(xp)
    with_sigma(network, lambda u: u.clip(0.0, 1.0))
    ep.relax(network, x, 2)
    with_sigma(network, lambda u: xp.clip(u, 0.0, 1.0, where=True))
    with pytest.raises(TypeError, match="unexpected keyword argument 'where'"):
        ep.relax(network, x, 2)


@on_the_double("executed", "rules")
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


@on_the_double("executed", "rules")
@pytest.mark.parametrize("look", [lambda u: float(u.max()), lambda u: bool((u > 9).any()), lambda u: u[0].get()],
                         ids=["float", "bool", "get"])
def test_a_synchronisation_in_the_loop_is_counted(xp, look):
    network, x, y = example(xp)
    check_waits(xp, network, x, y)
    plain = network.activation.sigma
    with pytest.raises(AssertionError, match="waits, not 0"):
        check_waits(xp, with_sigma(network, lambda u: (look(u), plain(u))[1]), x, y)


@on_the_double("executed", "rules")
def test_an_index_beyond_the_end_is_refused_by_the_rules(xp):
    """CuPy wraps it around without a word: there only a comparison with NumPy can tell."""
    a = xp.arange(4)
    if running() == "executed":
        assert int(a[xp.asarray([4])][0]) == 0
    else:
        with pytest.raises(IndexError):
            a[xp.asarray([4])]


@on_the_double("executed")
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


@on_the_double("executed")
def test_every_test_is_asked_for_overruns(xp, request):
    """When it is over, by the plugin: the bug need not be in an array that the test looks at."""
    from cupy_on_cpu import executed
    executed.pytest_runtest_teardown(request.node)
    xp.ElementwiseKernel("raw T x", "raw T y", "y[i - 1] = x[i]", "ep_one_before")(xp.ones(5), xp.empty(5), size=5)
    with pytest.raises(AssertionError, match="before an array of 40 bytes"):
        executed.pytest_runtest_teardown(request.node)
    executed.pytest_runtest_teardown(request.node)


@on_the_double("executed")
def test_a_kernel_that_does_not_compile_is_an_error(xp, monkeypatch):
    plant(monkeypatch, "max_pool", "T most", "U most")
    with pytest.raises((RuntimeError, array_module(xp.zeros(1)).cuda.compiler.CompileException)):
        kernels.max_pool(xp.zeros((1, 2, 2, 1), dtype="float32"))
