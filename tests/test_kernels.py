"""The CUDA kernels are their twins: the same bits, pass by pass, and the same relaxation and gradients to rounding.

On NumPy arrays every function of kernels.py is its twin; so what these tests compare is told by the backend: kernels with twins
on CuPy, cutting into pieces and dispatch on NumPy.
"""

import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import example, normal, relative

import ep
from ep import engine, ops
from ep.activations import ACTIVATIONS
from ep.backend import to_host
from ep.engine import gpu, kernels
from ep.vectorfield import Asymmetric

CONVOLUTIONS = [(8, 8, 3, 1, 1), (5, 7, 3, 1, 0), (6, 6, 2, 2, 1), (4, 4, 3, 1, 2)]  # H, W, k, stride, padding


def same_bits(found, expected):
    """All bits but the sign of zero, and which NaN it is: a GPU's has other bits than a CPU's."""
    found, expected = (to_host(a) + np.zeros((), a.dtype) for a in (found, expected))  # -0 + 0 = 0
    found, expected = (np.where(a != a, a.dtype.type("nan"), a) if a.dtype.kind == "f" else a for a in (found, expected))
    assert found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("H,W,k,stride,padding", CONVOLUTIONS)
@pytest.mark.parametrize("channels", [3, 8])
def test_patches_and_their_adjoint(xp, H, W, k, stride, padding, dtype, channels):
    x = normal(xp, (2, H, W, channels), 0, dtype)
    cols = ops.im2col(to_host(x), k, stride, padding)
    same_bits(kernels.im2col(x, k, stride, padding), cols)
    cols = normal(xp, cols.shape, 1, dtype)
    same_bits(kernels.col2im(cols, (H, W), stride, padding), ops.col2im(to_host(cols), (H, W), stride, padding))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("H,W", [(4, 6), (5, 7), (2, 2)])
@pytest.mark.parametrize("channels", [5, 8])
def test_pooling(xp, H, W, dtype, channels):
    """Ties, which the first of equals wins, and an odd last row and column included."""
    y = xp.round(2 * normal(xp, (3, H, W, channels), 0, dtype)) / 2
    v, switches = kernels.max_pool(y)
    for found, expected in zip((v, switches), ops.max_pool(to_host(y))):
        same_bits(found, expected)
    other = normal(xp, y.shape, 1, dtype)
    same_bits(kernels.max_pool_at(other, switches), ops.max_pool_at(to_host(other), to_host(switches)))
    same_bits(kernels.max_unpool(v, switches, (H, W)), ops.max_unpool(to_host(v), to_host(switches), (H, W)))


@pytest.mark.parametrize("corner", range(4))
def test_pooling_keeps_a_nan(xp, corner):
    """Whichever corner has it: C's comparisons would lose it."""
    y = xp.ones((1, 2, 2, 1))
    y[0, corner // 2, corner % 2, 0] = np.nan
    assert np.isnan(to_host(kernels.max_pool(y)[0])).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["hard-sigmoid", "clip", "relu6"])
def test_activations(xp, name, dtype):
    u = xp.asarray([-np.inf, -1.0, -0.0, 0.3, 1.0, 1.7, 2.0, 3.0, 6.5, np.inf, np.nan], dtype=dtype)
    same_bits(gpu.Fused(*ACTIVATIONS[name]).respond([(1.0, u)])[1], ACTIVATIONS[name].sigma(to_host(u)))


def test_arrays_that_are_not_contiguous(xp):
    """A kernel sees the numbers that NumPy's indexing means, whatever the strides."""
    x = normal(xp, (2, 6, 8, 6), 0)[:, ::2, 1:, ::2]
    same_bits(kernels.im2col(x, 3, 1, 1), ops.im2col(to_host(x), 3, 1, 1))
    same_bits(kernels.max_pool(x)[0], ops.max_pool(to_host(x))[0])


def test_every_result_is_stored_once():
    """Sums and maxima are kept in registers: a kernel that adds to its result reads and writes it in every turn."""
    for name, (_, results, code) in kernels.KERNELS.items():
        for result in [one.split()[-1] for one in results.split(",")]:
            assert len(re.findall(rf"(?<!T )\b{result} [+-]?= |&{result}\[0\]", code)) == 1, (name, result)


LONG = {  # pass: (shape of an array that is short enough, its arguments, shape of one that, or whose result, is too long)
    "im2col": ((8, 1024, 1024, 28), (3, 1, 1), (8, 1024, 1024, 32)),
    "col2im": ((1, 1024, 1024, 3, 3, 200), ((1024, 1024), 1, 1), (1, 1024, 1024, 3, 3, 256)),
    "max_pool": ((1, 2**15, 2**15, 1), (), (1, 2**16, 2**15, 1)),
    "max_pool_at": ((1, 2**15, 2**15, 1), (np.zeros((1, 2**14, 2**14, 1), bool),), (1, 2**16, 2**15, 1)),
    "max_unpool": ((2**25, 1, 1, 7), (None, (3, 3)), (2**25, 1, 1, 8)),
}


@pytest.mark.parametrize("name", LONG)
def test_what_is_too_long_for_32_bits_takes_the_twin(monkeypatch, name):
    """Patches are k k times as long as the image, unpooled windows up to 9 times: it is the longer of the two that counts."""
    monkeypatch.setattr(kernels, "array_module", lambda a: SimpleNamespace(ElementwiseKernel=None))
    monkeypatch.setattr(kernels, "launch", lambda *_, **__: ["kernel"])
    monkeypatch.setattr(ops, name, lambda *_: ["twin"])
    short, arguments, long = LONG[name]
    for shape, expected in ((short, "kernel"), (long, "twin")):
        assert list(getattr(kernels, name)(np.broadcast_to(np.float32(0), shape), *arguments)) == [expected]


@pytest.mark.parametrize("adjoint, drive", [("drive_post_adjoint", "drive_pre"), ("drive_pre_adjoint", "linear_post")])
def test_the_transposed_drives_are_the_fused_ones(xp, monkeypatch, adjoint, drive):
    """BPTT goes back through the same passes as the relaxation: they were the readable ones, with twice the launches."""
    asked, plain = [], dict(im2col=kernels.im2col, col2im=kernels.col2im)
    for name in plain:
        monkeypatch.setattr(kernels, name, lambda *a, name=name: (asked.append(name), plain[name](*a))[1])
    synapse = gpu.prepared(example(xp)[0]).synapses[1]
    pre, post = (normal(xp, (2, *shape), k) for k, shape in enumerate((synapse.pre_shape, synapse.post_shape)))
    switches = synapse.drive_post(pre)[1]
    del asked[:]
    given = post if drive == "drive_pre" else pre
    same_bits(getattr(synapse, adjoint)(given, switches), to_host(getattr(synapse, drive)(given, switches)))
    assert asked in (["im2col"] * 2, ["col2im"] * 2)


@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("gradient", [partial(ep.eqprop_gradient, nudging=ep.Nudging.symmetric(0.5)), ep.bptt_gradient],
                         ids=["eqprop", "bptt"])
def test_gradients(xp, connections, gradient, monkeypatch):
    """In passes and in pieces, or whole arrays."""
    monkeypatch.setattr(gpu, "MEMORY", 2 * 16 * 16 * 9 * 2 * 8)  # two images of the first convolution
    network, x, y = example(xp, connections, feedback=0.7)
    expected = gradient(network, x, y, ep.Phases(12, 6, deviations=True))
    fast = gpu.prepared(network)
    assert len(fast.synapses[0]._pieces(x)) == 2
    found = gradient(fast, x, y, ep.Phases(12, 6, deviations=True))
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    for name, g in expected.gradient.items():
        assert relative(found.gradient[name], g) < 1e-10, name


def test_prepared(xp):
    """On CuPy every convolution, the activation and the readout are replaced, the parameters shared; the network stays."""
    network = example(xp, "asymmetric")[0]
    fast = gpu.prepared(network) if xp is np else engine.prepared(network)
    for name, w in network.parameters().items():
        assert fast.parameters()[name] is w
    plain = [one for s in fast.synapses for one in ((s.forward, s.feedback) if type(s) is Asymmetric else (s,))]
    assert len(plain) == 5 and all(type(one) is gpu.GpuConv for one in plain)
    assert (type(fast.cost), type(fast.activation)) == (gpu.GpuReadout, gpu.Fused)
    assert type(network.synapses[0]) is ep.Conv and network.activation == ep.HARD_SIGMOID


def test_complex_states_take_the_twins(xp):
    """The kernels are for real numbers; holomorphic EP goes past them."""
    network, x, y = example(xp, pool=ep.AVERAGE_POOL, activation=ep.SHIFTED_SIGMOID)
    run = partial(ep.eqprop_gradient, nudging=ep.Nudging.holomorphic(0.3, 4))
    expected, found = (run(net, x, y, ep.Phases(12, 6)).gradient for net in (network, gpu.prepared(network)))
    for name, g in expected.items():
        assert relative(found[name], g) < 1e-10
