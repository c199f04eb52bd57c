"""The fast path is the readable one: state by state, switch by switch, step by step, in float64 to rounding.

From random states, not from zero: a layer of equal numbers ties all corners of a max-pooling window, and which of them wins
is then up to rounding, which Winograd's transforms do differently. (numpy only: CuPy arrays take the readable path.)
"""

from functools import partial

import numpy as np
import pytest

import ep
from ep import dynamics, fast, ops
from ep.errors import EPError
from ep.fast.winograd import TILES, Col2im, Im2col, Scratch, Winograd, multiplications, transform_kernel

POOLS = {"max": ep.MAX_POOL, "average": ep.AVERAGE_POOL, "none": ep.NO_POOL}
COSTS = {"cross-entropy": ep.SoftmaxCrossEntropy, "squared-error": ep.SquaredError}
SYMMETRIC = ep.Nudging.symmetric(0.5)
every_tile = pytest.mark.parametrize("tile", [4, 2, 1])


def network(pool="max", cost="cross-entropy", size=13, channels=(4, 5, 6), dtype="float64", connections="symmetric", **options):
    options.setdefault("paddings", [1] * len(channels))
    made = ep.convnet(channels, (size, size, 2), 3, pool=POOLS[pool], cost=COSTS[cost], scale=1.5, dtype=dtype, **options)
    return ep.CONNECTIONS[connections](made)


def example(network, N=3, seed=0, dtype="float64"):
    """Inputs, labels, and random states to start from."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, *network.shapes[0])).astype(dtype)
    return x, rng.integers(0, 3, N), [rng.random((N, *shape)).astype(dtype) for shape in network.shapes[1:]]


def assert_equal(found, expected, bound=1e-12):
    """Two `Relaxation`s: the same steps, states, switches and residuals."""
    assert found.steps == expected.steps and found.converged == expected.converged
    assert [t for t, _ in found.history] == [t for t, _ in expected.history]
    assert abs(np.array(found.history) - np.array(expected.history)).max() <= bound
    for s, s_expected in zip(found.states, expected.states, strict=True):
        assert s.shape == s_expected.shape and s.dtype == s_expected.dtype and s.flags.c_contiguous
        assert abs(s - s_expected).max() <= bound
    assert flat(found.switches) == flat(expected.switches)


def flat(switches):
    """Switches as something that == compares: arrays as bytes, with their shape and type."""
    if isinstance(switches, (list, tuple)):
        return [flat(sw) for sw in switches]
    return None if switches is None else (switches.shape, switches.dtype, switches.tobytes())


def assert_alive(states):
    """Units strictly between the bounds in every layer: a dead network would pass every comparison."""
    for s in states:
        assert ((s > 0) & (s < 1)).mean() > 0.05


# --- the convolutions -------------------------------------------------------------------------------------------------


def fast_convolution(kind, W, size_in, size_out, padding, N):
    scratch = Scratch(W.dtype)
    if kind == "im2col":
        return Im2col(W, size_in, size_out, padding, N, scratch)
    return Winograd(transform_kernel(W, kind), kind, size_in, size_out, padding, N, scratch)


def images(a):
    return a.transpose(2, 0, 1, 3)


@pytest.mark.parametrize("kind", [2, 4, "im2col"])
@pytest.mark.parametrize("H,W", [(8, 8), (5, 7), (3, 4), (9, 3), (4, 16)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_convolution(kind, H, W, padding):
    """Every size, also those that tiles do not divide, against the loops."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, H, W, 3)), rng.normal(size=(3, 3, 3, 5))
    expected = ops.conv_loops(x, kernel, padding=padding)
    conv = fast_convolution(kind, kernel, (H, W), expected.shape[1:3], padding, 2)
    for _ in range(2):  # a second call finds used buffers
        conv.input[...] = x.transpose(1, 2, 0, 3)
        assert abs(images(conv()) - expected).max() <= 1e-13 * abs(expected).max()
        x, expected = -2 * x, -2 * expected


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_im2col_of_other_kernels(k):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 7, 6, 3)), rng.normal(size=(k, k, 3, 4))
    expected = ops.conv_loops(x, kernel, padding=k - 1)
    conv = fast_convolution("im2col", kernel, (7, 6), expected.shape[1:3], k - 1, 2)
    conv.input[...] = x.transpose(1, 2, 0, 3)
    assert abs(images(conv()) - expected).max() <= 1e-13 * abs(expected).max()


@pytest.mark.parametrize("padding", [0, 1])
def test_col2im_is_the_adjoint(padding):
    """<conv(x, W), y> = <x, Col2im(y)>, and the same numbers as the readable adjoint."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 4, 5, 3)), rng.normal(size=(3, 3, 3, 4))
    y = rng.normal(size=ops.conv(x, kernel, padding=padding).shape)
    adjoint = Col2im(kernel, y.shape[1:3], (4, 5), padding, 2, Scratch(kernel.dtype))
    adjoint.input[...] = y.transpose(1, 2, 0, 3)
    found = images(adjoint())
    assert abs((ops.conv(x, kernel, padding=padding) * y).sum() - (x * found).sum()) < 1e-11
    assert abs(found - ops.conv_adjoint_input(y, kernel, (4, 5), padding=padding)).max() < 1e-12


@pytest.mark.parametrize("m", TILES)
def test_a_tile_is_exact_for_every_monomial(m):
    """y = A^T [(G g) * (B^T x)] is the correlation of x with g for all unit vectors x and g: a bilinear identity."""
    tile = TILES[m]
    for i, x in enumerate(np.eye(m + 2)):
        for j, g in enumerate(np.eye(3)):
            y = np.array(tile.A_T) @ ((np.array(tile.G) @ g) * (np.array(tile.B_T) @ x))
            assert np.allclose(y, [i == t + j for t in range(m)], atol=1e-15)


@pytest.mark.parametrize("m,bound", [(2, 5e-7), (4, 2e-6), ("im2col", 4e-7)])
def test_rounding_in_float32(m, bound):
    """The error of the paper's second convolution, relative to the rms of the result, is as the docs say."""
    rng = np.random.default_rng(0)
    x, kernel = rng.random((2, 16, 16, 128)).astype("f"), rng.normal(size=(3, 3, 128, 256)).astype("f")
    exact = ops.conv(x.astype("d"), kernel.astype("d"), padding=1)
    conv = fast_convolution(m, kernel, (16, 16), (16, 16), 1, 2)
    conv.input[...] = x.transpose(1, 2, 0, 3)
    error = images(conv()) - exact
    assert 1e-8 < (error**2).mean() ** 0.5 / (exact**2).mean() ** 0.5 < bound


def test_multiplications():
    """Tiles times (m+2)^2, tiles that reach over the edge included."""
    assert multiplications(4, (8, 8)) == 4 * 36 and multiplications(2, (8, 8)) == 16 * 16
    assert multiplications(4, (5, 8)) == 4 * 36


# --- the relaxation ---------------------------------------------------------------------------------------------------


@every_tile
@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("schedule", ["synchronous", "checkerboard"])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("pool", ["max", "average"])
def test_every_phase(tile, connections, schedule, cost, pool):
    """Free, nudged and nudged with frozen switches, on sizes that neither tiles nor windows divide."""
    net = network(pool, cost, connections=connections)
    x, y, start = example(net)
    relax = fast.prepared(net, tile)
    assert relax.func is fast.relax
    frozen = dynamics.relax(net, x, steps=1, start=start).switches
    for arguments, options in (((), dict(steps=4)), ((y, 0.3), dict(steps=3)), ((y, -0.2), dict(steps=5, switches=frozen))):
        options |= dict(start=start, schedule=schedule, check_every=1)
        expected = dynamics.relax(net, x, *arguments, **options)
        assert_equal(relax(net, x, *arguments, **options), expected)
        assert_alive(expected.states)


@every_tile
@pytest.mark.parametrize("options", [
    dict(size=22, paddings=[1, 1, 0]),  # the last layer without padding, as in the paper
    dict(size=12, channels=(3, 4), kernel=5, paddings=[2, 1]),  # im2col, whatever the tile
    dict(size=9, channels=(3, 4), pool="none"),
    dict(size=8, channels=(4,)),  # one layer: only the input's drive
], ids=["valid", "5x5", "no pooling", "one layer"])
def test_other_shapes(tile, options):
    net = network(**options)
    x, y, start = example(net, N=1)
    for schedule in dynamics.SCHEDULES:
        arguments = dict(steps=3, start=start, schedule=schedule)
        assert_equal(fast.prepared(net, tile)(net, x, y, 0.3, **arguments), dynamics.relax(net, x, y, 0.3, **arguments))


@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
def test_an_mlp(connections):
    net = ep.CONNECTIONS[connections](ep.mlp([6, 5, 4, 3], cost=ep.SquaredError, dtype="float64", scale=1.5))
    x, y, start = example(net)
    assert_equal(fast.relax(net, x, y, 0.2, steps=5, start=start), dynamics.relax(net, x, y, 0.2, steps=5, start=start))


def test_from_zero_and_until_the_tolerance():
    """The default start; the same last step, the same steps at which the residual was computed."""
    net = network("average", size=12)
    x, _, _ = example(net)
    for check_every in (None, 3):
        arguments = dict(steps=200, tolerance=1e-6, check_every=check_every, schedule="checkerboard")
        expected = dynamics.relax(net, x, **arguments)
        assert expected.converged and 3 < expected.steps < 100
        assert_equal(fast.relax(net, x, **arguments), expected)


@every_tile
def test_max_pooling_from_zero(tile):
    """As training starts. (In the checkerboard schedule: in the other, layers of equal numbers tie, see above.)"""
    net = network(size=22, paddings=[1, 1, 0])
    x, _, _ = example(net)
    arguments = dict(steps=7, schedule="checkerboard", check_every=1)
    assert_equal(fast.prepared(net, tile)(net, x, **arguments), dynamics.relax(net, x, **arguments))


@pytest.mark.parametrize("pool", ["max", "average"])
def test_nan_is_not_converged(pool):
    """A NaN anywhere in the input ends as a NaN residual, as on the readable path, not as 0."""
    net = network(pool, size=12)
    x, _, start = example(net)
    x[1, 5, 5, 0] = np.nan
    for relax in (fast.relax, dynamics.relax):
        phase = relax(net, x, steps=9, start=start, tolerance=1e-3)
        assert np.isnan(phase.residual) and not phase.converged and phase.steps == 9


@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
def test_the_gradient(connections):
    """All of eqprop_gradient with the fast path, both phases stopped by residual."""
    net = network("average", size=12, connections=connections)
    x, y, _ = example(net)
    arguments = dict(nudging=SYMMETRIC, schedule="checkerboard", tolerance=1e-9, tolerance_nudged=1e-9)
    expected = ep.eqprop_gradient(net, x, y, 200, 100, **arguments)
    found = ep.eqprop_gradient(net, x, y, 200, 100, relax=fast.prepared(net), **arguments)
    assert [p.steps for p in found.nudged] == [p.steps for p in expected.nudged] and found.nudged[0].steps < 100
    for name, g in expected.gradient.items():
        assert abs(g).max() > 0 and abs(found.gradient[name] - g).max() <= 1e-10 * abs(g).max()


def test_float32():
    """float32 in, float32 out; the paper's widths on small images, average pooling, 30 steps: rounding does not grow."""
    net = network("average", size=12, channels=(32, 64), dtype="float32")
    x, y, start = example(net, dtype="float32")
    arguments = dict(steps=30, start=start, schedule="checkerboard")
    found, expected = (r(net, x, y, 0.5, **arguments) for r in (fast.relax, dynamics.relax))
    for s, s_expected in zip(found.states, expected.states):
        assert s.dtype == np.float32 and abs(s - s_expected).max() < 1e-5


def test_chunks_and_threads():
    """37 images are chunks of 16, 16 and 5: the same bits for any number of threads, and the readable path's gradient."""
    net = network("average", size=12, channels=(8, 9), dtype="float32")
    x, y, _ = example(net, N=37, dtype="float32")
    one_chunk = partial(ep.eqprop_gradient, steps_free=8, steps_nudged=4, nudging=SYMMETRIC, schedule="checkerboard")
    results = []
    for threads in (1, 2, 5):
        with ep.worker_threads(threads) as map:
            results.append(ep.in_chunks(partial(one_chunk, relax=fast.prepared(net)), net, x, y, map).gradient)
    readable = ep.in_chunks(one_chunk, net, x, y).gradient
    for name, g in results[0].items():
        assert (g == results[1][name]).all() and (g == results[2][name]).all()
        assert abs(g - readable[name]).max() < 1e-3 * abs(g).max()


def test_kernels_are_those_of_the_weights_they_were_made_from():
    """After an update `prepared` must be called again; without kernels given, relax makes them itself."""
    net = network("average", size=12)
    x, _, start = example(net)
    before = fast.prepared(net)
    old = dynamics.relax(net, x, steps=2, start=start)
    for w in net.parameters().values():
        w *= 1.5
    new = dynamics.relax(net, x, steps=2, start=start)
    assert abs(new.states[1] - old.states[1]).max() > 1e-3
    for relax in (fast.relax, fast.prepared(net)):
        assert_equal(relax(net, x, steps=2, start=start), new)
    assert abs(before(net, x, steps=2, start=start).states[1] - new.states[1]).max() > 1e-3


def test_ties_first_wins():
    """Where corners of a window are equal, the first wins, in both: by im2col, which keeps equal numbers equal."""
    net = network(channels=(4, 5))
    x, _, start = example(net)
    start[0][:] = 0.5  # an image of one colour: all windows but those at the border tie
    arguments = dict(steps=1, start=start, schedule="checkerboard")
    for w in net.synapses[0].parameters().values():
        w[...] = 0.3
    x[:] = 0.0
    found, expected = fast.prepared(net, largest_tile=1)(net, x, **arguments), dynamics.relax(net, x, **arguments)
    assert (expected.switches[0] == 0).all()  # the input's drive is one number everywhere
    assert_equal(found, expected)


# --- what it leaves to the readable path ------------------------------------------------------------------------------


def unsuitable_networks():
    net = network("average", size=12)
    own, strided, wired = (network("average", size=12) for _ in range(3))
    own.synapses[1].__class__ = type("Own", (ep.Conv,), {})
    shape = net.shapes[1]
    strided.synapses[1:] = [ep.Conv(net.synapses[1].W, net.synapses[1].b, shape, stride=2, pool=ep.NO_POOL)]
    strided = ep.Network(strided.synapses, net.activation, ep.SquaredError())
    skip = ep.Dense(np.ones((np.prod(shape), 3)) / 100, np.zeros(3), shape)
    wired = ep.Network([net.synapses[0], skip, ep.Dense(np.ones((np.prod(shape), 3)) / 50, np.zeros(3), shape)],
                       net.activation, ep.SquaredError(), wiring=[(0, 1), (1, 2), (1, 2)])
    pooled = network("average", size=12)
    pooled.synapses[1].pool = ep.AVERAGE_POOL._replace(pool=lambda y: (2 * ops.average_pool(y)[0], None))
    return {"another kind, Own": own, "stride": strided, "plain chain": wired, "pooling of another kind": pooled}


@pytest.mark.parametrize("reason", ["another kind, Own", "stride", "plain chain", "pooling of another kind"])
def test_unsuitable_networks_take_the_readable_path(reason):
    """With the reason in words, and bit for bit."""
    net = unsuitable_networks()[reason]
    x, _, start = example(net)
    assert reason in fast.unsuitable(net) and reason in fast.path(net) and "readable" in fast.path(net)
    assert fast.prepared(net) is dynamics.relax
    found, expected = (r(net, x, steps=3, start=start) for r in (fast.relax, dynamics.relax))
    assert_equal(found, expected, bound=0.0)


def test_a_synapse_of_ones_own_with_feedback():
    """Asymmetric around a synapse of another kind is of another kind."""
    net = ep.asymmetric(unsuitable_networks()["another kind, Own"])
    assert "another kind, Own" in fast.unsuitable(net)


def test_other_dtypes_take_the_readable_path():
    """Inputs or a start that are not of the weights' dtype: bit for bit and dtype for dtype as there."""
    net = network("average", size=12, dtype="float32")
    x, _, start = example(net)
    for inputs, beginning in ((x, None), (x.astype("float32"), start)):
        found, expected = (r(net, inputs, steps=3, start=beginning) for r in (fast.prepared(net), dynamics.relax))
        assert_equal(found, expected, bound=0.0)


def test_kernels_of_another_network_are_refused():
    x, _, start = example(network("average", size=12))
    with pytest.raises(EPError, match="another network"):
        fast.prepared(network("average", size=12))(network("average", size=12, seed=1), x, steps=1, start=start)


def test_complex_nudging_takes_the_readable_path():
    net = ep.convnet([3, 4], (8, 8, 2), 3, pool=ep.AVERAGE_POOL, activation=ep.SIGMOID, dtype="float64")
    x, y, start = example(net)
    found, expected = (r(net, x, y, 0.1 + 0.1j, steps=3, start=start) for r in (fast.prepared(net), dynamics.relax))
    assert_equal(found, expected, bound=0.0)


def test_errors_are_those_of_the_readable_path():
    net = network()
    x, y, _ = example(net)
    for arguments, options in (((), dict(steps=0)), ((None, 0.5), dict(steps=1)), ((y[:1], 0.5), dict(steps=1)),
                               ((), dict(steps=1, schedule="random"))):
        messages = []
        for relax in (fast.relax, dynamics.relax):
            with pytest.raises(EPError) as caught:
                relax(net, x, *arguments, **options)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
