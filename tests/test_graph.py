"""A training step on a GPU: the core's loop on the synapses of ep/engine/gpu.py, by launches and recorded as a CUDA graph.

What is compared runs on CuPy. On a GPU a step is really recorded; the double that executes CuPy's kernels has a recording that
refuses what CuPy refuses while a stream is captured (cupy_on_cpu/played.py).
"""

from functools import partial

import numpy as np
import pytest
from cupy_on_cpu import running
from helpers import example, normal, relative

import ep
from ep import dynamics, engine, eqprop
from ep.backend import to_host
from ep.engine import blas, gpu, graph, kernels
from ep.train import experiment, loop
from ep.train.step import merged, part, recorded

pytestmark = [pytest.mark.gpu, pytest.mark.parametrize("xp", ["cupy"], indirect=True)]
UP_DOWN = ep.Phases(ep.Phase(3, "up"), ep.Phase(2, "down"), deviations=True)
SYMMETRIC = ep.Nudging.symmetric(0.3)
NUDGINGS = {"symmetric": SYMMETRIC, "one-sided": ep.Nudging.one_sided(0.3),
            "five points": ep.Nudging((-0.2, -0.1, 0.0, 0.1, 0.2), tuple(c / 1.2 for c in (1, -8, 0, 8, -1)))}


def step_of(recorder, network, x, y, phases=UP_DOWN, nudging=SYMMETRIC, function=ep.eqprop_gradient, **options):
    """The `Part` of a recorded step."""
    gradient = partial(function, phases=phases, nudging=nudging, **options)
    assert engine.recordable(network, phases)
    return recorded(recorder, gradient, tuple(gradient.keywords.items()), network, x, y)


def compare(network, x, y, phases=UP_DOWN, bound=1e-9, function=ep.eqprop_gradient, **options):
    """The estimate on the core's synapses and the recorded step agree; that is made three times, for the first one is special."""
    expected = function(network, x, y, phases, **dict(nudging=SYMMETRIC) | options)
    by_hand, recorder, fast = merged([part(network, expected)]), engine.Recorder(), engine.prepared(network)
    for _ in range(3):
        found = merged([step_of(recorder, fast, x, y, phases, function=function, **options)])
    assert list(found.gradient) == list(expected.gradient)
    for name, g in expected.gradient.items():
        assert relative(found.gradient[name], g) < bound, name
    assert found.loss == pytest.approx(expected.loss, rel=bound) and found.correct == expected.correct
    assert [t for t, _ in found.history] == [t for t, _ in expected.free.history] and found.steps == expected.free.steps
    assert dict(found.history) == pytest.approx(dict(expected.free.history), rel=1e-6)
    assert found.residual == found.history[-1][1] and found.converged == expected.free.converged
    assert found.norms() == pytest.approx(by_hand.norms(), rel=1e-6) and found.stuck == pytest.approx(by_hand.stuck)
    return found


# --- the same numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nudging", NUDGINGS)
@pytest.mark.parametrize("connections, transposed", [("symmetric", True), ("asymmetric", True), ("asymmetric", False)])
def test_gradients(xp, connections, transposed, nudging):
    """Few-sweep phases, which are far from the fixed point: it is the same step, not only the same limit."""
    compare(*example(xp, connections), nudging=NUDGINGS[nudging], transposed=transposed)


@pytest.mark.parametrize("function", [partial(ep.eqprop_gradient, transposed=False), ep.papers_gradient], ids=["here", "paper"])
@pytest.mark.parametrize("connections, nudging", [("symmetric", "five points"), ("asymmetric", "one-sided")])
def test_by_states(xp, connections, nudging, function):
    """Differences of nudged states, live switches, a phase at beta = 0 that relaxes on; and with the published code's choices."""
    compare(*example(xp, connections), ep.Phases(4, 3, deviations=False), nudging=NUDGINGS[nudging], function=function)


@pytest.mark.parametrize("deviations", [True, False], ids=["deviations", "states"])
def test_over_relaxed(xp, deviations):
    phases = ep.Phases(ep.Phase(3, "up", omega=1.4), ep.Phase(2, "down", omega=1.4), deviations)
    compare(*example(xp), phases, transposed=False)


@pytest.mark.parametrize("free, nudged", [("synchronous", "down"), ("checkerboard", "checkerboard"), ("down", "up")])
def test_every_schedule(xp, free, nudged):
    """And a residual that is asked for before the last step."""
    compare(*example(xp), ep.Phases(ep.Phase(4, free, check_every=3), ep.Phase(3, nudged, check_every=2), deviations=True))


@pytest.mark.parametrize("steps", [(1, 1), (5, 4)])
@pytest.mark.parametrize("feedback", [0.0, 0.01, 1.0])
def test_every_number_of_sweeps_and_every_gain(xp, feedback, steps):
    T, K = steps
    compare(*example(xp, feedback=feedback), ep.Phases(ep.Phase(T, "up"), ep.Phase(K, "down"), deviations=True))


@pytest.mark.parametrize("cost", [ep.SoftmaxCrossEntropy, ep.SquaredError])
@pytest.mark.parametrize("activation, pool", [
    (ep.HARD_SIGMOID, ep.MAX_POOL), (ep.CLIP, ep.MAX_POOL), (ep.RELU6, ep.AVERAGE_POOL), (ep.SHIFTED_SIGMOID, ep.AVERAGE_POOL),
    (ep.TANH, ep.AVERAGE_POOL)],
    ids=lambda part: part.name)
def test_every_part(xp, activation, pool, cost):
    network, x, y = example(xp, activation=activation, pool=pool, cost=cost)
    network.synapses[-1].b += 0.5  # else all output units are 0 with squared error, and there is no gradient
    compare(network, x, y)


def test_skips(xp):
    """Several synapses into a layer, and several out of it."""
    sizes, wiring = [5, 6, 4, 7, 3], [(0, 1), (1, 2), (2, 3), (1, 3), (3, 4), (0, 2), (1, 4)]
    synapses = [ep.Dense(normal(xp, (sizes[i], sizes[j]), k), normal(xp, (sizes[j],), 50 + k), (sizes[i],))
                for k, (i, j) in enumerate(wiring)]
    network = ep.Network(synapses, ep.HARD_SIGMOID, ep.SquaredError(), wiring, feedback=0.5)
    for schedule in ep.dynamics.SCHEDULES:
        compare(network, normal(xp, (6, 5), 99), np.arange(6) % 3, ep.Phases(ep.Phase(4, schedule), 3, deviations=True))


def test_fixed_filters(xp):
    """They and what they see are part of the recording; by states and over-relaxed, as the default has them on a GPU."""
    network = ep.convnet([4, 5], (8, 8, 3), 3, paddings=[1, 1], scale=1.5, dtype="float64",
                         filters=normal(np, (3, 3, 3, 2), 3)).to(xp)
    phases = ep.Phases(ep.Phase(5, "checkerboard", omega=1.5), ep.Phase(3, "down", omega=1.5), deviations=False)
    compare(network, normal(xp, (4, 8, 8, 3), 1), np.array([0, 1, 2, 0]), phases)


@pytest.mark.parametrize("pool", [ep.MAX_POOL, ep.AVERAGE_POOL], ids=lambda part: part.name)
def test_residual_network(xp, pool):
    """Identities, strides and 1x1 convolutions."""
    network = ep.resnet(3, (4, 8), (8, 8, 3), 3, pool=pool, feedback=0.3, dtype="float64", scale=1.5).to(xp)
    compare(network, normal(xp, (4, 8, 8, 3), 1), np.array([0, 1, 2, 0]))


def test_float32(xp):
    """A weak gain, where a difference of float32 states would leave nothing: the deviations keep their digits."""
    found = compare(*example(xp, dtype="float32", feedback=0.01), bound=1e-3 if blas.tf32() else 1e-4)
    assert {g.dtype for g in found.gradient.values()} == {np.dtype("float32")}


# --- it is the core's loop ----------------------------------------------------------------------------------------------


def training(xp):
    """(network, gradient, x, y) of a job: what `train_epoch` calls."""
    config = experiment.Config(image_shape=(16, 16, 2), classes=3, channels=(3, 4, 5), feedback=0.4, device="cuda",
                               nudged_phases="deviations", steps_free=2, schedule="up", steps_nudged=1, schedule_nudged="down")
    network, _, gradient = experiment.build(config, xp)
    return network, partial(gradient, rng=np.random.default_rng(0)), normal(xp, (8, 16, 16, 2), 0, "float32"), np.arange(8) % 3


def test_a_training_step_runs_the_functions_of_the_core(xp, monkeypatch):
    """The loop that one reads in dynamics.py is what is launched, and recorded: twice, the first time to compile the kernels."""
    ran = []
    for owner, name in ((eqprop, "relax"), (dynamics, "deviate"), (dynamics, "iterate"), (dynamics.Messages, "terms"),
                        (ep.Network, "deviation_terms")):
        monkeypatch.setattr(owner, name, counted(ran, name, getattr(owner, name)))
    network, gradient, x, y = training(xp)
    gradient(network, x, y)
    times = 3 if running() else 2  # the double has no graph, and runs them once more
    expected = {"relax": 1, "deviate": 2, "iterate": 3, "terms": 2 * 3, "deviation_terms": 2 * 3}  # sweeps of 3 layers
    assert {name: ran.count(name) for name in ran} == {name: times * count for name, count in expected.items()}


def counted(ran, name, plain):
    def function(*arguments, **options):
        ran.append(name)
        return plain(*arguments, **options)
    return function


class Scaled(ep.Synapse):
    """A synapse of one's own: every unit times one weight."""

    def __init__(self, w, shape):
        self.w, self.pre_shape, self.post_shape = w, shape, shape

    def parameters(self):
        return {"w": self.w}

    def drive_post(self, pre, switches=None):
        return self.w * pre, None

    def drive_pre(self, post, switches=None):
        return self.w * post

    def hebbian(self, pre, post, switches=None):
        return {"w": (pre * post).sum((0, 1, 2))}


def test_a_synapse_of_ones_own_works_beside_the_gpus(xp):
    """By launches; everything else is exchanged all the same."""
    network, x, y = example(xp)
    shape = network.shapes[1]
    synapses = [network.synapses[0], Scaled(normal(xp, shape[-1:], 7), shape), *network.synapses[1:]]
    network = ep.Network(synapses, network.activation, network.cost, feedback=0.4)
    fast = engine.prepared(network)
    assert [type(synapse) for synapse in fast.synapses] == [gpu.GpuConv, Scaled, gpu.GpuConv, gpu.GpuConv]
    assert not engine.recordable(fast, UP_DOWN)
    expected, found = (ep.eqprop_gradient(net, x, y, UP_DOWN, nudging=SYMMETRIC).gradient for net in (network, fast))
    for name, g in expected.items():
        assert relative(found[name], g) < 1e-9, name


# --- recordings ---------------------------------------------------------------------------------------------------------


def test_what_is_not_recorded(xp, monkeypatch):
    network = gpu.prepared(example(xp)[0])
    assert engine.recordable(network, UP_DOWN) == (xp is not np)
    assert not engine.recordable(network, ep.Phases(ep.Phase(3, tolerance=1e-3), 2))
    assert not engine.recordable(network, ep.Phases(3, ep.Phase(2, tolerance=1e-3)))
    assert not engine.recordable(ep.mlp([3, 3, 2]), UP_DOWN)
    for other in (ep.HARD_SIGMOID._replace(name="other"), ep.AVERAGE_POOL._replace(name="other")):  # it may look at a number
        option = "activation" if isinstance(other, ep.Activation) else "pool"
        assert not engine.recordable(gpu.prepared(example(xp, **{option: other})[0]), UP_DOWN)
    with monkeypatch.context() as patch:
        patch.setattr(blas, "direct", lambda xp: None)
        assert not engine.recordable(network, UP_DOWN)
    network.set_parameters({name: w + 0j for name, w in network.parameters().items()})
    assert not engine.recordable(network, UP_DOWN)


def test_other_arrays_the_next_time(xp):
    """What is replayed reads the images, labels and weights of this call, and other shapes are recorded anew."""
    network, recorder = gpu.prepared(example(xp)[0]), engine.Recorder()

    def check(x, y):
        expected = ep.eqprop_gradient(network, x, y, UP_DOWN, nudging=SYMMETRIC).gradient
        found = step_of(recorder, network, x, y).gradient
        for name, g in expected.items():
            assert relative(found[name], g) < 1e-9, name
        return found

    for seed in range(4):
        n = (4, 3)[seed % 2]
        x, y = normal(xp, (n, 16, 16, 2), seed), (np.arange(4) + seed)[:n] % 3
        found = check(x, y)
        for name, w in network.parameters().items():
            w -= 0.1 * found[name]  # in place, as an optimizer does it
    assert len(recorder.recordings) == 2
    network.set_parameters({name: 0.5 * w for name, w in network.parameters().items()})  # other arrays
    check(x, y)


def test_what_is_recorded_anew(xp):
    """Another gain, activation, nudging, phases or stride; the oldest recordings are forgotten."""
    network, x, y = example(xp)
    network, recorder = gpu.prepared(network), engine.Recorder()

    def check(count, **options):
        expected = ep.eqprop_gradient(network, x, y, **dict(phases=UP_DOWN, nudging=SYMMETRIC) | options)
        assert relative(step_of(recorder, network, x, y, **options).gradient, expected.gradient) < 1e-9
        assert len(recorder.recordings) == count

    check(1)
    network.feedback = 0.9
    check(2)
    network.activation = gpu.Fused(*ep.CLIP)
    check(3)
    check(4, phases=ep.Phases(ep.Phase(3, "up"), 3))
    check(graph.KEPT, nudging=NUDGINGS["one-sided"])


def test_chunks_of_a_batch(xp):
    """The part of a chunk is not overwritten by that of the next one."""
    network, x, y = example(xp)
    recorder, fast = engine.Recorder(), gpu.prepared(network)
    found = loop.in_chunks(partial(step_of, recorder), fast, x, y, size=2)
    expected = ep.in_chunks(partial(ep.eqprop_gradient, phases=UP_DOWN, nudging=SYMMETRIC), network, x, y, size=2)
    assert relative(found.gradient, expected.gradient) < 1e-9 and found.stuck == pytest.approx(expected.stuck)
    assert (found.correct, found.images) == (expected.correct, 4) and found.loss == pytest.approx(expected.loss, rel=1e-9)


@pytest.mark.skipif(not running(), reason="counts what the double records")
def test_a_job_records_a_step_once(xp):
    """Every step prepares the network anew, and that is no reason to record it anew; nothing but the images is new to it."""
    from cupy_on_cpu.played import Played
    network, gradient, x, y = training(xp)
    made = Played.made
    for _ in range(3):
        gradient(network, x, y)
    assert Played.made == made + 1


@pytest.mark.skipif(running(), reason="needs a GPU: here nothing can be recorded")
def test_on_a_gpu_it_is_recorded(xp):
    """One recording per shape, replayed; and its memory is its own: other arrays of any size do not get into its way."""
    network, x, y = example(xp)
    network, recorder = gpu.prepared(network), engine.Recorder()
    first = {name: to_host(g) for name, g in step_of(recorder, network, x, y).gradient.items()}
    others = [xp.full(size, 7.0) for size in (10, 1000, 100_000, 10_000_000) for _ in range(4)]
    assert all((to_host(g) == first[name]).all() for name, g in step_of(recorder, network, x, y).gradient.items())
    assert all(bool((a == 7).all()) for a in others) and len(recorder.recordings) == 1


@pytest.mark.skipif(not running(), reason="about the double that can claim to record")
@pytest.mark.parametrize("look", [lambda xp, a: xp.asarray(np.zeros(3)), lambda xp, a: float(a.sum()), lambda xp, a: a @ a],
                         ids=["copy", "look", "product"])
def test_what_a_graph_cannot_record_is_refused(xp, look):
    """By `Played`, so that the tests above show that nothing of the kind is in a step."""
    from cupy_on_cpu.played import Played
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)):
        Played(partial(look, xp), xp.ones((3, 3)))


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
