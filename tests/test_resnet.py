"""Residual networks of any depth: alive at the start, every layer's gradient, by the engine as by the core, trained.

What is proved of every network is proved of a residual one in test_identities.py, test_gradients.py and test_gdu.py.
"""

import functools

import numpy as np
import pytest
from cases import data
from helpers import held
from test_engine import SYMMETRIC, assert_same

import ep
from ep import dynamics, engine
from ep.activations import ACTIVATIONS, RELU6
from ep.builders import calibrate, resnet
from ep.cost import COSTS
from ep.datasets.dataset import Dataset
from ep.dynamics import SCHEDULES, Phase, Phases, relax
from ep.eqprop import eqprop_gradient
from ep.errors import EPError
from ep.network import Network
from ep.nudging import Nudging
from ep.radius import calibrate_radius, identities_alone, spectral_radius
from ep.synapse import Identity
from ep.train import equilibrium, experiment
from ep.train.loop import train_epoch

DEPTHS = {4: 1, 8: 3, 14: 6, 26: 12, 50: 24}  # layers, the readout among them, and how many blocks these are


def thirteen(xp, activation="relu6", cost="cross-entropy", *, dtype="float64", feedback=0.2, pool="average", **options):
    """13 layers in three stages on 8x8 pixels, two or three channels: four identities and two 1x1 skips with a stride."""
    options = dict(scale=(1.5, 2.0)) | options
    return resnet(6, (2, 3, 3), (8, 8, 2), 3, pool=pool, activation=ACTIVATIONS[activation], cost=COSTS[cost], dtype=dtype,
                  feedback=feedback, **options).to(xp)


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("blocks", DEPTHS.values())
def test_initial_states_are_alive_at_any_depth(blocks, calibrated):
    """Every layer of 3 to 49 varies over images as much as the stem, or up to three times; hardly a unit is at a bound always."""
    net = resnet(blocks, (8, 16, 16)[:blocks], (16, 16, 3))
    x = np.random.default_rng(0).normal(size=(64, 16, 16, 3)).astype("float32")
    if calibrated:
        calibrate(net, x, 1.0)
        assert all((abs(synapse.b) < 3.0).all() for synapse in net.synapses if synapse.parameters())
    states = relax(net, x, Phase(1, "up")).states
    sizes = np.array([s.std(0).mean() for s in states])
    assert (sizes > 0.3 * sizes[0]).all() and (sizes < 3 * sizes[0]).all()
    stuck = [((s <= 0).all(0) | (s >= 6).all(0)).mean() for s in states]
    assert max(stuck) < (0.05 if calibrated else 0.5)


# --- the engine's synapses = the core's -----------------------------------------------------------------------------------


@functools.cache
def wirings():
    """Networks that are no chains, by name: float64, and three classes."""
    rng = np.random.default_rng(0)

    def conv(pre, C, k=3, **options):
        return ep.Conv(rng.normal(0, 0.4, (k, k, pre[2], C)), rng.normal(0, 0.2, C), pre, **options)

    small = (6, 5, 3)
    branches = [conv((13, 11, 2), 3, padding=1), conv((13, 11, 2), 3, stride=2, padding=1, pool="none"), Identity(small),
                conv(small, 4, stride=2, pool="none"), conv((7, 6, 3), 4, 4, padding=1, pool="average")]
    dense = ep.Dense(rng.normal(0, 0.3, (90, 3)), np.zeros(3), small)
    found = {
        "13 layers": thirteen(np, pool="max"),
        "13 layers, no pooling": thirteen(np, "hard-sigmoid", "squared-error", pool="none"),
        "smooth": thirteen(np, "sigmoid", pool="max"),
        "a stride with pooling, a kernel of 2": Network(
            [branches[0], conv(small, 2, stride=2, pool="max"), ep.Dense(rng.normal(0, 1, (2, 3)), np.zeros(3), (1, 1, 2))],
            RELU6, ep.SquaredError(), feedback=0.3),
        "two ways down from one layer, two inputs": Network(
            [branches[0], branches[1], Identity(small), dense, conv((7, 6, 3), 3, 2, padding=0, pool="none"), dense],
            RELU6, ep.SquaredError(), [(0, 1), (0, 2), (1, 3), (1, 4), (2, 3), (3, 4)], feedback=0.3),
        "a skip beside its synapse": Network([branches[0], conv(small, 3, pool="none"), Identity(small), dense], RELU6,
                                             ep.SquaredError(), [(0, 1), (1, 2), (1, 2), (2, 3)], feedback=0.3),
        "numbered in another order": Network([conv(small, 3, pool="none"), branches[0], dense], RELU6, ep.SquaredError(),
                                             [(2, 1), (0, 2), (1, 3)], feedback=0.3),
        "an identity from the input": Network([Identity((6, 5, 3)), conv(small, 3, pool="none"), dense], RELU6,
                                              ep.SquaredError(), [(0, 1), (1, 2), (2, 3)], feedback=0.3),
        "the last layer leads on": Network([branches[0], dense, ep.Dense(rng.normal(0, 0.3, (3, 4)), np.zeros(4), (3,))], RELU6,
                                           ep.SquaredError(), [(0, 1), (1, 3), (3, 2)], feedback=0.3),
    }
    for net in found.values():
        calibrate(net, rng.normal(size=(16, *net.shapes[0])), 1.0, 0.5)
    return {**found, "asymmetric": ep.asymmetric(found["13 layers"]),
            "another asymmetric one": ep.asymmetric(found["two ways down from one layer, two inputs"])}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("wiring", list(wirings()))
def test_every_wiring_by_the_engine(wiring, schedule):
    """Free and nudged, from zero and from a random state, frozen and live; response and products: as by the core's synapses."""
    net = wirings()[wiring]
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(3, *net.shapes[0])), rng.integers(0, 3, 3)
    start, frozen = [rng.random((3, *s)) for s in net.shapes[1:]], dynamics.relax(net, x, 1).switches
    fast = engine.prepared(net)
    for beginning, beta, switches in ((None, 0.0, None), (start, 0.0, None), (start, 0.3, None), (start, -0.2, frozen)):
        phase = Phase(4, schedule, check_every=1)
        found, expected = (relax(held(n, switches) if switches else n, x, phase, y, beta, start=beginning) for n in (fast, net))
        assert_same(found, expected, bound=1e-10)
        assert all(abs(a - b).max() < 1e-10 for a, b in zip(found.u, expected.u))
        assert all(np.ptp(s) > 0 for s in expected.states)
    for transposed in (True, False):
        phases = Phases(Phase(3, "up"), Phase(3, schedule), deviations=True)
        found, expected = (ep.eqprop_gradient(n, x, y, phases, nudging=SYMMETRIC, transposed=transposed) for n in (fast, net))
        assert list(found.gradient) == list(expected.gradient)
        for name, g in expected.gradient.items():
            assert abs(found.gradient[name] - g).max() <= 1e-10 * abs(g).max()
        assert any(abs(g).max() > 0 for g in expected.gradient.values())


def test_float32_at_depth():
    """Rounding grows neither with depth nor with the identities."""
    net = thirteen(np, dtype="float32", feedback=0.01, pool="max")
    calibrate(net, np.random.default_rng(0).random((64, 8, 8, 2)), 1.0)
    wide = thirteen(np, dtype="float64", feedback=0.01, pool="max")
    wide.set_parameters({name: w.astype("float64") for name, w in net.parameters().items()})
    x, y = data(np, net, dtype="float32")
    phases = Phases(Phase(3, "up"), Phase(2, "down"), deviations=True)
    found = eqprop_gradient(net, x, y, phases, nudging=SYMMETRIC)
    expected = eqprop_gradient(wide, x.astype("float64"), y, phases, nudging=SYMMETRIC)
    for s, s_expected in zip(found.free.states, expected.free.states):
        assert s.dtype == np.float32 and abs(s - s_expected).max() < 1e-4
    for name, g in expected.gradient.items():
        assert found.gradient[name].dtype == np.float32 and abs(found.gradient[name] - g).max() < 1e-3 * abs(g).max()


# --- depth ------------------------------------------------------------------------------------------------------------------


def cosines_of(blocks, phases, nudging=None, dtype="float32"):
    """({layer: cosine with the exact gradient}, estimate): float32, weak feedback; exact in float64."""
    net = resnet(blocks, (4, 8, 8)[:blocks], (16, 16, 3))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 16, 16, 3)).astype(dtype), np.arange(16) % 10
    calibrate(net, x, 1.0)
    exact = equilibrium.exact_gradient(net, x, y, phases.free)
    assert exact.free.converged and exact.free.steps < 12
    estimate = eqprop_gradient(engine.prepared(net), x, y, phases, nudging=nudging or Nudging.symmetric(0.1))
    return equilibrium.cosines(estimate.gradient, exact.gradient), estimate


@pytest.mark.parametrize("layers", DEPTHS)
def test_the_cosine_of_every_layer_at_any_depth(layers):
    """Two sweeps up, one down. Nothing underflows, though w_1 is 10^144 at 50 layers, and nothing fades."""
    cosines, estimate = cosines_of(DEPTHS[layers], Phases(Phase(2, "up"), Phase(1, "down"), deviations=True))
    assert len(cosines) >= layers and min(cosines.values()) > (0.99 if layers <= 14 else 0.97), cosines
    sizes = [abs(d).mean() for d in estimate.nudged[0].states]
    assert min(sizes) > 0.05 * max(sizes)


def test_a_difference_of_states_fails_at_depth():
    """The same by equation (4), in float32: the lower layers get noise or nothing, and deeper still there is no energy."""
    phases = Phases(Phase(2, "up"), Phase(1, "down"), deviations=False)
    assert min(cosines_of(4, phases)[0].values()) < 0.5
    with pytest.raises(EPError, match="float32 has no room for an energy"):
        cosines_of(6, phases)


def test_convolutions_beside_an_identity_share_the_variance():
    net = resnet(6, (4, 4, 4), (32, 32, 3))
    pairs = list(zip(net.synapses[2::3], net.synapses[3::3]))
    assert sum(type(skip) is Identity for _, skip in pairs) == 4
    for second, skip in pairs:
        bound = (6 / 36) ** 0.5 * (0.5 if type(skip) is Identity else 1.0)
        assert 0.9 * bound < abs(second.W).max() <= bound * (1 + 1e-6)




# --- full feedback ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.0, 0.3])
@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("sigma", [ep.HARD_SIGMOID, ep.CLIP])
def test_identities_alone(sigma, k, gain):
    """k layers in a row: slope 2 sqrt(gain) cos(pi/(k+1)), as power iteration measures it; below 1 they settle."""
    dense = ep.Dense(np.zeros((2, 3)), np.full(3, 0.01), (2,))
    net = Network([dense] + [Identity((3,))] * (k - 1), sigma, ep.SquaredError(), feedback=gain)
    expected = 2 * sigma.slope * gain**0.5 * np.cos(np.pi / (k + 1))
    assert identities_alone(net) == pytest.approx(expected, abs=1e-12)
    free = relax(net, np.zeros((2, 2)), Phase(2000, "checkerboard", 1e-13))
    inside = all((s > 0).all() and (s < 1).all() for s in free.states)
    assert inside == (expected < 1 - 1e-9)
    if inside:
        assert free.converged and spectral_radius(net, np.zeros((2, 2)), free, 300) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("r", [0.75, 0.9])
def test_what_reaches_the_next_layer_of_a_long_row(r):
    """q = (1 - sqrt(1 - r^2)) / r of its state, 20 layers from either end; without what comes down it would be r/2."""
    first, *others = [ep.Dense(r * np.eye(1), np.zeros(1), (1,)) for _ in range(40)]  # times the slope 1/2: a coupling of r/2
    first.b += 0.1
    net = Network([first, *others], ep.HARD_SIGMOID, ep.SquaredError())
    s = relax(net, np.zeros((1, 1)), Phase(2000, "checkerboard", 1e-16)).states
    assert s[20] / s[19] == pytest.approx((1 - (1 - r * r) ** 0.5) / r, rel=1e-4)


def test_the_longest_row_of_a_residual_network_counts():
    """Its first stage has one layer more than blocks, the others as many: 3, 2 and 2 layers of 13."""
    for blocks, k in ((3, 2), (6, 3), (12, 5)):
        for sigma in (RELU6, ep.HARD_SIGMOID):
            net = resnet(blocks, (2, 3, 3), (8, 8, 2), activation=sigma, feedback=1.0)
            assert identities_alone(net) == pytest.approx(2 * sigma.slope * np.cos(np.pi / (k + 1)), abs=1e-12)
    before = net.parameters()["1.W"].copy(), net.parameters()["2.W"].copy()
    with pytest.raises(EPError, match="above 0.87, that of the identities alone.*got 0.8"):
        calibrate_radius(net, np.zeros((2, 8, 8, 2), "float32"), 0.8)
    assert all((net.parameters()[name] == w).all() for name, w in zip(("1.W", "2.W"), before))


@functools.cache
def recurrent():
    """(13 layers at gain 1 with a radius of 0.8, x, y): float64, hard sigmoid."""
    net, rng = thirteen(np, "hard-sigmoid", feedback=1.0, scale=(6**0.5, 4.0)), np.random.default_rng(0)
    x = rng.normal(size=(4, 8, 8, 2))
    calibrate(net, x, 1.7, 0.55, depth=1)
    return calibrate_radius(net, x, 0.8), x, np.arange(4) % 3


@pytest.mark.parametrize("schedule", ["checkerboard", "up", "down"])
def test_with_skips_the_energy_never_rises(schedule):
    """Over-relaxed, too: the proof asks that no two layers of a group are joined, and a block has three groups, not two."""
    net, x, _ = recurrent()
    assert len(SCHEDULES["checkerboard"](net)) == 3
    rng = np.random.default_rng(1)
    for omega in (1.0, 1.4, 1.9):
        s, fell = [rng.random((4, *shape)) for shape in net.shapes[1:]], 0.0
        before = net.energy(x, s)
        for _ in range(5):
            s = relax(net, x, Phase(1, schedule, omega=omega), start=s).states
            after = net.energy(x, s)
            assert (after - before).max() < 1e-12
            before, fell = after, fell + (before - after).sum()
        assert fell > 0.1


def test_the_gradient_at_full_feedback_is_exact():
    """By deviations, by states, and neither by one backward pass nor without the feedback."""
    net, x, y = recurrent()
    down = Phase(1000, "down", 1e-15)
    free = Phase(1000, "up", 1e-14)
    exact = equilibrium.exact_gradient(net, x, y, free)
    assert exact.free.converged

    def smallest(estimate):
        return min(equilibrium.hidden(estimate, exact))

    for deviations, beta in ((True, 1e-6), (False, 1e-5)):
        phases = Phases(free, down, deviations=deviations)
        assert smallest(eqprop_gradient(net, x, y, phases, nudging=Nudging.symmetric(beta))) > 1 - 1e-6
    once = Phases(free, Phase(1, "down"))
    assert smallest(ep.rbp_gradient(net, x, y, once)) < 0.99
    assert smallest(ep.rbp_gradient(equilibrium.without_feedback(net), x, y, once)) < 0.9


# --- training ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["cpu", "recurrent"])
def test_training_learns(preset):
    """--network resnet on 64 images: the loss falls. At full feedback the images settle, and relu6 is refused."""
    rng = np.random.default_rng(0)
    labels = (np.arange(64) % 4).astype(np.uint8)
    images = np.clip(rng.normal(120, 30, (64, 16, 16, 3)) + 25 * labels[:, None, None, None], 0, 255).astype("uint8")
    dataset = Dataset(images, labels, images, labels, tuple("abcd"), "made up", "made up", (0.5,) * 3, (0.25,) * 3)
    given = dict(network="resnet", channels=(4, 6, 8), train_images=64, test_images=64, batch_size=16, epochs=6, warm_up=2,
                 chunk=8, lr=(5e-3,), flip=False)
    given |= dict(blocks=3, lr=(2e-3, 5e-2)) if preset == "recurrent" else {}
    config = experiment.resolve(dataset, preset, **given)
    assert len(config.scale) == 2 and (config.feedback, config.activation, config.initial_drive > 0) == (
        (0.001, "relu6", True) if preset == "cpu" else (1.0, "hard-sigmoid", False))
    if preset == "recurrent":
        with pytest.raises(EPError, match="above 1.00, that of the identities alone"):
            experiment.build(experiment.resolve(dataset, preset, **given, activation="relu6"), x=dataset.normalise(images))

    network, optimizer, gradient = experiment.build(config, x=dataset.normalise(images))
    assert len(network.shapes) == (14 if preset == "cpu" else 8)
    losses, settled = [], []
    for epoch in range(6):
        train_epoch(network, images, labels, gradient, optimizer, batch_size=16, epoch=epoch,
                    prepare=lambda batch, rng: dataset.normalise(batch),
                    on_step=lambda _, step: (losses.append(step.loss), settled.append(step.converged)))
    assert preset == "cpu" or np.mean(settled) > 0.95
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4])
