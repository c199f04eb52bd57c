"""The boundary of the library: what callers pass is converted, or refused in one sentence that names it."""

import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import relative, sentence

import ep
from ep import EPError, Nudging, Phase, Phases, convnet, datasets, engine, mlp
from ep.activations import ACTIVATIONS, HARD_SIGMOID, TANH
from ep.builders import whitening
from ep.cost import COSTS, SoftmaxCrossEntropy, SquaredError
from ep.train import experiment, loop
from ep.train.optimizers import OPTIMIZERS, SGD, Adam

SYMMETRIC = Nudging.symmetric(0.1)


class Halved(SoftmaxCrossEntropy):
    """A cost of one's own that inherits the name of another."""

    def force(self, s, y):
        return 0.5 * super().force(s, y)


class Doubled(SquaredError):
    def force(self, s, y):
        return 2.0 * super().force(s, y)


def small(dtype="float32", **options):
    return convnet([4, 5], (8, 8, 3), 3, paddings=[1, 1], dtype=dtype, **options)


def batch(net, n=4, dtype="float32"):
    rng = np.random.default_rng(0)
    return rng.random((n, *net.shapes[0])).astype(dtype), np.arange(n) % 3


# --- numbers and constants --------------------------------------------------------------------------------------------


def same_network(one, other):
    return (one.written()[0] == other.written()[0] and one.parameters().keys() == other.parameters().keys()
            and relative(one.parameters(), other.parameters()) == 0)


@pytest.mark.parametrize("build, plain", [
    (lambda: convnet(np.array([4, 5]), np.array([8, 8, 3]), np.int64(3), np.int32(3), np.array([1, 1]), scale=np.float32(2),
                     feedback=np.float32(0.5), seed=np.int64(3)),
     lambda: convnet([4, 5], (8, 8, 3), 3, 3, [1, 1], scale=2.0, feedback=0.5, seed=3)),
    (lambda: convnet([4], (8, 8, 3), pool="max", activation="clip", cost="squared-error", dtype=np.float64),
     lambda: convnet([4], (8, 8, 3), pool=ep.MAX_POOL, activation=ep.CLIP, cost=SquaredError, dtype="float64")),
    (lambda: mlp(np.array([4, 3, 2]), "tanh", "cross-entropy", dtype=np.dtype("float32")),
     lambda: mlp([4, 3, 2], TANH, SoftmaxCrossEntropy, dtype="float32"))])
def test_numpy_numbers_and_names_are_converted(tmp_path, build, plain):
    """The same network as of Python numbers and constants, and one that can be saved: JSON writes no NumPy numbers."""
    assert same_network(build(), plain())
    build().save(tmp_path / "net.npz")
    assert same_network(ep.load(tmp_path / "net.npz"), plain())


def test_numpy_numbers_in_phases_and_nudgings():
    phase = Phase(np.int64(3), tolerance=np.float32(0.5), check_every=np.int8(2))
    assert (type(phase.steps), type(phase.tolerance), type(phase.check_every)) == (int, float, int)
    assert Nudging((np.complex64(1j),), (np.complex64(-1j),), True) == Nudging((1j,), (-1j,), True)  # not its real part, 0
    assert all(type(b) is float for b in Nudging.from_points(np.array([-1, 1])).points)


@pytest.mark.parametrize("make", [SGD, Adam])
def test_numpy_rates_promote_nothing(make):
    """A float64 number times a float32 array is a float64 array, which takes twice the time."""
    net = mlp([4, 3, 2])
    optimizer = make(net, np.array([0.1, 0.2]), weight_decay=np.float64(0.1))
    assert {type(rate) for rate in optimizer.rates.values()} == {float} == {type(optimizer.weight_decay)}
    assert make(net, np.float32(0.5)).rates == {"1": 0.5, "readout": 0.5}


W, B = np.zeros((4, 3)), np.zeros(3)
NET = convnet([3], (8, 8, 2), 3)
IMAGES, LABELS = np.random.default_rng(0).random((4, 8, 8, 2)), np.array([0, 1, 2, 0])


def gradient(phases=Phases(5, 3), nudging=SYMMETRIC):  # noqa: B008 - constants
    return ep.eqprop_gradient(NET, IMAGES, LABELS, phases, nudging=nudging)


@pytest.mark.parametrize("call, named", [
    (lambda: convnet([4.5]), "4.5"), (lambda: convnet(16), "channels"), (lambda: convnet("44"), "channels"),
    (lambda: convnet([4], (28, 28)), "28, 28"), (lambda: convnet([4], (8, 8, 0)), "got 0"),
    (lambda: convnet([4], (8, 8, 3), classes=-1), "classes"), (lambda: convnet([4], (8, 8, 3), kernel=0), "kernel"),
    (lambda: convnet([4], (8, 8, 3), paddings=[-1]), "paddings"), (lambda: convnet([4], pool="min"), "'min'.* max"),
    (lambda: convnet([4], activation="relu"), "'relu'.* tanh"), (lambda: convnet([4], cost="hinge"), "'hinge'.* squared-error"),
    (lambda: convnet([4], cost=SquaredError()), "SquaredError"), (lambda: convnet([4], dtype=None), "None"),
    (lambda: convnet([4], dtype="wide"), "wide"), (lambda: convnet([4], seed=-1), "seed"),
    (lambda: convnet([4], scale="a"), "scale"), (lambda: convnet([10**18]), "memory"),
    (lambda: convnet([3], activation=np.tanh), "activation.* tanh"), (lambda: convnet([3], pool=max), "pooling.* max"),
    (lambda: mlp(784), "784"), (lambda: mlp([4, 3, 2], cost=ep.Network), "Network"),
    (lambda: ep.Dense(W, B, (5,)), r"\(5,\)"), (lambda: ep.Dense(W.astype(int), B, (4,)), "int64"),
    (lambda: ep.Dense("W", B, (4,)), "str"), (lambda: ep.Conv(np.zeros((3, 3, 2, 4)), B, (8, 8, 2)), r"\(3,\)"),
    (lambda: ep.Conv(np.zeros((3, 3, 2, 3)), B, (8, 8, 2), stride=0), "stride"),
    (lambda: ep.Conv(np.zeros((3, 3, 2, 3)), B, (2, 8, 8)), r"\(2, 8, 8\)"), (lambda: SoftmaxCrossEntropy(W, W[0, :2]), "W"),
    (lambda: ep.Network([], HARD_SIGMOID, SquaredError()), "0 synapses"),
    (lambda: ep.Network([ep.Dense(W, B, (4,))], HARD_SIGMOID, SquaredError), "SquaredError"),
    (lambda: ep.Network([ep.Dense(W, B, (4,))], HARD_SIGMOID, "squared-error"), "squared-error"),
    (lambda: ep.Network([ep.Dense(W, B, (4,))], "softplus", SquaredError()), "softplus"),
    (lambda: ep.Network([ep.Dense(W, B, (4,)), ep.Dense(W.T, W[:, 0], (3,))], "clip", SquaredError(), [(0, 1), (1, 0)]), "input"),
    (lambda: Phase(2.5), "2.5"), (lambda: Phase("5"), "'5'"), (lambda: Phase(5, tolerance="0"), "'0'"),
    (lambda: Nudging.symmetric("0.1"), "0.1"), (lambda: Nudging.holomorphic(0.1, 2.5), "2.5"),
    (lambda: Nudging.from_points(["a", "b"]), "a"),
    (lambda: SGD(NET, "0.1"), "0.1"), (lambda: SGD(NET, 0.1, weight_decay=-1.0), "-1"),
    (lambda: SGD(NET, 0.1, momentum=1.5), "momentum.* 1.5"), (lambda: SGD(NET, 0.1, momentum=-0.1), "momentum"),
    (lambda: SGD(NET, 0.1, anneal_epochs=0), "anneal_epochs"),
    (lambda: Adam(NET, 0.1, warm_up=-1), "warm_up.* -1"), (lambda: Adam(NET, 0.1, anneal_steps="all"), "anneal_steps"),
    (lambda: gradient(nudging=0.1), "nudging.* 0.1"), (lambda: gradient(nudging="symmetric"), "nudging.* 'symmetric'"),
    (lambda: gradient(10), "phases.* 10"), (lambda: ep.bptt_gradient(NET, IMAGES, LABELS, 10), "phases.* 10"),
    (lambda: ep.rbp_gradient(NET, IMAGES, LABELS, 10), "phases.* 10"),
    (lambda: ep.relax(NET, IMAGES, 3, LABELS, None), "beta.* None"), (lambda: ep.relax(NET, IMAGES, 3, LABELS, np.nan), "nan"),
    (lambda: loop.chunks(5, 0), "got 0"), (lambda: ep.worker_threads(0).__enter__(), "threads"),
    (lambda: ep.train_epoch(NET, IMAGES, LABELS, gradient, None, batch_size=4, epoch=-1), "epoch"),
    (lambda: datasets.augment(np.zeros((2, 4, 4, 3), np.uint8), np.random.default_rng(0), pad=-1), "pad"),
    (lambda: datasets.augment(np.zeros((4, 4, 3), np.uint8), np.random.default_rng(0)), r"\(4, 4, 3\)"),
    (lambda: whitening(np.zeros((4, 4, 3))), r"\(4, 4, 3\)"),
    *((lambda seed=seed: ep.train_epoch(NET, IMAGES, LABELS, gradient, None, batch_size=4, seed=seed), "seed")
      for seed in (-1, 0.5, "1")),
    (lambda: ep.resnet().phi(*states_of(ep.resnet())), "float32 has no room"),
    (lambda: ep.resnet().energy(*states_of(ep.resnet())), "float64.* or deviations")])
def test_what_is_no_size_number_or_constant_is_refused(call, named):
    """In one sentence that has the culprit in it; what cannot be built or differentiated is in the tests of those modules."""
    assert re.search(named, sentence(call))


def states_of(net):
    x = np.zeros((1, *net.shapes[0]), "float32")
    return x, net.init_state(x)


@pytest.mark.parametrize("exponent", [*range(-323, 309, 11), -108])
def test_nudgings_of_any_size(exponent):
    """Each is refused, or has the order that it has at 0.1."""
    rng = np.random.default_rng(0)
    ways = [Nudging.one_sided, Nudging.symmetric, Nudging.four_point, lambda beta: Nudging.random_sign(beta, rng),
            lambda beta: Nudging.from_points([-beta, 0, beta / 2]), lambda beta: Nudging.holomorphic(beta, 6),
            lambda beta: Nudging.holomorphic(beta, 5), lambda beta: Nudging.holomorphic(beta, 2, shifted=True)]
    refused = 0
    for way in ways:
        try:
            assert way(10.0**exponent).order == way(0.1).order
        except EPError:
            refused += 1
    assert refused == 0 or not -300 < exponent < 300


@pytest.mark.parametrize("images", ["black", "grey", "one unit does not vary"])
def test_calibration_of_what_does_not_vary(images):
    """The weights stay as they were drawn; a factor of rounding made 6e10 of them."""
    net, x = small(), np.zeros((20, 8, 8, 3), "float32") + (images == "grey")
    if images == "one unit does not vary":
        x = batch(net, 20)[0]
        net.synapses[0].W[..., 0] = 0
    before = net.synapses[0].W.copy()
    ep.builders.calibrate(net, x, 0.3)
    assert all(abs(w).max() < 100 for w in net.parameters().values())
    assert (net.synapses[0].W[..., 0] == before[..., 0]).all() or images == "grey"  # whose borders vary


@pytest.mark.parametrize("order", ["mixed", "sorted"])
def test_images_that_are_sorted_are_calibrated_like_others(order):
    """On images of all classes, wherever they are in the file."""
    labels = np.arange(600) % 3 if order == "mixed" else np.sort(np.arange(600) % 3)
    images = np.zeros((600, 2, 2, 1), np.uint8) + (80 * labels[:, None, None, None]).astype(np.uint8)
    dataset = datasets.Dataset(images, labels, images, labels, tuple("abc"), "made up", "made up", mean=(0.0,), std=(1.0,))
    assert len(np.unique(found := experiment.for_calibration(dataset))) == 3 and 150 < len(found) <= 256


def test_lists_are_arrays():
    """Weights and parameters as nested lists (images and labels: test_labels.py)."""
    net = ep.Network([ep.Dense([[1, 0], [0.5, 1]], [0, 0], [2])], "hard-sigmoid", SquaredError(), wiring=[[0, 1]])
    assert net.synapses[0].W.dtype == np.float64 and net.synapses[0].W[1, 0] == 0.5
    net.set_parameters({"1.W": [[1, 2], [3, 4]], "1.b": [0, 1]})
    assert net.synapses[0].W.dtype == np.float64 and net.synapses[0].W[1, 0] == 3


# --- images ------------------------------------------------------------------------------------------------------------

GRADIENTS = {
    "states": lambda net, x, y: ep.eqprop_gradient(net, x, y, Phases(3, 2), nudging=SYMMETRIC),
    "deviations": lambda net, x, y: ep.eqprop_gradient(net, x, y, Phases(3, 2, deviations=True), nudging=SYMMETRIC),
    "engine": lambda net, x, y: ep.eqprop_gradient(engine.prepared(net), x, y, Phases(3, 2, True), nudging=SYMMETRIC),
    "bptt": lambda net, x, y: ep.bptt_gradient(net, x, y, Phases(3, 2)),
    "rbp": lambda net, x, y: ep.rbp_gradient(net, x, y, Phases(3, 2))}


@pytest.mark.parametrize("call", [
    lambda net, x, s: net.drives(x, s), lambda net, x, s: net.phi(x, s), lambda net, x, s: net.energy(x, s),
    lambda net, x, s: net.init_state(x), lambda net, x, s: ep.builders.calibrate(net, x, 0.5),
    lambda net, x, s: datasets.normalise(x), lambda net, x, s: ep.relax(net, x.transpose(0, 2, 3, 1), 2, start=s),
    lambda net, x, s: ep.relax(engine.prepared(net), x.transpose(0, 2, 3, 1), 2, start=s)])
def test_other_layouts_and_states_of_other_images(call):
    """States of one image would be broadcast to four."""
    net = small()
    states = [np.zeros((1, *shape), "float32") for shape in net.shapes[1:]]
    assert re.search("channels.last|start", sentence(call, net, batch(net)[0].transpose(0, 3, 1, 2), states))


@pytest.mark.parametrize("way", GRADIENTS)
@pytest.mark.parametrize("dtype, other", [("float32", "float64"), ("float64", "float32"), ("float32", "float16")])
def test_images_take_the_type_of_the_network(way, dtype, other):
    """float64 images in a float32 network would be relaxed in float64, on slower synapses."""
    net = small(dtype)
    x, y = batch(net, dtype=other)
    found = GRADIENTS[way](net, x, y)
    assert {a.dtype for a in (*found.gradient.values(), *found.free.states)} == {np.dtype(dtype)}
    assert relative(found.gradient, GRADIENTS[way](net, x.astype(dtype), y).gradient) == 0


# --- costs, activations and poolings of one's own -----------------------------------------------------------------------


@pytest.mark.parametrize("cost, plain", [(Halved, SoftmaxCrossEntropy), (Doubled, SquaredError)])
def test_a_subclass_of_a_cost_is_kept(cost, plain):
    """With the parameters of its kind."""
    for one, other in ((small(cost=cost), small(cost=plain)), (mlp([4, 3, 2], cost=cost), mlp([4, 3, 2], cost=plain))):
        assert type(one.cost) is cost and relative(one.parameters(), other.parameters()) == 0


def changed(name, value):
    net = small()
    setattr(net, name, value)
    return net


@pytest.mark.parametrize("make", [
    lambda: small(cost=Halved), lambda: mlp([4, 3, 2], cost=Doubled), lambda: small(pool=ep.AVERAGE_POOL._replace(name="mean")),
    lambda: small(activation=HARD_SIGMOID._replace(name="softer")),
    lambda: small(activation=HARD_SIGMOID._replace(dsigma=ACTIVATIONS["clip"].dsigma)),
    lambda: changed("about", {"mean": np.zeros(3)})])
def test_what_a_file_could_not_give_back_is_not_saved(tmp_path, make):
    """A cost, activation or pooling of one's own, by its own name or another's, notes that are no JSON."""
    assert re.search("save network.parameters|about cannot be written", sentence(make().save, tmp_path / "net.npz"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("activation", [TANH, TANH._replace(name="own"), HARD_SIGMOID._replace(bounds=(-0.5, 1.0))])
def test_negative_states_and_max_pooling(activation):
    """Any activation with a negative bound, a copy of tanh too."""
    assert "max-pooling" in sentence(small, activation=copy.deepcopy(activation))
    small(activation=activation, pool=ep.AVERAGE_POOL)


# --- copies -------------------------------------------------------------------------------------------------------------

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda a: pickle.loads(pickle.dumps(a))}


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("connections", ep.CONNECTIONS)
@pytest.mark.parametrize("pool, activation", [("max", "hard-sigmoid"), ("average", "tanh"), ("none", "clip"), ("max", "sigmoid")])
def test_copies_are_networks_like_any_other(pool, activation, connections, copied):
    """The same numbers by the same synapses; parameters of their own; saved and made asymmetric like the original."""
    net = ep.CONNECTIONS[connections](convnet([4, 5], (8, 8, 2), 3, paddings=[1, 1], pool=pool, activation=activation))
    other = COPIES[copied](net)
    x, y = batch(net)
    assert [type(s) for s in engine.prepared(other).synapses] == [type(s) for s in engine.prepared(net).synapses]
    assert same_network(other, net)
    found, expected = (GRADIENTS["engine"](one, x, y).gradient for one in (other, net))
    assert relative(found, expected) == 0
    other.synapses[1].W[...] = 0
    assert net.synapses[1].W.any() and (other.activation, other.synapses[0].pool) == (net.activation, net.synapses[0].pool)


@pytest.mark.parametrize("copied", COPIES)
def test_optimizers_and_networks_are_copied_together(copied):
    net = mlp([4, 3, 2])
    other, optimizer = COPIES[copied]((net, SGD(net, 0.1)))
    optimizer.step({name: np.ones_like(w) for name, w in net.parameters().items()})
    assert all((other.parameters()[name] == w - np.float32(0.1)).all() for name, w in net.parameters().items())


def test_every_constant_is_pickled_by_value():
    constants = [*ACTIVATIONS.values(), *ep.ops.POOLINGS.values(), *COSTS.values(), engine.gpu.MAX_POOL]
    assert all(pickle.loads(pickle.dumps(constant)) == constant for constant in constants)


# --- parameters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_optimizers_follow_the_networks_parameters(kind, dtype):
    """Replaced by set_parameters, by another type too, or by hand: the next step changes what the network has."""
    net, other = mlp([4, 3, 2]), mlp([4, 3, 2], seed=1)
    optimizer = OPTIMIZERS[kind](net, 0.1, 0.0, 2, 2)
    net.set_parameters({name: w.astype(dtype) for name, w in other.parameters().items()})
    net.synapses[0].b = net.synapses[0].b + 1
    before = copy.deepcopy(net.parameters())
    optimizer.step({name: np.ones_like(w) for name, w in before.items()})
    assert all((w < before[name]).all() and w.dtype == dtype for name, w in net.parameters().items())


def test_networks_share_no_arrays():
    """set_parameters copies: what one network learns, the other does not."""
    net, other = mlp([4, 3, 2]), mlp([4, 3, 2], seed=1)
    net.set_parameters(other.parameters())
    assert not any(np.shares_memory(w, other.parameters()[name]) for name, w in net.parameters().items())


# --- synapses of one's own ----------------------------------------------------------------------------------------------


def one_to_one(w):
    """The synapse of docs/code/new_synapse.md: no W, no b."""
    page, names = Path(ep.__file__).parents[1].joinpath("docs", "code", "new_synapse.md").read_text(encoding="utf-8"), {}
    exec(re.search(r"```python\n(.*?\n)\n\nrng = ", page, re.S)[1], names)
    return names["OneToOne"](np.array(w))


def test_a_first_synapse_without_biases():
    """The engine leaves it as it is; calibration refuses it."""
    dense = ep.Dense(np.ones((4, 3)), np.zeros(3), (4,))
    net = ep.Network([one_to_one([1.0, 2.0, 3.0, 4.0]), dense], ep.SHIFTED_SIGMOID, SquaredError())
    assert engine.prepared(net).synapses == net.synapses
    assert "calibrated" in sentence(ep.builders.calibrate, net, np.random.default_rng(0).random((4, 4)), 0.5)


@pytest.mark.parametrize("name", ["1.W", "2.W", "2.b"])
def test_parameters_of_several_types(name):
    """One float64 parameter makes what follows float64, by the engine as by the core."""
    net = small()
    net.set_parameters({**net.parameters(), name: net.parameters()[name].astype("float64")})
    x, _ = batch(net)
    found, expected = (ep.relax(one, x, 4).states for one in (engine.prepared(net), net))
    assert [s.dtype for s in found] == [s.dtype for s in expected] and relative(found, expected) < 1e-5


# --- states that somebody brings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, expected", [("int64", "float32"), ("float64", "float32"), ("complex128", "complex64")])
def test_a_start_takes_the_precision_of_the_network(kind, expected):
    """In a free phase and in one by deviations; whatever its own type is."""
    net = small(pool="average", activation="sigmoid")
    x, y = batch(net)
    start = [np.ones((4, *shape), kind) for shape in net.shapes[1:]]
    found = ep.relax(net, x, 2, start=start), ep.deviate(net, y, 0.1, ep.relax(net, x, 2), 2, start=start)
    assert {s.dtype for relaxation in found for s in relaxation.states} == {np.dtype(expected)}


def test_a_start_of_other_images_is_refused():
    net = small()
    x, y = batch(net)
    few = [s[:1] for s in ep.relax(net, x, 2).states]
    for call in (lambda: ep.relax(net, x, 2, start=few), lambda: ep.deviate(net, y, 0.1, ep.relax(net, x, 2), 2, start=few),
                 lambda: ep.eqprop_increments(net, x, y, few, 2, nudging=SYMMETRIC)):
        assert "expected a start of states of the shapes" in sentence(call)


def test_deviations_are_no_states():
    """And states that are only read have no residual that anybody knows."""
    net = small()
    x, y = batch(net)
    made = ep.eqprop_gradient(net, x, y, Phases(20, 8, deviations=True), nudging=SYMMETRIC)
    nudged = dict(zip(SYMMETRIC.points, made.nudged))
    assert "deviations" in sentence(ep.eqprop_from_states, net, x, y, made.free, nudged, SYMMETRIC)
    states = {beta: ep.relax(net, x, 8, y, beta, start=made.free.states).states for beta in SYMMETRIC.points}
    alone = ep.eqprop_from_states(net, x, y, made.free.states, states, SYMMETRIC).free
    assert np.isnan(alone.residual) and not alone.converged and not alone.settled.any()


# --- networks of unusual shapes ---------------------------------------------------------------------------------------------


def test_a_layer_that_only_the_input_reaches():
    """Recurrent backpropagation has nothing to tell it, as EP has not."""
    rng = np.random.default_rng(0)
    net = ep.Network([ep.Dense(rng.normal(size=(5, n)), np.zeros(n), (5,)) for n in (4, 3)], "sigmoid", SquaredError(),
                     [(0, 1), (0, 2)])
    x, y, phases = rng.random((6, 5)), np.arange(6) % 3, Phases(30, 30, deviations=True)
    found = ep.rbp_gradient(net, x, y, phases).gradient
    assert relative(found, ep.eqprop_gradient(net, x, y, phases, nudging=Nudging.symmetric(1e-3)).gradient) < 1e-5
    assert not found["1.W"].any() and found["2.W"].any()


def test_without_feedback_there_is_an_energy_of_one_layer_alone():
    """Nothing could come down to it, so its drives are the derivatives of Phi at any gain; below a last layer they are not."""
    x, y = np.random.default_rng(0).random((3, 6)), np.array([0, 1, 1])
    one, two = (mlp(sizes, "sigmoid", SquaredError, feedback=0.0, dtype="float64") for sizes in ([6, 2], [6, 4, 2]))
    states, exact = (call(one, x, y, Phases(5, 5), **options).gradient for call, options in (
        (ep.eqprop_gradient, dict(nudging=Nudging.symmetric(1e-4))), (ep.bptt_gradient, {})))
    assert relative(states, exact) < 1e-6
    free = ep.relax(two, x, 5)
    for call in (lambda: two.energy(x, free.states), lambda: two.hebbian(x, free.states, free.switches)):
        assert "has no Phi" in sentence(call)


def test_calibration_down_to_no_layer():
    """depth=0: none is calibrated. Two numbers are for hidden layers and classes, so one layer refuses them."""
    net = small()
    before = {name: w.copy() for name, w in net.parameters().items()}
    ep.builders.calibrate(net, batch(net)[0], 0.5, depth=0)
    assert relative(net.parameters(), before) == 0
    assert "one positive scale" in sentence(mlp, [4, 3], cost=SquaredError, scale=(2, 5))


def test_complex_targets_and_costs_with_parameters_of_other_names():
    net = small()
    assert "expected integer labels" in sentence(net.targets, 1j * np.ones((2, 3)))

    class Weighted(SquaredError):
        """It learns how much each class counts."""

        def parameters(self):
            return {"a": self.a}

    cost = Weighted()
    cost.a = np.ones(2)
    net = ep.Network(mlp([6, 2], cost=SquaredError).synapses, "clip", cost)
    assert net.targets([1, 0]).tolist() == [[0, 1], [1, 0]]


# --- what trains, and what is said of it ------------------------------------------------------------------------------------


def test_the_optimizer_of_another_network_is_refused():
    """It would change that one, and leave the network that trains as it is; nothing is changed before."""
    net, other = small(), small(seed=1)
    x, y = batch(net)
    before = {name: w.copy() for name, w in other.parameters().items()}
    said = sentence(loop.train_epoch, net, x, y, lambda *arguments: pytest.fail("it began"), Adam(other, 1e-3), batch_size=2)
    assert "another network" in said and relative(other.parameters(), before) == 0


@pytest.mark.parametrize("preset, changes, said", [
    ("recurrent", {}, "full feedback"), ("cpu", {}, "weak feedback"), ("cpu", dict(feedback=1.0), "feedback gain 1,"),
    ("recurrent", dict(feedback=0.01), "feedback gain 0.01,"), ("recurrent", dict(algorithm="bptt"), "bptt")])
def test_the_regime_is_that_of_the_settings(preset, changes, said):
    config = experiment.resolve(datasets.load("synthetic"), preset, **changes)
    assert said in experiment.regime(config) and bool(changes) == ("other settings" in experiment.regime(config))
