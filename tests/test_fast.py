"""The fast path is the readable one: state by state, switch by switch, step by step, in float64 to rounding.

(numpy only: CuPy arrays take the readable path.)
"""

from functools import partial

import numpy as np
import pytest

import ep
from ep import dynamics, fast, ops
from ep.dynamics import Phase, Phases
from ep.errors import EPError
from ep.fast import patches, winograd
from ep.fast.chain import LOCAL, chain_of
from ep.fast.patches import Col2im, Im2col, PatchProduct
from ep.fast.winograd import (
    TILES,
    Scratch,
    Winograd,
    WinogradProduct,
    multiplications,
    transform_flipped,
    transform_gradient,
    transform_kernel,
)

POOLS = {"max": ep.MAX_POOL, "average": ep.AVERAGE_POOL, "none": ep.NO_POOL}
COSTS = {"cross-entropy": ep.SoftmaxCrossEntropy, "squared-error": ep.SquaredError}
SYMMETRIC = ep.Nudging.symmetric(0.5)
every_tile = pytest.mark.parametrize("tile", [4, 2, 1])


def network(pool="max", cost="cross-entropy", size=13, channels=(4, 5, 6), dtype="float64", connections="symmetric", **options):
    options = dict(paddings=[1] * len(channels), scale=1.5) | options
    made = ep.convnet(channels, (size, size, 2), 3, pool=POOLS[pool], cost=COSTS[cost], dtype=dtype, **options)
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


@pytest.fixture(params=["all", "few"])
def rows_at_once(request, monkeypatch):
    """All rows of tiles at once, as in small networks; and as few as possible, as in large ones."""
    LOCAL.__dict__.clear()  # the buffers of other tests
    if request.param == "few":
        monkeypatch.setattr(winograd, "CACHED", 1)
        monkeypatch.setattr(patches, "PATCHES", 1)
    yield
    LOCAL.__dict__.clear()


def fast_convolution(kind, W, size_in, size_out, padding, N, gain=1.0):
    scratch = Scratch(W.dtype)
    if kind == "im2col":
        conv, kernel = Im2col(len(W), size_in, size_out, padding, N, W.shape[2:], scratch), W
    else:
        conv, kernel = Winograd(kind, size_in, size_out, padding, N, W.shape[2:], scratch), transform_kernel(W, kind)
    conv.set(kernel, gain)
    return conv


def images(a):
    return a.transpose(2, 0, 1, 3)


def whole(conv):
    """The stripes of a convolution, put together."""
    stripes = [(rows, y.copy()) for rows, y in conv.stripes()]
    assert [rows for rows, _ in stripes] == conv.rows and all(len(y) == rows.stop - rows.start for rows, y in stripes)
    return np.concatenate([y for _, y in stripes])


@pytest.mark.parametrize("kind", [2, 4, "im2col"])
@pytest.mark.parametrize("H,W", [(8, 8), (5, 7), (3, 4), (9, 3), (4, 16)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_convolution(kind, H, W, padding, rows_at_once):
    """Every size, also those that tiles do not divide, against the loops."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, H, W, 3)), rng.normal(size=(3, 3, 3, 5))
    expected = ops.conv_loops(x, kernel, padding=padding)
    conv, expected = fast_convolution(kind, kernel, (H, W), expected.shape[1:3], padding, 2, gain=0.3), 0.3 * expected
    for _ in range(2):  # a second call finds used buffers
        conv.input[...] = x.transpose(1, 2, 0, 3)
        assert abs(images(whole(conv)) - expected).max() <= 1e-13 * abs(expected).max()
        x, expected = -2 * x, -2 * expected


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_im2col_of_other_kernels(k):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 7, 6, 3)), rng.normal(size=(k, k, 3, 4))
    expected = ops.conv_loops(x, kernel, padding=k - 1)
    conv = fast_convolution("im2col", kernel, (7, 6), expected.shape[1:3], k - 1, 2)
    conv.input[...] = x.transpose(1, 2, 0, 3)
    assert abs(images(whole(conv)) - expected).max() <= 1e-13 * abs(expected).max()


@pytest.mark.parametrize("padding", [0, 1])
def test_col2im_is_the_adjoint(padding):
    """<conv(x, W), y> = <x, Col2im(y)>, and the same numbers as the readable adjoint."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 4, 5, 3)), rng.normal(size=(3, 3, 3, 4))
    y = rng.normal(size=ops.conv(x, kernel, padding=padding).shape)
    adjoint = Col2im(3, y.shape[1:3], (4, 5), padding, 2, (4, 3), Scratch(kernel.dtype))
    adjoint.set(kernel)
    adjoint.input[...] = y.transpose(1, 2, 0, 3)
    found = images(whole(adjoint))
    assert abs((ops.conv(x, kernel, padding=padding) * y).sum() - (x * found).sum()) < 1e-11
    assert abs(found - ops.conv_adjoint_input(y, kernel, (4, 5), padding=padding)).max() < 1e-12


@pytest.mark.parametrize("m", TILES)
def test_the_kernel_of_the_way_down(m):
    """Flipped, with its channels exchanged; and transform_gradient is the adjoint of transform_kernel."""
    rng = np.random.default_rng(0)
    W, dU = rng.normal(size=(3, 3, 4, 5)), rng.normal(size=((m + 2) ** 2, 4, 5))
    flipped = W[::-1, ::-1].transpose(0, 1, 3, 2)
    assert abs(transform_flipped(W, m) - transform_kernel(flipped, m)).max() < 1e-14
    assert abs((transform_kernel(W, m) * dU).sum() - (W * transform_gradient(dU, m)).sum()) < 1e-12


@pytest.mark.parametrize("kind", [2, 4, "im2col"])
@pytest.mark.parametrize("H,W", [(8, 8), (5, 7), (3, 4), (4, 16)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_sum_of_products(kind, H, W, padding, rows_at_once):
    """Both products of a synapse, together and one by one, against the readable adjoint."""
    rng = np.random.default_rng(0)
    kernel, sizes = np.zeros((3, 3, 3, 5)), (H + 2 * padding - 2, W + 2 * padding - 2)
    conv = fast_convolution(kind, kernel, (H, W), sizes, padding, 2)
    product, x, y = PatchProduct(conv, 3) if kind == "im2col" else WinogradProduct(conv), [], []
    for i, where in enumerate((conv.input, product.x)):
        x.append(rng.normal(size=(2, H, W, 3)))
        y.append(rng.normal(size=(2, *sizes, 5)))
        where[...] = x[i].transpose(1, 2, 0, 3)
    expected = [ops.conv_adjoint_kernel(a, b, 3, padding=padding) for a, b in zip(x, y)]

    def fill(i, rows, out):
        out[...] = y[i].transpose(1, 2, 0, 3)[rows]

    results = product.result(fill), product.result(fill, (0,)), product.result(fill, (1,))
    for found, dW in zip(results, (sum(expected), *expected)):
        assert found.shape == dW.shape and abs(found - dW).max() <= 2e-13 * abs(dW).max()


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
    error = images(whole(conv)) - exact
    assert 1e-8 < (error**2).mean() ** 0.5 / (exact**2).mean() ** 0.5 < bound


@pytest.mark.parametrize("m", TILES)
def test_rounding_of_products_in_float32(m):
    """The gradient of the paper's second kernel has a relative error below 1e-4, by far."""
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 16, 16, 128)).astype("f"), rng.normal(size=(4, 16, 16, 64)).astype("f")
    conv = fast_convolution(m, np.zeros((3, 3, 128, 64), "f"), (16, 16), (16, 16), 1, 4)
    product, exact = WinogradProduct(conv), ops.conv_adjoint_kernel(x.astype("d"), y.astype("d"), 3, padding=1)
    conv.input[...] = x.transpose(1, 2, 0, 3)

    def fill(i, rows, out):
        out[...] = y.transpose(1, 2, 0, 3)[rows]

    error = product.result(fill, (0,)) - exact
    assert 1e-8 < (error**2).mean() ** 0.5 / (exact**2).mean() ** 0.5 < 1e-5


def test_multiplications():
    """Tiles times (m+2)^2, tiles that reach over the edge included."""
    assert multiplications(4, (8, 8)) == 4 * 36 and multiplications(2, (8, 8)) == 16 * 16
    assert multiplications(4, (5, 8)) == 4 * 36


# --- the relaxation ---------------------------------------------------------------------------------------------------


@every_tile
@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("schedule", dynamics.SCHEDULES)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("pool", ["max", "average"])
def test_every_phase(tile, connections, schedule, cost, pool):
    """Free, nudged and nudged with frozen switches, on sizes that neither tiles nor windows divide."""
    net = network(pool, cost, connections=connections)
    x, y, start = example(net)
    relax = fast.prepared(net, tile).relax
    assert relax.func is fast.relax
    frozen = dynamics.relax(net, x, 1, start=start).switches
    for steps, arguments, options in ((4, (), {}), (3, (y, 0.3), {}), (5, (y, -0.2), dict(switches=frozen))):
        phase = Phase(steps, schedule, check_every=1)
        expected = dynamics.relax(net, x, phase, *arguments, start=start, **options)
        assert_equal(relax(net, x, phase, *arguments, start=start, **options), expected)
        assert_alive(expected.states)


@pytest.mark.parametrize("schedule", dynamics.SCHEDULES)
@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("feedback", [1.0, 0.3, 0.02])
def test_feedback(feedback, connections, schedule):
    """The gain is on every way down; also where it changes between two relaxations with the same kernels."""
    net = network(connections=connections)
    x, y, start = example(net)
    relax = fast.prepared(net).relax
    net.feedback = feedback
    for beginning in (start, None):
        phase = Phase(4, schedule, check_every=1)
        assert_equal(relax(net, x, phase, y, 0.3, start=beginning), dynamics.relax(net, x, phase, y, 0.3, start=beginning))


def test_large_kernels(monkeypatch):
    """Their channels are exchanged only in phases of many steps, and anew for new weights."""
    monkeypatch.setattr(winograd, "LARGE", 0)
    monkeypatch.setattr(winograd, "REPAID", 3)
    LOCAL.__dict__.clear()
    net = network()
    x, y, start = example(net)
    for _ in range(2):
        relax = fast.prepared(net).relax
        for steps in (2, 4):
            phase = Phase(steps, check_every=1)
            assert_equal(relax(net, x, phase, y, 0.3, start=start), dynamics.relax(net, x, phase, y, 0.3, start=start))
            down = chain_of(fast.transformed(net), len(x)).synapses[1].down
            assert down.U.flags.c_contiguous == (steps == 4)
        net.synapses[1].W[...] = net.synapses[1].W[::-1] * 0.7
    LOCAL.__dict__.clear()


@every_tile
@pytest.mark.parametrize("options", [
    dict(size=22, paddings=[1, 1, 0]),  # the last layer without padding, as in the paper
    dict(size=12, channels=(3, 4), kernel=5, paddings=[2, 1]),  # im2col, whatever the tile
    dict(size=9, channels=(3, 4), pool="none"),
    dict(size=8, channels=(4,)),  # one layer: only the input's drive
], ids=["valid", "5x5", "no pooling", "one layer"])
def test_other_shapes(tile, options, rows_at_once):
    net = network(**options)
    x, y, start = example(net, N=1)
    for schedule in dynamics.SCHEDULES:
        phase = Phase(3, schedule)
        assert_equal(fast.prepared(net, tile).relax(net, x, phase, y, 0.3, start=start),
                     dynamics.relax(net, x, phase, y, 0.3, start=start))


@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
def test_an_mlp(connections):
    net = ep.CONNECTIONS[connections](ep.mlp([6, 5, 4, 3], cost=ep.SquaredError, dtype="float64", scale=1.5, feedback=0.5))
    x, y, start = example(net)
    for schedule in dynamics.SCHEDULES:
        phase = Phase(5, schedule)
        assert_equal(fast.relax(net, x, phase, y, 0.2, start=start), dynamics.relax(net, x, phase, y, 0.2, start=start))


def test_from_zero_and_until_the_tolerance():
    """The default start; the same last step, the same steps at which the residual was computed."""
    net = network("average", size=12)
    x, _, _ = example(net)
    for check_every in (None, 3):
        phase = Phase(200, "checkerboard", 1e-6, check_every)
        expected = dynamics.relax(net, x, phase)
        assert expected.converged and 3 < expected.steps < 100
        assert_equal(fast.relax(net, x, phase), expected)


@every_tile
@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("schedule", dynamics.SCHEDULES)
@pytest.mark.parametrize("channels,size", [((4, 5, 6), 22), ((4, 4, 4, 4), 40)])
def test_max_pooling_from_zero(tile, connections, schedule, channels, size):
    """As training starts. Synchronous: layers that no image has reached are constant, and all their windows tie."""
    net = network(size=size, channels=channels, connections=connections)
    x, _, _ = example(net)
    phase = Phase(9, schedule, check_every=1)
    expected = dynamics.relax(net, x, phase)
    assert_equal(fast.prepared(net, tile).relax(net, x, phase), expected)
    zeros = net.init_state(x)  # the same, as a start
    assert_equal(fast.prepared(net, tile).relax(net, x, phase, start=zeros), expected)


@pytest.mark.parametrize("pool", ["max", "average"])
def test_nan_is_not_converged(pool):
    """A NaN in one bias ends as a NaN residual, as on the readable path, not as 0 (in the images it is refused)."""
    net = network(pool, size=12)
    x, _, start = example(net)
    net.synapses[1].b[2] = np.nan
    for relax in (fast.relax, dynamics.relax):
        phase = relax(net, x, Phase(9, tolerance=1e-3), start=start)
        assert np.isnan(phase.residual) and not phase.converged and phase.steps == 9


def test_float32():
    """float32 in, float32 out; the paper's widths on small images, average pooling, 30 steps: rounding does not grow."""
    net = network("average", size=12, channels=(32, 64), dtype="float32")
    x, y, start = example(net, dtype="float32")
    found, expected = (r(net, x, Phase(30, "checkerboard"), y, 0.5, start=start) for r in (fast.relax, dynamics.relax))
    for s, s_expected in zip(found.states, expected.states):
        assert s.dtype == np.float32 and abs(s - s_expected).max() < 1e-5


def test_u_gives_the_states():
    """states[n] is sigma(u[n]), bit for bit."""
    net = network(dtype="float32")
    x, _, _ = example(net, dtype="float32")
    free = fast.relax(net, x, Phase(3, "up"))
    for s, u in zip(free.states, free.u, strict=True):
        assert (s == net.activation.sigma(u)).all()


def test_inputs_that_are_known_already():
    net = network()
    x, y, start = example(net)
    inputs = net.input_drives(x)
    inputs[0] = inputs[0][0] + 0.1, inputs[0][1]
    found, expected = (r(net, x, 3, start=start, inputs=inputs) for r in (fast.relax, dynamics.relax))
    assert_equal(found, expected)


def test_kernels_are_those_of_the_weights_they_were_made_from():
    """After an update `prepared` must be called again; without kernels given, relax makes them itself."""
    net = network("average", size=12)
    x, _, start = example(net)
    before = fast.prepared(net).relax
    old = dynamics.relax(net, x, 2, start=start)
    for w in net.parameters().values():
        w *= 1.5
    new = dynamics.relax(net, x, 2, start=start)
    assert abs(new.states[1] - old.states[1]).max() > 1e-3
    for relax in (fast.relax, fast.prepared(net).relax):
        assert_equal(relax(net, x, 2, start=start), new)
    assert abs(before(net, x, 2, start=start).states[1] - new.states[1]).max() > 1e-3


def test_ties_first_wins():
    """Where corners of a window are equal, the first wins, in both: by im2col, which keeps equal numbers equal."""
    net = network(channels=(4, 5))
    x, _, start = example(net)
    start[0][:] = 0.5  # an image of one colour: all windows but those at the border tie
    phase = Phase(1, "checkerboard")
    for w in net.synapses[0].parameters().values():
        w[...] = 0.3
    x[:] = 0.0
    found, expected = (r(net, x, phase, start=start) for r in (fast.prepared(net, largest_tile=1).relax, dynamics.relax))
    assert (expected.switches[0] == 0).all()  # the input's drive is one number everywhere
    assert_equal(found, expected)


# --- the response and the products --------------------------------------------------------------------------------------

NUDGINGS = {"symmetric": SYMMETRIC, "one-sided": ep.Nudging.one_sided(-0.4), "four-point": ep.Nudging.four_point(0.6)}
every_activation = pytest.mark.parametrize("pool,activation", [
    ("max", ep.HARD_SIGMOID), ("average", ep.CLIP), ("max", ep.SIGMOID), ("average", ep.TANH), ("none", ep.HARD_SIGMOID)],
    ids=["max-hard", "average-clip", "max-sigmoid", "average-tanh", "none-hard"])


def assert_close(found, expected, bound=1e-11):
    """Arrays relative to their largest number: deviations of the first layers are as small as the gain makes them."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert abs(b).max() > 0 and abs(a - b).max() <= bound * abs(b).max()


@pytest.mark.parametrize("connections,transposed", [("symmetric", True), ("asymmetric", True), ("asymmetric", False)])
@pytest.mark.parametrize("cost", COSTS)
@every_activation
def test_response_and_products(pool, activation, cost, connections, transposed):
    """Every activation, pooling, cost and nudging; schedules that go up too; strong and weak feedback."""
    net = network(pool, cost, size=7 if pool == "none" else 13, connections=connections, activation=activation)
    x, y, _ = example(net)
    y = net.targets(y, x.dtype)
    for feedback, nudging, phase in ((1.0, "four-point", Phase(5, "synchronous")), (0.3, "one-sided", Phase(4, "checkerboard")),
                                     (0.3, "symmetric", Phase(2, "down")), (0.02, "symmetric", Phase(4, "up"))):
        net.feedback, solver = feedback, fast.prepared(net)
        free = solver.relax(net, x, Phase(5, "up"))
        mu, phases = solver.response(net, y, free, NUDGINGS[nudging], phase, transposed)
        mu_expected, expected = dynamics.response(net, y, free, NUDGINGS[nudging], phase, transposed)
        assert_close(mu, mu_expected)
        for one, one_expected in zip(phases, expected, strict=True):
            assert_close(one.states, one_expected.states)
            assert one.switches is free.switches and one.steps == one_expected.steps
            assert_close([np.array(one.history)], [np.array(one_expected.history)])
        gradient = solver.products(net, x, free.states, free.switches, mu)
        g_expected = net.parameter_adjoint(x, free.states, free.switches, mu_expected)
        assert gradient.keys() == g_expected.keys()
        assert_close(list(gradient.values()), [g_expected[name] for name in gradient])


@every_tile
@pytest.mark.parametrize("options", [
    dict(size=22, paddings=[1, 1, 0]), dict(size=12, channels=(3, 4), kernel=5, paddings=[2, 1]), dict(size=8, channels=(4,))],
    ids=["valid", "5x5", "one layer"])
def test_response_and_products_of_other_shapes(tile, options, rows_at_once):
    net = network(feedback=0.5, **options)
    x, y, _ = example(net, N=2)
    phases = Phases(Phase(4, "up"), Phase(2, "down"))
    found, expected = (ep.eqprop_gradient(net, x, y, phases, nudging=SYMMETRIC, solver=solver)
                       for solver in (fast.prepared(net, tile), ep.READABLE))
    assert_close([found.gradient[name] for name in expected.gradient], list(expected.gradient.values()))


@pytest.mark.parametrize("first", ["dense", "strided", "many channels"])
def test_other_first_synapses(first):
    """What the blocks of FirstConv are not for: a dense one, one with a stride, and 20 channels of 3x3."""
    if first == "dense":
        net = ep.mlp([6, 5, 4, 3], cost=ep.SquaredError, dtype="float64", scale=2.0, feedback=0.5)
    else:
        net = ep.convnet((4, 5), (8, 8, 20), 3, paddings=[1, 1], pool=ep.NO_POOL, scale=1.5, dtype="float64", feedback=0.5)
        if first == "strided":
            W, b = net.synapses[0].W, net.synapses[0].b
            shape = net.shapes[1]
            strided = ep.Conv(W, b, (16, 16, 20), stride=2, pool=ep.NO_POOL)
            net = ep.Network([strided, *net.synapses[1:]], net.activation, net.cost)
            assert net.shapes[1] == shape
    x, y, _ = example(net)
    phases = Phases(Phase(4, "up"), Phase(2, "down"))
    found, expected = (ep.eqprop_gradient(net, x, y, phases, nudging=SYMMETRIC, solver=solver)
                       for solver in (fast.prepared(net), ep.READABLE))
    assert_close([found.gradient[name] for name in expected.gradient], list(expected.gradient.values()))


def test_nudged_phases_stop_each_by_its_own_residual():
    net = network("average", size=12, feedback=0.3)
    x, y, _ = example(net)
    y, free = net.targets(y, x.dtype), fast.relax(net, x, Phase(100, "up", 1e-12))
    nudging, phase = ep.Nudging.from_points([-0.01, 0.7]), Phase(50, "down", 1e-5)
    (mu, phases), (mu_expected, expected) = (r(net, y, free, nudging, phase) for r in (fast.response, dynamics.response))
    assert [p.steps for p in phases] == [p.steps for p in expected] and phases[0].steps < phases[1].steps < 50
    assert_close(mu, mu_expected)


def test_no_feedback():
    """gamma = 0, backpropagation: infinite weights, and nothing goes up."""
    net = network(feedback=0.0)
    x, y, _ = example(net)
    phases = Phases(Phase(1, "up"), Phase(2, "synchronous"))
    found, expected = (ep.eqprop_gradient(net, x, y, phases, nudging=SYMMETRIC, solver=solver)
                       for solver in (fast.prepared(net), ep.READABLE))
    for name, g in expected.gradient.items():
        assert abs(found.gradient[name] - g).max() <= 1e-11 * abs(g).max()


@pytest.mark.parametrize("activation", [ep.HARD_SIGMOID, ep.SIGMOID], ids=lambda activation: activation.name)
def test_small_responses_in_float32(activation):
    """Six layers at gamma = 0.02: the first answers with 1e-9 of the nudge, and float32 keeps its digits."""
    net = network(size=64, channels=(4, 4, 4, 4, 4, 4), feedback=0.02, dtype="float32", activation=activation, scale=4.0)
    exact = ep.builders.from_recipe({**net.recipe, "dtype": "float64", "feedback": 0.02},
                                    {name: w.astype("float64") for name, w in net.parameters().items()})
    x, y, _ = example(net, dtype="float32")
    phases = Phases(Phase(4, "up"), Phase(2, "down"))
    found = ep.eqprop_gradient(net, x, y, phases, nudging=SYMMETRIC, solver=fast.prepared(net))
    expected = ep.eqprop_gradient(exact, x.astype("float64"), y, phases, nudging=SYMMETRIC)
    for name, g in expected.gradient.items():
        assert found.gradient[name].dtype == np.float32 and abs(g).max() > 0
        assert abs(found.gradient[name] - g).max() < 1e-3 * abs(g).max()


@pytest.mark.parametrize("deviations", [True, False])
@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
def test_the_gradient(connections, deviations):
    """All of eqprop_gradient with the fast path, both phases stopped by residual."""
    net = network("average", size=12, connections=connections)
    x, y, _ = example(net)
    phases = Phases(Phase(200, "checkerboard", 1e-9), Phase(100, "checkerboard", 1e-9), deviations)
    options = dict(nudging=SYMMETRIC, transposed=connections == "symmetric")
    expected = ep.eqprop_gradient(net, x, y, phases, **options)
    found = ep.eqprop_gradient(net, x, y, phases, solver=fast.prepared(net), **options)
    assert [p.steps for p in found.nudged] == [p.steps for p in expected.nudged] and found.nudged[0].steps < 100
    for name, g in expected.gradient.items():
        assert abs(g).max() > 0 and abs(found.gradient[name] - g).max() <= 1e-10 * abs(g).max()


def test_chunks_and_threads():
    """37 images are chunks of 16, 16 and 5: the same bits for any number of threads, and the readable path's gradient."""
    net = network("average", size=12, channels=(8, 9), dtype="float32", feedback=0.3)
    x, y, _ = example(net, N=37, dtype="float32")
    one_chunk = partial(ep.eqprop_gradient, phases=Phases(Phase(8, "up"), Phase(4, "down")), nudging=SYMMETRIC)
    results = []
    for threads in (1, 2, 5):
        with ep.worker_threads(threads) as map:
            results.append(ep.in_chunks(partial(one_chunk, solver=fast.prepared(net)), net, x, y, map).gradient)
    readable = ep.in_chunks(one_chunk, net, x, y).gradient
    for name, g in results[0].items():
        assert (g == results[1][name]).all() and (g == results[2][name]).all()
        assert abs(g - readable[name]).max() < 1e-3 * abs(g).max()


# --- buffers that live on -------------------------------------------------------------------------------------------------


def test_results_are_not_overwritten():
    """What relax and response returned stays what it is while the same buffers relax other images."""
    net = network(feedback=0.3)
    (x, y, _), (other, _, _) = example(net), example(net, seed=1)
    y, solver = net.targets(y, x.dtype), fast.prepared(net)
    free = solver.relax(net, x, Phase(2, "up"))
    mu, phases = solver.response(net, y, free, SYMMETRIC, Phase(1, "down"))
    gradient = solver.products(net, x, free.states, free.switches, mu)
    arrays = [*free.states, *free.u, *free.switches, *mu, *phases[0].states, *phases[1].states, *gradient.values()]
    copies = [a.copy() for a in arrays]
    other_free = solver.relax(net, other, Phase(2, "up"))
    other_mu, _ = solver.response(net, y, other_free, SYMMETRIC, Phase(1, "down"))
    solver.products(net, other, other_free.states, other_free.switches, other_mu)
    assert all((a == b).all() for a, b in zip(arrays, copies))
    again, _ = solver.response(net, y, free, SYMMETRIC, Phase(1, "down"))  # the buffers hold the other images' state by now
    assert_close(again, mu)
    solver.relax(net, other, Phase(2, "up"))
    found = solver.products(net, x, free.states, free.switches, mu)
    assert_close(list(found.values()), list(gradient.values()))


def test_products_of_any_states():
    """Not only of those that `relax` has left in its buffers: of random ones, of BPTT's, of a list with one entry replaced."""
    net = network(feedback=0.3, connections="asymmetric")
    x, y, states = example(net)
    solver, rng = fast.prepared(net), np.random.default_rng(1)
    free = solver.relax(net, x, Phase(2, "up"))
    mu = [rng.normal(size=s.shape) for s in states]
    mixed = [free.states[0], states[1], free.states[2]]
    for inputs, s in ((x, free.states), (x[::-1], free.states), (x, states), (x, mixed)):
        found, expected = (f(inputs, s, free.switches, mu) for f in (partial(solver.products, net), net.parameter_adjoint))
        assert_close([found[name] for name in expected], list(expected.values()))


def test_buffers_are_used_again():
    """The same ones after an update; a thread keeps two numbers of images, and a network of another shape has its own."""
    net = network()
    kernels = fast.transformed(net)
    chain = chain_of(kernels, 3)
    assert chain_of(fast.transformed(net), 3) is chain and chain_of(kernels, 2) is not chain
    assert chain_of(kernels, 3) is chain
    for options in (dict(pool="average"), dict(connections="asymmetric")):
        assert chain_of(fast.transformed(network(**options)), 3) is not chain
    assert chain_of(kernels, 3) is not chain


# --- what it leaves to the readable path ------------------------------------------------------------------------------


def unsuitable_networks():
    net = network("average", size=12)
    own, padded = (network("average", size=12) for _ in range(2))
    own.synapses[1].__class__ = type("Own", (ep.Conv,), {})
    shape = net.shapes[1]
    padded.synapses[1:] = [ep.Conv(net.synapses[1].W, net.synapses[1].b, shape, padding=3, pool=ep.NO_POOL)]
    padded = ep.Network(padded.synapses, net.activation, ep.SquaredError())
    skip = ep.Dense(np.ones((3, 3)) / 3, np.zeros(3), (3,))
    driven = ep.Network([net.synapses[0], ep.Dense(np.ones((np.prod(shape), 3)) / 50, np.zeros(3), shape), skip],
                        net.activation, ep.SquaredError(), wiring=[(0, 1), (1, 3), (2, 3)])
    pooled = network("average", size=12)
    pooled.synapses[1].pool = ep.AVERAGE_POOL._replace(pool=lambda y: (2 * ops.average_pool(y)[0], None))
    return {"another kind, Own": own, "more padding": padded, "no synapse leads to": driven, "pooling of another kind": pooled}


@pytest.mark.parametrize("reason", ["another kind, Own", "more padding", "no synapse leads to", "pooling of another kind"])
def test_unsuitable_networks_take_the_readable_path(reason):
    """With the reason in words, and bit for bit."""
    net = unsuitable_networks()[reason]
    x, y, start = example(net)
    assert reason in fast.unsuitable(net) and reason in fast.path(net) and "readable" in fast.path(net)
    assert fast.prepared(net) is ep.READABLE
    found, expected = (r(net, x, 3, start=start) for r in (fast.relax, dynamics.relax))
    assert_equal(found, expected, bound=0.0)
    y = net.targets(y, x.dtype) if net.cost.parameters() else start[-1]
    (mu, _), (mu_expected, _) = (r(net, y, found, SYMMETRIC, 3) for r in (fast.response, dynamics.response))
    assert_close(mu, mu_expected, bound=0.0)
    gradient, g_expected = (f(x, found.states, found.switches, mu) for f in (partial(fast.products, net), net.parameter_adjoint))
    assert_close(list(gradient.values()), list(g_expected.values()), bound=0.0)


def test_a_synapse_of_ones_own_with_feedback():
    """Asymmetric around a synapse of another kind is of another kind."""
    net = ep.asymmetric(unsuitable_networks()["another kind, Own"])
    assert "another kind, Own" in fast.unsuitable(net)


def test_other_dtypes_are_converted_and_stay_fast(monkeypatch):
    """Inputs and a start that are not of the weights' dtype: as if they had been, bit for bit, and not by the readable path."""
    net = network("average", size=12, dtype="float32")
    x, y, start = example(net)
    narrow = x.astype("float32")
    for inputs, beginning in ((x, None), (narrow, start), (x, start)):
        found = fast.prepared(net).relax(net, inputs, 3, y, 0.1, start=beginning)
        as_float32 = None if beginning is None else [s.astype("float32") for s in beginning]
        assert_equal(found, fast.prepared(net).relax(net, narrow, 3, y, 0.1, start=as_float32), bound=0.0)
    phases = Phases(3, 2)
    of_x, of_narrow = (ep.eqprop_gradient(net, given, y, phases, nudging=SYMMETRIC, solver=fast.prepared(net)).gradient
                       for given in (x, narrow))
    assert all((of_x[name] == g).all() and of_x[name].dtype == np.float32 for name, g in of_narrow.items())
    monkeypatch.setattr(dynamics, "relax", None)
    fast.prepared(net).relax(net, x, 3, start=start)


def test_kernels_of_another_network_are_refused():
    x, _, start = example(network("average", size=12))
    with pytest.raises(EPError, match="another network"):
        fast.prepared(network("average", size=12)).relax(network("average", size=12, seed=1), x, 1, start=start)


def test_complex_nudging_takes_the_readable_path():
    net = ep.convnet([3, 4], (8, 8, 2), 3, pool=ep.AVERAGE_POOL, activation=ep.SIGMOID, dtype="float64")
    x, y, start = example(net)
    found, expected = (r(net, x, 3, y, 0.1 + 0.1j, start=start) for r in (fast.prepared(net).relax, dynamics.relax))
    assert_equal(found, expected, bound=0.0)
    phases, nudging = Phases(3, 3), ep.Nudging.holomorphic(0.3, 4)
    found, expected = (ep.eqprop_gradient(net, x, y, phases, nudging=nudging, solver=solver)
                       for solver in (fast.prepared(net), ep.READABLE))
    assert_close(list(found.gradient.values()), list(expected.gradient.values()))


def test_errors_are_those_of_the_readable_path():
    net = network()
    x, y, _ = example(net)
    for arguments in ((1, None, 0.5), (1, y[:1], 0.5)):
        messages = []
        for relax in (fast.relax, dynamics.relax):
            with pytest.raises(EPError) as caught:
                relax(net, x, *arguments)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
