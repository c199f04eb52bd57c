"""The engine's synapses are those of the core: the same relaxations and gradients in float64 to rounding, for every network.

(numpy only: the parts for a GPU are in test_kernels.py and test_graph.py.)
"""

import copy
from functools import partial

import numpy as np
import pytest
from helpers import conv_loops, held

import ep
from ep import engine, ops
from ep.engine import cpu, winograd
from ep.engine.cpu import LOCAL, TiledConv, inside, outside
from ep.engine.winograd import (
    TILES,
    Scratch,
    Winograd,
    WinogradProduct,
    multiplications,
    tile,
    transform_flipped,
    transform_gradient,
    transform_kernel,
)
from ep.phase import SCHEDULES

SYMMETRIC = ep.Nudging.symmetric(0.5)
every_tile = pytest.mark.parametrize("m", TILES)


def network(pool="max", cost="cross-entropy", size=13, channels=(4, 5, 6), dtype="float64", connections="symmetric", **options):
    options = dict(paddings=[1] * len(channels), scale=1.5) | options
    made = ep.convnet(channels, (size, size, 2), 3, pool=pool, cost=cost, dtype=dtype, **options)
    return ep.CONNECTIONS[connections](made)


def example(network, N=3, seed=0, dtype="float64"):
    """Inputs, labels, and random states to start from."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, *network.shapes[0])).astype(dtype)
    return x, rng.integers(0, 3, N), [rng.random((N, *shape)).astype(dtype) for shape in network.shapes[1:]]


def assert_same(found, expected, bound=1e-12):
    """Two `Relaxation`s: the same steps, states, switches and residuals."""
    assert found.steps == expected.steps and [t for t, _ in found.history] == [t for t, _ in expected.history]
    assert abs(np.array(found.history) - np.array(expected.history)).max() <= bound
    for s, s_expected in zip(found.states, expected.states, strict=True):
        assert s.shape == s_expected.shape and s.dtype == s_expected.dtype and abs(s - s_expected).max() <= bound
    assert flat(found.switches) == flat(expected.switches)


def flat(switches):
    """Switches as something that == compares."""
    if isinstance(switches, (list, tuple)):
        return [flat(sw) for sw in switches]
    return None if switches is None else (switches.shape, switches.dtype, switches.tobytes())


def assert_close(found, expected, bound=1e-11):
    """Gradients relative to their largest number: those of the first layers are as small as the gain makes them."""
    assert list(found) == list(expected)
    for name, g in expected.items():
        assert found[name].shape == g.shape and found[name].dtype == g.dtype
        assert abs(g).max() > 0 and abs(found[name] - g).max() <= bound * abs(g).max(), name


@pytest.fixture(params=["all", "few"])
def rows_at_once(request, monkeypatch):
    """All rows of tiles at once, as in small networks; and as few as possible, as in large ones."""
    LOCAL.__dict__.clear()  # the buffers of other tests
    if request.param == "few":
        monkeypatch.setattr(winograd, "CACHED", 1)
    yield
    LOCAL.__dict__.clear()


# --- the convolutions -------------------------------------------------------------------------------------------------


def convolution(m, W, size_in, size_out, padding, N):
    """(the convolution, its transformed kernel)"""
    return Winograd(m, size_in, size_out, padding, N, W.shape[2:], Scratch(W.dtype)), transform_kernel(W, m)


@every_tile
@pytest.mark.parametrize("H,W", [(8, 8), (5, 7), (3, 4), (9, 3), (4, 16)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_convolution_is_that_of_the_loops(m, H, W, padding, rows_at_once):
    """Every size, also those that tiles do not divide; in memory of its own and not; the second time finds used buffers."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, H, W, 3)), rng.normal(size=(3, 3, 3, 5))
    expected = conv_loops(x, kernel, padding=padding)
    conv, U = convolution(m, kernel, (H, W), expected.shape[1:3], padding, 2)
    for own in (True, False):
        conv.input[...] = inside(x)
        assert abs(outside(conv.result(U, own)) - expected).max() <= 1e-13 * abs(expected).max()
        x, expected = -2 * x, -2 * expected


@every_tile
def test_tiles_and_kernels(m):
    """A tile is exact for all unit vectors, a bilinear identity; the way down has the flipped kernel; adjoints are adjoints."""
    matrices, rng = TILES[m], np.random.default_rng(0)
    for i, x in enumerate(np.eye(m + 2)):
        for j, g in enumerate(np.eye(3)):
            y = np.array(matrices.A_T) @ ((np.array(matrices.G) @ g) * (np.array(matrices.B_T) @ x))
            assert np.allclose(y, [i == t + j for t in range(m)], atol=1e-15)
    W, dU = rng.normal(size=(3, 3, 4, 5)), rng.normal(size=((m + 2) ** 2, 4, 5))
    assert abs(transform_flipped(W, m) - transform_kernel(W[::-1, ::-1].transpose(0, 1, 3, 2), m)).max() < 1e-14
    assert abs((transform_kernel(W, m) * dU).sum() - (W * transform_gradient(dU, m)).sum()) < 1e-12
    assert multiplications(4, (8, 8)) == 4 * 36 and multiplications(2, (8, 8)) == 16 * 16 and multiplications(4, (5, 8)) == 144
    assert (tile((8, 8)), tile((2, 2)), tile((4, 4)), tile((1, 6))) == (4, 2, 4, 2)


@every_tile
@pytest.mark.parametrize("H,W", [(8, 8), (5, 7), (3, 4), (4, 16)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_sum_of_products(m, H, W, padding, rows_at_once):
    """Both products of a synapse together, and the first alone, against the readable adjoint."""
    rng = np.random.default_rng(0)
    kernel, sizes = np.zeros((3, 3, 3, 5)), (H + 2 * padding - 2, W + 2 * padding - 2)
    product = WinogradProduct(convolution(m, kernel, (H, W), sizes, padding, 2)[0])
    x, y = rng.normal(size=(2, 2, H, W, 3)), rng.normal(size=(2, 2, *sizes, 5))
    for i in range(2):
        product.x[i][...], product.y[i][...] = inside(x[i]), inside(y[i])
    first, second = (ops.conv_adjoint_kernel(a, b, 3, padding=padding) for a, b in zip(x, y))
    for found, dW in ((product.result(2), first + second), (product.result(1), first)):
        assert found.shape == dW.shape and abs(found - dW).max() <= 2e-13 * abs(dW).max()


@pytest.mark.parametrize("m,bound", [(2, 5e-7), (4, 2e-6)])
def test_rounding_in_float32(m, bound):
    """The error of the paper's second convolution, relative to the rms of the result, is as the docs say; of its product, too."""
    rng = np.random.default_rng(0)
    x, kernel = rng.random((2, 16, 16, 128)).astype("f"), rng.normal(size=(3, 3, 128, 256)).astype("f")
    exact = ops.conv(x.astype("d"), kernel.astype("d"), padding=1)
    conv, U = convolution(m, kernel, (16, 16), (16, 16), 1, 2)
    conv.input[...] = inside(x)
    error = outside(conv.result(U)) - exact
    assert 1e-8 < (error**2).mean() ** 0.5 / (exact**2).mean() ** 0.5 < bound
    y = rng.normal(size=(2, 16, 16, 256)).astype("f")
    product, exact = WinogradProduct(conv), ops.conv_adjoint_kernel(x.astype("d"), y.astype("d"), 3, padding=1)
    product.y[0][...] = inside(y)
    error = product.result(1) - exact
    assert 1e-8 < (error**2).mean() ** 0.5 / (exact**2).mean() ** 0.5 < 1e-5


# --- a synapse in the place of another ------------------------------------------------------------------------------------


def own_pooling():
    """Every third pixel: windows of another size, of which the engine knows nothing."""
    def pool(y):
        return y[:, ::3, ::3] * 1.0, None

    def unpool(v, switches, shape):
        y = np.zeros((len(v), *shape, v.shape[3]), v.dtype)
        y[:, ::3, ::3] = v
        return y

    return ops.Pooling("every third", pool, lambda y, switches: pool(y)[0], unpool, lambda size: -(-size // 3), True)


@pytest.mark.parametrize("options", [
    dict(), dict(size=22, paddings=[1, 1, 0]), dict(size=22, paddings=[1, 1, 0], pool="average"), dict(size=2, channels=(3,)),
    dict(size=9, channels=(3, 4), pool="none"), dict(size=14, pool="average")],
    ids=["max", "valid", "valid, average", "one tile", "no pooling", "average"])
def test_every_method_of_a_convolution(options, rows_at_once):
    """Drives, given switches, winners and products, on sizes that neither tiles nor windows divide, by synapse."""
    net, rng = network(**options), np.random.default_rng(1)
    for synapse in net.synapses:
        fast = cpu.exchanged(synapse)
        assert type(fast) is TiledConv
        pre, other = rng.normal(size=(2, 3, *synapse.pre_shape))
        post, mu = rng.normal(size=(2, 3, *synapse.post_shape))
        (v, switches), (v_expected, expected) = fast.drive_post(pre), synapse.drive_post(pre)
        assert abs(v - v_expected).max() < 1e-12 and flat(switches) == flat(expected)
        assert flat(fast.winners(pre)) == flat(synapse.winners(pre))
        for method, arguments in (("linear_post", (other,)), ("drive_pre", (post,)), ("drive_post_adjoint", (post,)),
                                  ("drive_pre_adjoint", (other,))):
            a, b = getattr(fast, method)(*arguments, switches), getattr(synapse, method)(*arguments, switches)
            assert abs(a - b).max() < 1e-12, method
        given = fast.drive_post(other, switches)
        assert abs(given[0] - synapse.drive_post(other, switches)[0]).max() < 1e-12 and given[1] is switches
        for method, arguments in (("hebbian", (pre, post)), ("hebbian_down", (pre, post)),
                                  ("hebbian_pair", (pre, mu, other, post, 0.3))):
            assert_close(getattr(fast, method)(*arguments, switches), getattr(synapse, method)(*arguments, switches))
        assert flat(switches) == flat(expected)  # still


def test_results_are_not_overwritten():
    """What a synapse returned stays what it is while the same buffers work on other images."""
    net = engine.prepared(network(feedback=0.3))
    (x, y, _), (other, _, _) = example(net), example(net, seed=1)
    run = partial(ep.eqprop_gradient, net, y=y, phases=ep.Phases(ep.Phase(3, "up"), ep.Phase(2, "down"), True),
                  nudging=SYMMETRIC)
    found = run(x)
    arrays = [*found.free.states, *found.free.u, *found.free.switches, *found.nudged[0].states, *found.gradient.values()]
    copies = [a.copy() for a in arrays]
    run(other)
    assert all((a == b).all() for a, b in zip(arrays, copies))
    synapse = cpu.exchanged(network("none", size=9).synapses[1])
    for method, shape in ((synapse.linear_post, synapse.pre_shape), (synapse.drive_pre, synapse.post_shape)):
        first, second = np.random.default_rng(0).random((2, 3, *shape))
        found = method(first, None)
        copy = found.copy()
        method(second, None)
        assert (found == copy).all()


def test_kernels_follow_new_weights_but_not_a_change_in_place():
    """`set_parameters` is seen; after an update in place `prepared` must be called again."""
    net = network("average", size=12)
    x, _, start = example(net)
    fast = engine.prepared(net)
    fast.set_parameters({name: 0.7 * w for name, w in net.parameters().items()})
    changed = network("average", size=12)
    changed.set_parameters(fast.parameters())
    assert_same(ep.relax(fast, x, 2, start=start), ep.relax(changed, x, 2, start=start))
    for w in net.parameters().values():
        w *= 1.5
    assert_same(ep.relax(engine.prepared(net), x, 2, start=start), ep.relax(net, x, 2, start=start))


def test_what_is_prepared_is_not_saved(tmp_path):
    with pytest.raises(ep.EPError, match="save the one it was made of"):
        engine.prepared(network("average", size=12)).save(tmp_path / "net.npz")


def test_large_kernels(monkeypatch):
    """Their channels are not exchanged, and both products go through together."""
    monkeypatch.setattr(winograd, "LARGE", 0)
    LOCAL.__dict__.clear()
    net = network(feedback=0.3)
    x, y, _ = example(net)
    found, expected = (ep.eqprop_gradient(n, x, y, ep.Phases(5, 3, deviations=True), nudging=SYMMETRIC)
                       for n in (engine.prepared(net), net))
    assert_same(found.free, expected.free)
    assert_close(found.gradient, expected.gradient)
    LOCAL.__dict__.clear()


def test_what_a_pooling_leaves_out_stays_zero():
    """Of 13 rows max-pooling covers 12: the last one of the buffer is not that of a synapse of the same shape without pooling."""
    rng = np.random.default_rng(0)
    W, b, shape = rng.normal(size=(3, 3, 2, 2)), np.zeros(2), (13, 13, 2)
    for pool in ("none", "max"):
        synapse = ep.Conv(W, b, shape, pool=pool)
        pre, post = rng.random((3, *shape)), rng.random((3, *synapse.post_shape))
        switches = synapse.drive_post(pre)[1]
        fast = cpu.exchanged(synapse)
        assert abs(fast.drive_pre(post, switches) - synapse.drive_pre(post, switches)).max() < 1e-12
        assert_close(fast.hebbian(pre, post, switches), synapse.hebbian(pre, post, switches))


# --- networks ---------------------------------------------------------------------------------------------------------------


KINDS = [("max", ep.HARD_SIGMOID), ("average", ep.CLIP), ("max", ep.SHIFTED_SIGMOID), ("average", ep.TANH),
         ("none", ep.HARD_SIGMOID)]


@pytest.mark.parametrize("connections,schedule,cost,pool,activation", [  # every kind with every schedule; the rest takes turns
    (["symmetric", "asymmetric"][(k + n) % 2], schedule, ["cross-entropy", "squared-error"][(k + n // 2) % 2], *kind)
    for k, kind in enumerate(KINDS) for n, schedule in enumerate(SCHEDULES)])
def test_every_relaxation_and_gradient(connections, schedule, cost, pool, activation):
    """Free from zero and from a state, nudged, with frozen switches, over-relaxed; gradients by deviations, states and BPTT."""
    net = network(pool, cost, size=7 if pool == "none" else 13, connections=connections, activation=activation)
    x, y, start = example(net)
    frozen = ep.relax(net, x, 1, start=start).switches
    omega = 1.0 if schedule == "synchronous" or activation.slope is None else 1.3
    for gain in (1.0, 0.3):
        net.feedback = gain
        fast, phase = engine.prepared(net), ep.Phase(4, schedule, check_every=1, omega=omega)
        for arguments, options in (((), {}), ((y, 0.3), dict(start=start))):
            assert_same(ep.relax(fast, x, phase, *arguments, **options), ep.relax(net, x, phase, *arguments, **options))
        assert_same(*(ep.relax(held(n, frozen), x, phase, y, -0.2, start=start) for n in (fast, net)))
        gradients = [partial(ep.eqprop_gradient, phases=ep.Phases(phase, ep.Phase(6, schedule, omega=omega), deviations=True),
                             nudging=ep.Nudging.four_point(0.4), transposed=transposed) for transposed in (True, False)]
        gradients.append(partial(ep.eqprop_gradient, phases=ep.Phases(phase, 6, deviations=False), nudging=SYMMETRIC,
                                 transposed=False))
        gradients.append(partial(ep.bptt_gradient, phases=ep.Phases(7, 6)))
        for gradient in gradients:
            found, expected = gradient(fast, x, y), gradient(net, x, y)
            assert found.correct == expected.correct and found.loss == pytest.approx(expected.loss, rel=1e-12)
            assert_close(found.gradient, expected.gradient, 1e-9)


@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("channels,size", [((4, 5, 6), 22), ((4, 4, 4, 4), 40)])
def test_max_pooling_from_zero(connections, schedule, channels, size):
    """As training starts. Synchronous: layers that no image has reached are constant, and all their windows tie."""
    net = network(size=size, channels=channels, connections=connections)
    x, _, _ = example(net)
    expected = ep.relax(net, x, ep.Phase(9, schedule, check_every=1))
    for options in ({}, dict(start=net.init_state(x))):  # the same, as a start
        assert_same(ep.relax(engine.prepared(net), x, ep.Phase(9, schedule, check_every=1), **options), expected)


class Doubled(ep.Dense):
    """A synapse of one's own."""

    def linear_post(self, pre, switches=None):
        return 2 * super().linear_post(pre, switches)

    def drive_pre(self, post, switches=None):
        return 2 * super().drive_pre(post, switches)

    def hebbian(self, pre, post, switches=None):
        g = super().hebbian(pre, post, switches)
        return {**g, "W": 2 * g["W"]}


def own_parts():
    """A network with a synapse, a pooling, an activation and a cost that are none of this package's."""
    rng = np.random.default_rng(3)
    pool = own_pooling()
    first = ep.Conv(rng.normal(size=(3, 3, 2, 4)) / 4, np.zeros(4), (13, 14, 2), pool="max")
    second = ep.Conv(rng.normal(size=(3, 3, 4, 5)) / 6, np.full(5, 0.1), first.post_shape, pool=pool)
    third = Doubled(rng.normal(size=(np.prod(second.post_shape), 3)) / 9, np.full(3, 0.2), second.post_shape)
    leaky = ep.CLIP._replace(name="own", sigma=lambda u: np.tanh(u) ** 2 / 2 + np.clip(u, 0, 1) / 2)
    leaky = leaky._replace(slope=None, difference=lambda u, d: leaky.sigma(u + d) - leaky.sigma(u))
    return ep.Network([first, second, third], leaky, OwnCost(), feedback=0.5)


class OwnCost(ep.SquaredError):
    """Twice the squared error."""

    def value(self, s, y):
        return 2 * super().value(s, y)

    def force(self, s, y):
        return 2 * super().force(s, y)


def test_parts_of_ones_own_work_beside_the_engines(monkeypatch):
    """Convolutions are exchanged around them, also around a pooling that got its row in the table."""
    net = own_parts()
    monkeypatch.setitem(ops.POOLINGS, "every third", net.synapses[1].pool)
    fast, (x, y, _) = engine.prepared(net), example(net)
    assert [type(synapse) for synapse in fast.synapses] == [TiledConv, ep.Conv, Doubled]
    for phases in (ep.Phases(6, 4), ep.Phases(6, 4, deviations=True)):
        found, expected = (ep.eqprop_gradient(n, x, y, phases, nudging=SYMMETRIC) for n in (fast, net))
        assert_same(found.free, expected.free)
        assert_close(found.gradient, expected.gradient, 1e-9)


def test_what_stays_as_it_is():
    """Other kernels, more padding than the kernel covers, a stride, complex weights, parameters of several types; complex nudging
    and other dtypes take the core's way."""
    conv = network("average", size=12).synapses[1]
    five, shape = np.ones((5, 5, *conv.W.shape[2:])), conv.pre_shape
    for other in (ep.Conv(five, conv.b, shape, padding=2), ep.Conv(conv.W, conv.b, shape, stride=2, pool="none"),
                  ep.Conv(conv.W, conv.b, shape, padding=3, pool="none"), ep.Conv(conv.W, conv.b.astype("f"), shape),
                  ep.Conv(conv.W + 0j, conv.b + 0j, shape, pool="average"), ep.mlp([6, 5, 4, 3]).synapses[0]):
        assert cpu.exchanged(other) is other
    net = ep.convnet([3, 4], (8, 8, 2), 3, pool="average", activation=ep.SHIFTED_SIGMOID, dtype="float64")
    x, y, start = example(net)
    assert_same(ep.relax(engine.prepared(net), x, 3, y, 0.1 + 0.1j, start=start), ep.relax(net, x, 3, y, 0.1 + 0.1j, start=start))
    found, expected = (ep.eqprop_gradient(n, x, y, ep.Phases(3, 3), nudging=ep.Nudging.holomorphic(0.3, 4))
                       for n in (engine.prepared(net), net))
    assert_close(found.gradient, expected.gradient)


def test_float32_stays_float32_and_loses_no_digits():
    """Six layers at gamma = 0.02: the first answers with 1e-9 of the nudge."""
    net = network(size=64, channels=(4, 4, 4, 4, 4, 4), feedback=0.02, dtype="float32", scale=4.0)
    exact = copy.deepcopy(net)
    exact.set_parameters({name: w.astype("float64") for name, w in net.parameters().items()})
    x, y, _ = example(net, dtype="float32")
    phases = ep.Phases(ep.Phase(4, "up"), ep.Phase(2, "down"), deviations=True)
    found = ep.eqprop_gradient(engine.prepared(net), x, y, phases, nudging=SYMMETRIC).gradient
    for name, g in ep.eqprop_gradient(exact, x.astype("float64"), y, phases, nudging=SYMMETRIC).gradient.items():
        assert found[name].dtype == np.float32 and abs(g).max() > 0
        assert abs(found[name] - g).max() < 1e-3 * abs(g).max()


def test_chunks_and_threads():
    """37 images are chunks of 16, 16 and 5: the same bits for any number of threads, and the readable gradient."""
    net = network("average", size=12, channels=(8, 9), dtype="float32", feedback=0.3)
    x, y, _ = example(net, N=37, dtype="float32")
    phases = ep.Phases(ep.Phase(8, "up"), ep.Phase(4, "down"), deviations=True)
    one_chunk = partial(ep.eqprop_gradient, phases=phases, nudging=SYMMETRIC)
    results = []
    for threads in (1, 2, 5):
        with ep.worker_threads(threads) as map:
            results.append(ep.in_chunks(one_chunk, engine.prepared(net, map), x, y, map).gradient)
    readable = ep.in_chunks(one_chunk, net, x, y).gradient
    for name, g in results[0].items():
        assert (g == results[1][name]).all() and (g == results[2][name]).all()
        assert abs(g - readable[name]).max() < 1e-3 * abs(g).max()


def test_buffers_are_used_again(monkeypatch):
    """A thread keeps them; convolutions of one shape share theirs; and they do not pile up."""
    LOCAL.__dict__.clear()
    net = engine.prepared(network(channels=(4, 4, 4), paddings=[1, 1, 1], pool="none"))
    for _ in range(2):
        ep.relax(net, example(net, 4)[0], 2)
        kept = dict(LOCAL.kept)
        assert len(kept) == 2  # the first convolution, and the two that have one shape
    ep.relax(net, example(net, 4)[0], 2)
    assert LOCAL.kept == kept
    monkeypatch.setattr(cpu, "MOST", 3)
    for N in range(2, 9):
        ep.relax(net, example(net, N)[0], 2)
        assert len({images for images, *_ in LOCAL.kept}) <= 3 and N in {images for images, *_ in LOCAL.kept}
    LOCAL.__dict__.clear()
