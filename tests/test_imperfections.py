"""Noise, few bits, drift and mismatch: each does what it says, repeats bit for bit, and is nothing when it is off.

And (4) as a function of states that were read: it is what `eqprop_gradient` runs.
"""

from dataclasses import replace

import numpy as np
import pytest
from helpers import example, flat, relative, sentence

import ep
from ep import Imperfections, Nudging, engine
from ep.backend import to_host
from ep.imperfections import MISMATCH, READ, UPDATE, normal

PHASES = ep.Phases(30, 12, deviations=False)
NUDGING = Nudging.symmetric(0.1)
EACH = {  # one imperfection at a time
    "read noise": dict(read_noise=1e-3), "update noise": dict(update_noise=1e-3), "state bits": dict(state_bits=6),
    "weight bits": dict(weight_bits=4), "mismatch": dict(mismatch=0.1), "drift": dict(drift=1e-3)}
RANDOM = ("read noise", "update noise", "drift")  # which depend on the place in a training
ALL = {name: value for one in EACH.values() for name, value in one.items()}
every = pytest.mark.parametrize("name", EACH)


def gradient(network, x, y, phases=PHASES, nudging=NUDGING, **imperfections):
    return ep.imperfect_gradient(network, x, y, phases, nudging=nudging, imperfections=Imperfections(**imperfections))


def same(a, b):
    """Whether two estimates are equal, bit for bit."""
    return all((flat(one) == flat(other)).all() for one, other in (
        (a.gradient, b.gradient), (a.costs, b.costs), (a.free.states, b.free.states),
        ([phase.states for phase in a.nudged], [phase.states for phase in b.nudged])))


# --- off, and what the rule reads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nudging", [Nudging.one_sided(0.1), NUDGING, Nudging.four_point(0.1)], ids=lambda n: f"{n.points}")
@pytest.mark.parametrize("connections", ep.CONNECTIONS)
def test_off_is_as_before(xp, connections, nudging):
    """No imperfection: the numbers of `eqprop_gradient`, also where a tolerance ends the phases."""
    network, x, y = example(xp, connections)
    for phases in (PHASES, ep.Phases(ep.Phase(60, "checkerboard", 1e-3), 5, deviations=False)):
        assert same(gradient(network, x, y, phases, nudging),
                    ep.eqprop_gradient(network, x, y, phases, nudging=nudging, transposed=False))


def test_off_is_as_before_in_complex_numbers(xp):
    network, x, y = example(xp, pool=ep.AVERAGE_POOL, activation=ep.SHIFTED_SIGMOID)
    nudging = Nudging.holomorphic(0.1, 3)
    assert same(gradient(network, x, y, nudging=nudging), ep.eqprop_gradient(network, x, y, PHASES, nudging=nudging))
    noisy = gradient(network, x, y, nudging=nudging, **ALL)
    assert all(g.dtype.kind == "f" for g in noisy.gradient.values()) and noisy.nudged[1].states[0].dtype.kind == "c"


def test_the_rule_is_a_function_of_states(xp):
    """States alone, of whoever relaxed them, give the gradient of eqprop_gradient; those of the wrong sign the opposite."""
    network, x, y = example(xp)
    ran = ep.eqprop_gradient(network, x, y, PHASES, nudging=NUDGING)
    states = {beta: phase.states for beta, phase in zip(NUDGING.points, ran.nudged)}
    read = ep.eqprop_from_states(network, x, y, ran.free.states, states, NUDGING)
    assert same(read, ran) and read.loss == ran.loss and read.correct == ran.correct
    other = ep.eqprop_from_states(network, x, y, ran.free.states, {-beta: s for beta, s in states.items()}, NUDGING)
    hidden = [name for name in ran.gradient if not name.startswith("readout")]
    assert all((other.gradient[name] == -ran.gradient[name]).all() for name in hidden)


@pytest.mark.parametrize("type_", ["float32", "float64"])
def test_types_and_the_engine(xp, type_):
    """Every imperfection at once: numbers keep their type, and other synapses compute the same."""
    network, x, y = example(xp, dtype=type_)
    plain = gradient(network, x, y, **{**ALL, "state_bits": 0})
    fast = ep.imperfect_gradient(network, x, y, PHASES, nudging=NUDGING, prepared=engine.prepared,
                                 imperfections=Imperfections(**{**ALL, "state_bits": 0}))
    assert {a.dtype.name for a in [*plain.gradient.values(), *plain.free.states, *fast.free.states]} == {type_}
    assert relative(fast.free.states, plain.free.states) < (1e-5 if type_ == "float32" else 1e-13)


# --- each of them -----------------------------------------------------------------------------------------------------------


@every
def test_each_has_an_effect_and_repeats(xp, name):
    """On the gradient, the same one every time; what is random in it is other noise at another place, and by another seed."""
    network, x, y = example(xp)
    perfect, one = gradient(network, x, y).gradient, gradient(network, x, y, **EACH[name])
    assert relative(one.gradient, perfect) > 1e-3
    assert same(one, gradient(network, x, y, **EACH[name]))
    elsewhere = gradient(network, x, y, **EACH[name], place=(0, 1))
    assert same(one, elsewhere) == (name not in RANDOM)
    assert same(one, gradient(network, x, y, **EACH[name], seed=1)) == (name in ("state bits", "weight bits"))


@every
def test_chunks_change_nothing(xp, name):
    """Who is relaxed beside an image does not matter to it: the same states, bit for bit, and the same gradient."""
    network, x, y = example(xp)
    whole, *parts = [gradient(network, x[k:k + n], y[k:k + n], **EACH[name], place=(2, 3), first=k)
                     for k, n in ((0, 4), (0, 2), (2, 2))]
    mean = {key: (parts[0].gradient[key] + parts[1].gradient[key]) / 2 for key in whole.gradient}
    assert relative(mean, whole.gradient) < 1e-9
    states = [np.concatenate([to_host(part.nudged[0].states[0]) for part in parts])]
    assert relative(states, whole.nudged[0].states[:1]) < 1e-12


@pytest.mark.parametrize("kind", [UPDATE, READ])
def test_an_image_has_the_same_noise_in_any_chunk(xp, kind):
    """Bit for bit, the second draw as well as the first."""
    a = xp.ones((5, 4, 3, 2), dtype="float32")
    whole, part = Imperfections(place=(1, 2)).noise(kind, 1, 5), Imperfections(place=(1, 2), first=3).noise(kind, 1, 2)
    for _ in range(2):
        assert (flat(whole(a)[3:]) == flat(part(a[3:]))).all()


@pytest.mark.parametrize("name", ["read noise", "update noise"])
def test_images_have_noise_of_their_own(xp, name):
    """Two images that are the same do not stay the same; with perfect updates and readings they do."""
    network, x, y = example(xp)
    x[1] = x[0]
    one, other = Imperfections(**EACH[name]), Imperfections()
    for device, differ in ((one, True), (other, False)):
        free = ep.relax(network, x, 5, disturb=device.disturbance(network, 0, len(x)))
        assert all(bool((s[0] != s[1]).any()) == differ for s in device.read(free).states)


@pytest.mark.parametrize("readings", [1, 4, 100])
def test_readings_average(xp, readings):
    """The noise of R readings is that of one, divided by sqrt(R), and the phases are read independently."""
    network, x, _ = example(xp)
    free = ep.relax(network, x, 3)
    device = Imperfections(read_noise=1e-3, readings=readings)
    errors = [flat(device.read(free, phase).states) - flat(free.states) for phase in (0, 1)]
    n = len(errors[0])
    for e in errors:
        assert abs(e.std() / (1e-3 / np.sqrt(readings)) - 1) < 4 / np.sqrt(2 * n)
        assert abs(e.mean()) < 4 * e.std() / np.sqrt(n)
    assert abs(np.corrcoef(errors)[0, 1]) < 4 / np.sqrt(n)


def test_noise_of_updates_stays_within_bounds(xp):
    """It is added at every step, to every layer, and no state leaves the range of the activation."""
    network, x, _ = example(xp)
    trajectory = []
    quiet = ep.relax(network, x, 6)
    ep.relax(network, x, 6, trajectory=trajectory, disturb=Imperfections(update_noise=0.1).disturbance(network, 0, len(x)))
    for states, _, _ in trajectory[1:]:
        assert 0 == flat(states).min() < flat(states).max() <= 1
    assert all(0.03 < float((a - b).std()) for a, b in zip(trajectory[-1][0], quiet.states))


def test_states_have_levels(xp):
    """2^bits of them. Images that leave a batch once they have settled keep to theirs."""
    network, x, _ = example(xp)
    x = xp.concatenate([x, 0.1 * x, 3 * x])  # more than are kept together, which settle after different numbers of steps
    disturb = Imperfections(state_bits=4).disturbance(network, 0, len(x))
    whole = ep.relax(network, x, ep.Phase(40, "up"), disturb=disturb)
    settled = ep.relax(network, x, ep.Phase(40, "up", tolerance=1e-6), disturb=disturb)
    assert settled.mean_steps < settled.steps <= 40
    for states in (whole.states, settled.states):
        levels = 15 * flat(states)
        assert abs(levels - levels.round()).max() < 1e-9 and len(set(levels.round())) > 8
    assert relative(settled.states, whole.states) < 1e-12


def test_weights_have_levels(xp):
    """2^bits of them up to weight_range, biases as they were, in a copy of the network."""
    network, *_ = example(xp)
    before = {name: w.copy() for name, w in network.parameters().items()}
    held = Imperfections(weight_bits=3, weight_range=1.2).coarse(network).parameters()
    for name, w in network.parameters().items():
        assert (w == before[name]).all()
        w, levels = to_host(w), 1.2 * np.sqrt((to_host(w)**2).mean()) * np.linspace(-1, 1, 8)
        nearest = w if name.endswith(".b") else levels[abs(w[..., None] - levels).argmin(-1)]
        assert np.allclose(to_host(held[name]), nearest, rtol=1e-12)


def test_mismatch_is_of_the_way_down(xp):
    """W' = W (1 + m n) there, the same at every place; nothing leads down to the input; and the rule multiplies the states."""
    network, x, y = example(xp)
    device = Imperfections(mismatch=0.1, seed=3)
    made, again = device.device(network), replace(device, place=(5,)).device(network, 2)
    assert set(made.parameters()) - set(network.parameters()) == {"2.B", "3.B"}
    for k in (2, 3):
        W, down = network.parameters()[f"{k}.W"], made.parameters()[f"{k}.B"]
        n = normal(np.random.default_rng([3, MISMATCH, k - 1]), W)
        assert (down == W * (1 + 0.1 * n)).all() and (down == again.parameters()[f"{k}.B"]).all()
        assert made.parameters()[f"{k}.W"] is W
    free = ep.relax(made, x, 30)
    nudged = {beta: ep.relax(made, x, 12, y, beta, start=free.states).states for beta in NUDGING.points}
    expected = ep.eqprop_from_states(network, x, y, free.states, nudged, NUDGING).gradient
    assert relative(gradient(network, x, y, mismatch=0.1, seed=3).gradient, expected) < 1e-12


def test_drift_is_between_phases(xp):
    """Every phase has weights of its own, as far from the network's as `drift` says; biases do not drift."""
    network, *_ = example(xp)
    device = Imperfections(drift=0.01)
    phases = [device.device(network, k).parameters() for k in range(3)]
    for name, w in network.parameters().items():
        errors = [flat(phase[name]) - flat(w) for phase in phases]
        if name.endswith(".b"):
            assert not np.any(errors)
            continue
        size = 0.01 * np.sqrt((flat(w)**2).mean())
        assert all(abs(e.std() / size - 1) < 5 / np.sqrt(2 * len(e)) for e in errors)
        assert abs(np.corrcoef(errors) - np.eye(3)).max() < 5 / np.sqrt(w.size)


def test_read_noise_costs_more_at_a_small_beta(xp):
    """The error of the gradient falls as 1/(beta sqrt(R)), which the theory page predicts layers by."""
    network, x, y = example(xp, pool=ep.AVERAGE_POOL)

    def error(beta, readings=1):
        nudging = Nudging.symmetric(beta)
        return relative(gradient(network, x, y, nudging=nudging, read_noise=1e-3, readings=readings).gradient,
                        gradient(network, x, y, nudging=nudging).gradient)

    assert abs(error(0.01) / error(0.02) - 2) < 0.1
    assert abs(error(0.01) / error(0.01, 25) - 5) < 0.1


def test_noisy_states_have_levels():
    """What is noisy is rounded, too, and last."""
    network, x, _ = example(np)
    noisy = Imperfections(update_noise=0.1, state_bits=4).disturbance(network, 0, len(x))
    s = 15 * flat(ep.relax(network, x, 6, disturb=noisy).states)
    assert abs(s - s.round()).max() < 1e-9


def test_phases_have_update_noise_of_their_own():
    """By tanh: clipping would add a bias that all phases share."""
    network, rng = ep.mlp([4, 30, 30, 3], activation="tanh", scale=0.5, dtype="float64"), np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4)), np.arange(8) % 3
    noisy, quiet = (gradient(network, x, y, ep.Phases(12, 12, deviations=False), Nudging.symmetric(1e-6), update_noise=size)
                    for size in (1e-3, 0.0))
    errors = [flat(a.states) - flat(b.states) for a, b in zip((noisy.free, *noisy.nudged), (quiet.free, *quiet.nudged))]
    assert abs(np.corrcoef(errors) - np.eye(3)).max() < 0.3




# --- refusals ---------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused():
    network, x, y = example(np)
    assert "deviations=False" in sentence(gradient, network, x, y, ep.Phases(3, 2, deviations=True), read_noise=1e-3)
    for free, nudged in ((ep.Phase(3, tolerance=1e-3), 2), (3, ep.Phase(2, tolerance=1e-3))):
        assert "tolerance" in sentence(gradient, network, x, y, ep.Phases(free, nudged, False), update_noise=1e-3)
    assert "Asymmetric" in sentence(gradient, ep.asymmetric(network), x, y, mismatch=0.1)
    for wrong in (dict(read_noise=-1), dict(readings=0), dict(state_bits=1.5), dict(mismatch=np.nan), dict(place=(0, -1)),
                  dict(weight_range="wide"), dict(seed=-1)):
        assert next(iter(wrong)) in sentence(Imperfections, **wrong)
    free = ep.relax(network, x, 3).states
    assert "got none at 0.1" in sentence(ep.eqprop_from_states, network, x, y, free, {-0.1: free}, NUDGING)
    assert "shapes" in sentence(ep.eqprop_from_states, network, x, y, free, {-0.1: free, 0.1: free[:2]}, NUDGING)
    network.feedback = 0.0
    assert "gamma = 0" in sentence(gradient, network, x, y, read_noise=1e-3)


class Paired(ep.Conv):
    """A convolution that keeps its switches as the second of a pair."""

    def drive_post(self, pre, switches=None):
        drive, found = super().drive_post(pre, switches and switches[1])
        return drive, (None, found)

    def hebbian(self, pre, post, switches):
        return super().hebbian(pre, post, switches[1])


def test_mismatch_leaves_pairs_of_switches_that_are_not_its_own():
    """Only synapses that a device exchanges have the switches of a way down that the rule does not know."""
    network, x, y = example(np)
    first = network.synapses[0]
    network.synapses[0] = Paired(first.W, first.b, first.pre_shape, first.stride, first.padding, first.pool)
    perfect, nearly = gradient(network, x, y), gradient(network, x, y, mismatch=1e-9)
    assert relative(nearly.gradient, perfect.gradient) < 1e-6
