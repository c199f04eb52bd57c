"""The training step of a GPU (ep/fast/graph.py) is the readable one: the same gradient, numbers and states, for every network.

What is compared runs on CuPy: launches on a GPU or its double; on a GPU, where cuBLAS can be asked directly, a recorded graph.
"""

from functools import partial

import numpy as np
import pytest
from cupy_on_cpu import running
from helpers import normal, relative

import ep
from ep.backend import to_host
from ep.fast import blas, graph, kernels
from ep.train import loop

on_gpu = [pytest.mark.gpu, pytest.mark.parametrize("xp", ["cupy"], indirect=True)]
pytestmark = on_gpu
UP_DOWN = ep.Phases(ep.Phase(3, "up"), ep.Phase(2, "down"))
NUDGINGS = {"symmetric": ep.Nudging.symmetric(0.3), "one-sided": ep.Nudging.one_sided(0.3),
            "five points": ep.Nudging((-0.2, -0.1, 0.0, 0.1, 0.2), tuple(c / 1.2 for c in (1, -8, 0, 8, -1)))}


def example(xp, connections="symmetric", dtype="float64", **options):
    network = ep.convnet([3, 4, 5], (16, 16, 2), 3, **dict(dict(scale=1.5, dtype=dtype, feedback=0.4), **options))
    network = ep.CONNECTIONS[connections](network).to(xp)
    return network, normal(xp, (4, 16, 16, 2), 0, dtype), np.array([0, 1, 2, 0])


def compare(network, x, y, phases, bound=1e-9, **options):
    """The estimates by both ways, which agree; that of graph.py is made three times, for the first one is special."""
    recorder, fused = graph.Recorder(), kernels.fused(network)
    assert graph.unsuitable(network, phases, options["nudging"]) is None
    expected = ep.eqprop_gradient(network, x, y, phases, **options)
    for _ in range(3):
        found = recorder.eqprop_gradient(fused, x, y, phases, **options)
    assert list(found.gradient) == list(expected.gradient)
    for name, g in expected.gradient.items():
        assert relative(found.gradient[name], g) < bound, name
    for s, t in zip(found.free.states, expected.free.states, strict=True):
        assert abs(s - t).max() < bound
    assert found.loss == pytest.approx(expected.loss, rel=bound) and found.correct == expected.correct
    assert found.free.steps == expected.free.steps and found.free.residual == pytest.approx(expected.free.residual, rel=1e-6)
    assert found.free.converged == expected.free.converged and found.free.history[-1] == (found.free.steps, found.free.residual)
    assert loop.gradient_norms(found) == pytest.approx(loop.gradient_norms(expected), rel=1e-6)
    assert loop.stuck_shares(network, found) == pytest.approx(loop.stuck_shares(network, expected))
    return found


@pytest.mark.parametrize("nudging", NUDGINGS)
@pytest.mark.parametrize("connections, transposed", [("symmetric", True), ("asymmetric", True), ("asymmetric", False)])
def test_gradients(xp, connections, transposed, nudging):
    """Few-sweep phases, which are far from the fixed point: it is the same step, not only the same limit."""
    compare(*example(xp, connections), UP_DOWN, nudging=NUDGINGS[nudging], transposed=transposed)


@pytest.mark.parametrize("free", ep.dynamics.SCHEDULES)
@pytest.mark.parametrize("nudged", ep.dynamics.SCHEDULES)
def test_every_schedule(xp, free, nudged):
    compare(*example(xp), ep.Phases(ep.Phase(4, free), ep.Phase(3, nudged)), nudging=NUDGINGS["symmetric"])


@pytest.mark.parametrize("steps", [(1, 1), (2, 1), (5, 4)])
@pytest.mark.parametrize("feedback", [0.0, 0.01, 1.0])
def test_every_number_of_sweeps_and_every_gain(xp, feedback, steps):
    T, K = steps
    compare(*example(xp, feedback=feedback), ep.Phases(ep.Phase(T, "up"), ep.Phase(K, "down")), nudging=NUDGINGS["symmetric"])


@pytest.mark.parametrize("cost", [ep.SoftmaxCrossEntropy, ep.SquaredError])
@pytest.mark.parametrize("activation, pool", [
    (ep.HARD_SIGMOID, ep.MAX_POOL), (ep.CLIP, ep.MAX_POOL), (ep.RELU6, ep.AVERAGE_POOL), (ep.SHIFTED_SIGMOID, ep.AVERAGE_POOL),
    (ep.TANH, ep.AVERAGE_POOL)],
    ids=lambda part: part.name)
def test_every_part(xp, activation, pool, cost):
    network, x, y = example(xp, activation=activation, pool=pool, cost=cost)
    network.synapses[-1].b += 0.5  # else all output units are 0 with squared error, and there is no gradient
    compare(network, x, y, UP_DOWN, nudging=NUDGINGS["symmetric"])


def test_skips(xp):
    """Several synapses into a layer, and several out of it."""
    sizes, wiring = [5, 6, 4, 7, 3], [(0, 1), (1, 2), (2, 3), (1, 3), (3, 4), (0, 2), (1, 4)]
    synapses = [ep.Dense(normal(xp, (sizes[i], sizes[j]), k), normal(xp, (sizes[j],), 50 + k), (sizes[i],))
                for k, (i, j) in enumerate(wiring)]
    network = ep.Network(synapses, ep.HARD_SIGMOID, ep.SquaredError(), wiring, feedback=0.5)
    for schedule in ep.dynamics.SCHEDULES:
        compare(network, normal(xp, (6, 5), 99), np.arange(6) % 3, ep.Phases(ep.Phase(4, schedule), 3),
                nudging=NUDGINGS["symmetric"])


@pytest.mark.parametrize("pool", [ep.MAX_POOL, ep.AVERAGE_POOL], ids=lambda part: part.name)
def test_residual_network(xp, pool):
    """Identities, strides and 1x1 convolutions."""
    network = ep.resnet(3, (4, 8), (8, 8, 3), 3, pool=pool, feedback=0.3, dtype="float64", scale=1.5).to(xp)
    compare(network, normal(xp, (4, 8, 8, 3), 1), np.array([0, 1, 2, 0]), UP_DOWN, nudging=NUDGINGS["symmetric"])


def test_float32(xp):
    """A weak gain, where a difference of float32 states would leave nothing: the deviations keep their digits."""
    network, x, y = example(xp, dtype="float32", feedback=0.01)
    found = compare(network, x, y, UP_DOWN, bound=1e-3 if blas.tf32() else 1e-4, nudging=NUDGINGS["symmetric"])
    assert {g.dtype for g in found.gradient.values()} == {np.dtype("float32")}


def test_other_arrays_the_next_time(xp):
    """What is replayed reads the images, labels and weights of this call, and other shapes are recorded anew."""
    network, x, y = example(xp)
    network, recorder, run = kernels.fused(network), graph.Recorder(), partial(ep.eqprop_gradient, nudging=NUDGINGS["symmetric"])
    for seed in range(4):
        n = (4, 3)[seed % 2]
        x, y = normal(xp, (n, 16, 16, 2), seed), (np.arange(4) + seed)[:n] % 3
        expected = run(network, x, y, UP_DOWN).gradient
        found = recorder.eqprop_gradient(network, x, y, UP_DOWN, nudging=NUDGINGS["symmetric"]).gradient
        for name, w in network.parameters().items():
            assert relative(found[name], expected[name]) < 1e-9, name
            w -= 0.1 * found[name]  # in place, as an optimizer does it
    network.set_parameters({name: 0.5 * w for name, w in network.parameters().items()})  # other arrays
    expected = run(network, x, y, UP_DOWN).gradient
    found = recorder.eqprop_gradient(network, x, y, UP_DOWN, nudging=NUDGINGS["symmetric"]).gradient
    for name, g in expected.items():
        assert relative(found[name], g) < 1e-9, name


def test_what_it_cannot_do_is_done_as_before(xp):
    network, x, y = example(xp, pool=ep.AVERAGE_POOL, activation=ep.SHIFTED_SIGMOID)
    symmetric, holomorphic = NUDGINGS["symmetric"], ep.Nudging.holomorphic(0.3, 4)
    for phases, nudging, why in ((ep.Phases(3, 2, deviations=False), symmetric, "real deviations"),
                                 (ep.Phases(3, 2), holomorphic, "real deviations"),
                                 (ep.Phases(ep.Phase(3, tolerance=1e-3), 2), symmetric, "tolerance"),
                                 (ep.Phases(3, ep.Phase(2, tolerance=1e-3)), symmetric, "tolerance"),
                                 (ep.Phases(ep.Phase(3, check_every=2), 2), symmetric, "before the last step")):
        assert why in graph.unsuitable(network, phases, nudging)
        found = graph.Recorder().eqprop_gradient(network, x, y, phases, nudging=nudging)
        expected = ep.eqprop_gradient(network, x, y, phases, nudging=nudging)
        assert found.known == {} and all((found.gradient[name] == g).all() for name, g in expected.gradient.items())


class Replayed:
    """As `graph.Recorded`: its results are the same arrays every time, and what is recorded is not looked up anew."""

    def __init__(self, function, *arrays):
        self.function, self.results = function, function(*arrays)

    def __call__(self, *arrays):
        gradient, states, numbers = self.function(*arrays)
        for mine, new in [*((self.results[0][name], g) for name, g in gradient.items()), *zip(self.results[1], states)]:
            mine[...] = new
        self.results[2][...] = numbers
        return self.results


@pytest.mark.skipif(running() == "rules", reason="arrays of the rules have no address")
def test_chunks_of_a_batch(xp, monkeypatch):
    """The estimate of a chunk is not overwritten by that of the next one."""
    if running() is not None:
        monkeypatch.setattr(graph, "Recorded", Replayed)
        monkeypatch.setattr(blas, "direct", lambda xp: "not None")
        monkeypatch.setattr(kernels, "matmul", lambda a, b: a @ b)
    network, x, y = example(xp)
    network, recorder = kernels.fused(network), graph.Recorder()
    one_chunk = partial(recorder.eqprop_gradient, phases=UP_DOWN, nudging=NUDGINGS["symmetric"])
    found = loop.in_chunks(one_chunk, network, x, y, size=2)
    expected = ep.eqprop_gradient(network, x, y, UP_DOWN, nudging=NUDGINGS["symmetric"])
    for name, g in expected.gradient.items():
        assert relative(found.gradient[name], g) < 1e-9, name
    for s, t in zip(found.free.states, expected.free.states):
        assert abs(s - t).max() < 1e-9
    network.feedback = 0.9  # recorded anew
    found, expected = one_chunk(network, x, y), ep.eqprop_gradient(network, x, y, UP_DOWN, nudging=NUDGINGS["symmetric"])
    assert relative(found.gradient["1.W"], expected.gradient["1.W"]) < 1e-9
    assert len(recorder.recordings) == 2
    network.activation = ep.CLIP  # so is another activation
    found, expected = one_chunk(network, x, y), ep.eqprop_gradient(network, x, y, UP_DOWN, nudging=NUDGINGS["symmetric"])
    assert relative(found.gradient["1.W"], expected.gradient["1.W"]) < 1e-9
    for n in range(1, 1 + graph.KEPT):  # the oldest are forgotten
        one_chunk(network, x[:n], y[:n])
    assert len(recorder.recordings) == graph.KEPT


@pytest.mark.skipif(running() is not None, reason="needs a GPU: here nothing can be recorded")
def test_on_a_gpu_it_is_recorded(xp):
    """One recording per shape, replayed; and its memory is its own: other arrays of any size do not get into its way."""
    network, x, y = example(xp)
    network, recorder = kernels.fused(network), graph.Recorder()
    run = partial(recorder.eqprop_gradient, network, x, y, UP_DOWN, nudging=NUDGINGS["symmetric"])
    first = {name: to_host(g) for name, g in run().gradient.items()}
    others = [xp.full(size, 7.0) for size in (10, 1000, 100_000, 10_000_000) for _ in range(4)]
    assert all((to_host(g) == first[name]).all() for name, g in run().gradient.items())
    assert all(bool((a == 7).all()) for a in others) and len(recorder.recordings) == 1


# --- products, and Adam -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_matrices(xp, dtype):
    """Matrices in rows, transposes of such, and neither, against NumPy in float64."""
    a, b = normal(xp, (17, 33), 0, dtype), normal(xp, (33, 9), 1, dtype)
    bound = 1e-12 if dtype == "float64" else 1e-2 if blas.tf32() else 1e-5
    for left in (a, xp.ascontiguousarray(a.T).T, normal(xp, (17, 66), 0, dtype)[:, ::2]):
        for right in (b, xp.ascontiguousarray(b.T).T, normal(xp, (66, 18), 1, dtype)[::2, ::2]):
            found = blas.matmul(left, right)
            assert found.dtype == dtype and relative(found, to_host(left).astype(float) @ to_host(right).astype(float)) < bound


def test_column_sums(xp):
    a = normal(xp, (3, 4, 5, 6), 0)
    assert relative(kernels.column_sums(a), to_host(a).sum((0, 1, 2))) < 1e-12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_is_numpys(xp, dtype):
    networks = [ep.mlp([5, 4, 3], dtype=dtype).to(module) for module in (np, xp)]
    optimizers = [ep.Adam(network, (0.01, 0.02), weight_decay=0.1, anneal_steps=20, warm_up=3) for network in networks]
    for step in range(6):
        for network, optimizer in zip(networks, optimizers):
            module = np if network is networks[0] else xp
            optimizer.step({name: normal(module, w.shape, [step, k], dtype)
                            for k, (name, w) in enumerate(network.parameters().items())})
    states = [optimizer.state() for optimizer in optimizers]
    for name, w in states[0].items():
        assert relative(states[1][name], w) < (1e-12 if dtype == "float64" else 1e-5), name
    for name, w in networks[0].parameters().items():
        assert relative(networks[1].parameters()[name], w) < (1e-12 if dtype == "float64" else 1e-5), name


@pytest.mark.skipif(running() != "executed", reason="needs the double that executes CuPy's kernels, and can claim to record")
@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
def test_nothing_in_a_step_is_what_a_graph_cannot_record(xp, connections, monkeypatch):
    """While a stream is recorded, CuPy refuses copies from the host, and looking at a number. Products: see blas.py."""
    from cupy_on_cpu import device

    def matmul(a, b):
        device.capturing = False
        try:
            return a @ b
        finally:
            device.capturing = True

    network, x, y = example(xp, connections)
    y, network = network.targets(y, x.dtype), kernels.fused(network)
    step = partial(graph.gradient, network, x, y, UP_DOWN, NUDGINGS["five points"], True)
    step()  # compiles
    monkeypatch.setattr(kernels, "matmul", matmul)
    monkeypatch.setattr(device, "capturing", True)
    synchronisations = device.count["synchronisations"]
    gradient, states, numbers = step()
    assert device.count["synchronisations"] == synchronisations
    with pytest.raises(RuntimeError, match="capturing"):  # the double does refuse
        xp.asarray(np.zeros(3))
