"""Energies of one's own: nonlinear synapses, lateral ones, a sigma for each layer, and their files.

The synapses are those of examples/15_your_own_energy.py: `Memory`, a log-sum-exp that joins two layers, and `Inhibition`.
"""

import importlib.util
import json

import numpy as np
import pytest
from cases import SYMMETRIC
from helpers import EXAMPLES, normal, relative, sentence

import ep
from ep import Nudging, Phase, Phases
from ep.phase import SCHEDULES

SPEC = importlib.util.spec_from_file_location("your_own_energy", EXAMPLES / "15_your_own_energy.py")
own = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(own)

SIGMAS = [ep.TANH, ep.SHIFTED_SIGMOID, ep.SHIFTED_SIGMOID]
REST = Phase(300)
by_every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
at_every_gain = pytest.mark.parametrize("gain", [1.0, 0.5])


def dense(m, n, seed, size=0.3):
    return ep.Dense(size * normal(np, (m, n), [seed, 0]), 0.4 + 0.2 * normal(np, (n,), [seed, 1]), (m,))


def memory(m, n, seed=0, sharpness=2.0, size=0.5):
    return own.Memory(size * normal(np, (m, 7), [seed, 2]), size * normal(np, (n, 7), [seed, 3]), sharpness, (m,))


def inhibition(units, g=0.2):
    return own.Inhibition(np.full(1, g), units)


def nonlinear(gain=1.0):
    """x -> 1 -> 2 -> 3: inhibition in layer 1, a memory from 1 to 2 and one from the input to 2."""
    synapses = [dense(6, 5, 0), inhibition(5), memory(5, 4, 1), dense(4, 3, 2), memory(6, 4, 3)]
    return ep.Network(synapses, SIGMAS, ep.SquaredError(), [(0, 1), (1, 1), (1, 2), (2, 3), (0, 2)], feedback=gain)


def lateral(gain=1.0, sigmas=SIGMAS):
    """x -> 1 -> 2 -> 3: inhibition in layer 1, a dense synapse in layer 2 whose W is not symmetric."""
    synapses = [dense(6, 5, 0), inhibition(5), dense(5, 4, 1), dense(4, 4, 2, 0.2), dense(4, 3, 3)]
    return ep.Network(synapses, sigmas, ep.SquaredError(), [(0, 1), (1, 1), (1, 2), (2, 2), (2, 3)], feedback=gain)


X, Y = np.random.default_rng(0).random((3, 6)), np.array([0, 2, 1])


def random_states(network, seed=0, n=3):
    rng = np.random.default_rng(seed)
    return [rng.random((n, *shape)) for shape in network.shapes[1:]]


def slope(f, h=1e-4):
    """f'(0), but for h^4."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def moving(network, name, direction, value):
    """t -> value() where a parameter has moved by t along a direction."""
    w = network.parameters()[name]

    def moved(t):
        nonlocal w
        w += t * direction
        found = value()
        w -= t * direction
        return found
    return moved


def loss(network):
    """At the free fixed point."""
    return network.cost.value(ep.relax(network, X, REST).states[-1], network.targets(Y)).mean()


def is_the_slope_of_the_loss(network, gradient, tolerance=1e-6):
    """Whether it is, for every parameter, along a random direction."""
    largest = max(abs(g).max() for g in gradient.values())
    for name, g in gradient.items():
        direction = normal(np, g.shape, 9)
        measured = slope(moving(network, name, direction, lambda: loss(network)))
        assert abs((g * direction).sum() - measured) < tolerance * largest, name
        assert abs(g).max() > 1e-5 * largest, name  # there is something to compare
    assert gradient.keys() == network.parameters().keys()


# --- one synapse --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYMMETRIC)
def test_every_synapse_of_the_package_passes_the_check(name):
    ep.check_derivatives(SYMMETRIC[name](np))


@pytest.mark.parametrize("make", [lambda: memory(5, 4), lambda: inhibition(5)])
def test_those_of_the_example_pass_the_check(make):
    synapse = make()
    before = {name: w.copy() for name, w in synapse.parameters().items()}
    ep.check_derivatives(synapse)
    assert all((w == before[name]).all() for name, w in synapse.parameters().items())  # it looks at a copy


def wrong(method, change, kind=own.Memory):
    """A synapse one method of which returns something else."""
    def changed(self, *arguments):
        return change(getattr(kind, method)(self, *arguments))
    return type("Wrong", (kind,), {method: changed})


@pytest.mark.parametrize("kind, names", [
    (wrong("drive_post", lambda up: 1.001 * up), "drive_post"), (wrong("drive_pre", lambda down: -down), "drive_pre"),
    (wrong("drive_pre", lambda down: down[:1]), "drive_pre"),
    (wrong("drive_pre", lambda down: down + 1e-3 * (down.sum(0) - 3 * down)), "drive_pre"),  # it mixes the images
    (wrong("hebbian", lambda g: {**g, "U": 2 * g["U"]}), "U"), (wrong("hebbian", lambda g: {"V": g["V"]}), "U"),
    (wrong("phi", lambda phi: 1.001 * phi), "drive_pre, drive_post, U, V")])
def test_what_is_no_derivative_is_named(kind, names):
    right = memory(5, 4)
    said = sentence(ep.check_derivatives, kind(right.U, right.V, right.sharpness, (5,)))
    assert f"Wrong: not the derivative of its phi: {names} (" in said


class Biased(ep.Synapse):
    """< post, pre W + bias >, with the derivatives of that, under names of its own."""

    def __init__(self, weight, bias):
        self.V, self.b, self.c = weight, bias, bias
        self.pre_shape, self.post_shape = weight.shape[:1], bias.shape

    def parameters(self):
        return {"V": self.V, "b": self.b}

    def drive_post(self, pre, switches=None):
        return pre @ self.V + self.b, None

    def linear_post(self, pre, switches=None):
        return pre @ self.V

    def drive_pre(self, post, switches=None):
        return post @ self.V.T

    def hebbian(self, pre, post, switches=None):
        return {"V": pre.T @ post, "b": post.sum(0)}


class OtherBias(Biased):
    """The bias has another name, by which nobody knows that it is one."""

    def parameters(self):
        return {"V": self.V, "c": self.c}

    def drive_post(self, pre, switches=None):
        return pre @ self.V + self.c, None

    def hebbian(self, pre, post, switches=None):
        return {"V": pre.T @ post, "c": post.sum(0)}


class ForgetsLinear(Biased):
    linear_post = ep.Synapse.linear_post


class WeightCalledB(ep.Synapse):
    """< post, b pre >: the weight has the name of a bias."""

    def __init__(self, b):
        self.b, self.pre_shape, self.post_shape = b, b.shape, b.shape

    def parameters(self):
        return {"b": self.b}

    def drive_post(self, pre, switches=None):
        return self.b * pre, None

    def drive_pre(self, post, switches=None):
        return self.b * post

    def hebbian(self, pre, post, switches=None):
        return {"b": (pre * post).sum(0)}


@pytest.mark.parametrize("kind, named", [(OtherBias, "hebbian_down of c"), (ForgetsLinear, "linear_post"),
                                         (WeightCalledB, "hebbian_down of b")])
def test_a_bias_that_is_not_known_as_one_is_named(kind, named):
    """Phi has the right derivatives, but deviations, BPTT and RBP would take a bias for a weight, or a weight for a bias."""
    rng = np.random.default_rng(0)
    arrays = [rng.random((4, 3)), rng.random(3)]
    ep.check_derivatives(Biased(*arrays))
    said = sentence(ep.check_derivatives, kind(*arrays[-1:] if kind is WeightCalledB else arrays))
    assert f"{kind.__name__}: not the derivative of its phi: {named}" in said


def test_max_pooling_may_stand_below_negative_states():
    """Only the layer that it leads to needs states >= 0: its own state pushes its winner up."""
    conv = ep.Conv(np.ones((3, 3, 1, 1)), np.ones(1), (4, 4, 1))
    ep.Network([conv, ep.Dense(np.eye(4), np.ones(4), (2, 2, 1))], ["clip", "tanh"], ep.SquaredError())


# --- drives, steps and energy ----------------------------------------------------------------------------------------------


@at_every_gain
@pytest.mark.parametrize("make", [nonlinear, lateral])
def test_drives_and_products_are_the_derivatives_of_phi(make, gain):
    """w_n u_n = dPhi/ds_n, the sum of both ends of a lateral synapse, and hebbian = dPhi/dtheta."""
    network = make(gain)
    states = random_states(network)
    u, switches = network.drives(X, states)
    for n, (s, w_n) in enumerate(zip(states, network.energy_factors)):
        direction = normal(np, s.shape, n)
        measured = slope(lambda t, n=n, d=direction: network.phi(X, [*states[:n], states[n] + t * d, *states[n + 1:]]))
        assert relative((w_n * u[n] * direction).sum(1), measured) < 1e-9
    for name, g in network.hebbian(X, states, switches).items():
        direction = normal(np, g.shape, 5)
        measured = slope(moving(network, name, direction, lambda: network.phi(X, states).sum()))
        assert (g * direction).sum() == pytest.approx(measured, rel=1e-8)


@by_every_schedule
@at_every_gain
@pytest.mark.parametrize("make", [nonlinear, lateral])
def test_a_step_hears_both_ends_as_they_are_now(make, gain, schedule):
    """Three steps, layer by layer, from drives that are all made anew."""
    network = make(gain)
    states = random_states(network)
    after = ep.relax(network, X, Phase(3, schedule), start=states)
    for _ in range(3):
        for group in SCHEDULES[schedule](network):
            u = network.drives(X, states)[0]
            states = [SIGMAS[n - 1].sigma(u[n - 1]) if n in group else s for n, s in enumerate(states, start=1)]
    assert relative(after.states, states) < 1e-14
    assert all(relative(sigma.sigma(u), s) < 1e-14 for sigma, u, s in zip(SIGMAS, after.u, after.states))


def test_from_zero_a_nonlinear_synapse_speaks_at_once():
    """log-sum-exp has a slope at zero: the rule that a layer at zero sends nothing down is for bilinear synapses."""
    network, zero = nonlinear(), np.zeros((3, 5))
    into_1, _, between, _, into_2 = network.synapses
    first = ep.relax(network, X, 1)
    assert relative(first.u[0], into_1.drive_post(X)[0] + between.drive_pre(zero, zero[:, :4])) < 1e-15
    assert relative(first.u[1], between.drive_post(zero, zero[:, :4]) + into_2.drive_post(X, zero[:, :4])) < 1e-15


@pytest.mark.parametrize("make", [nonlinear, lateral])
def test_every_schedule_ends_where_the_energy_is_stationary(make):
    network = make(0.5)
    free = ep.relax(network, X, REST)
    assert free.residual < 1e-12
    for schedule in ("checkerboard", "up", "down"):
        assert relative(ep.relax(network, X, Phase(300, schedule)).states, free.states) < 1e-12
    along = [normal(np, s.shape, n) for n, s in enumerate(free.states)]

    def force(states):
        return abs(slope(lambda t: network.energy(X, [s + t * d for s, d in zip(states, along)]), 1e-5))

    assert force(free.states).max() < 1e-7 and force([0.9 * s for s in free.states]).min() > 1e-3


def test_images_do_not_hear_each_other_and_float32_stays():
    network = nonlinear()
    whole = ep.relax(network, X, 9).states
    for n in range(3):
        assert relative([s[n:n + 1] for s in whole], ep.relax(network, X[n:n + 1], 9).states) < 1e-14
    network.set_parameters({name: w.astype("float32") for name, w in network.parameters().items()})
    phases = Phases(9, 5, deviations=False)
    estimate = ep.eqprop_gradient(network, X, Y, phases, nudging=Nudging.symmetric(0.1))
    assert {a.dtype.name for a in (*estimate.free.states, *estimate.gradient.values())} == {"float32"}


def largest_rise(network, omega=1.0, steps=12):
    """By how much a free checkerboard step raises E at most, from eight random states of CLIP's range."""
    states, rise = random_states(network, n=8), -np.inf
    x = np.random.default_rng(1).random((8, *network.shapes[0]))
    for _ in range(steps):
        before = network.energy(x, states)
        states = ep.relax(network, x, Phase(1, "checkerboard", omega=omega), start=states).states
        rise = max(rise, (network.energy(x, states) - before).max())
    return rise


def joined(*middle, sigma="clip", wiring=()):
    synapses = [dense(6, 5, 0), dense(5, 4, 1), *middle]
    return ep.Network(synapses, sigma, ep.SquaredError(), [(0, 1), (1, 2), *wiring])


@pytest.mark.parametrize("sigma", ["clip", "hard-sigmoid", "sigmoid", "tanh"])
def test_where_phi_is_convex_in_a_layer_the_energy_never_rises(sigma):
    """The units of a layer move together, and E still falls: convex lateral couplings, and a memory, however strong."""
    A = normal(np, (4, 4), 5)
    convex = ep.Dense(A @ A.T, np.zeros(4), (4,))
    network = joined(convex, memory(5, 4, 2, sharpness=20.0, size=2.0), sigma=sigma, wiring=[(2, 2), (1, 2)])
    assert largest_rise(network) < 1e-12


def test_strong_inhibition_raises_the_energy_unless_it_is_damped():
    """-d2Phi/ds2 has the largest eigenvalue g (units - 1) = 4: omega = 2/(1 + 4) is the largest that never raises E; 1 does."""
    network = joined(inhibition(5, g=1.0), wiring=[(1, 1)])
    assert largest_rise(network) > 0.1
    assert largest_rise(network, omega=2 / (1 + 4)) < 1e-12
    assert largest_rise(joined(inhibition(5, g=0.25), wiring=[(1, 1)])) < 1e-12  # slope times eigenvalue = 1


def test_over_relaxation_is_refused():
    for network in (joined(inhibition(5), wiring=[(1, 1)]), joined(memory(5, 4), wiring=[(1, 2)])):
        for free, nudged in ((1.1, 1.0), (1.0, 1.1)):
            phases = Phases(Phase(3, "up", omega=free), Phase(3, "up", omega=nudged), deviations=False)
            said = sentence(ep.eqprop_gradient, network, X, [0, 3, 1], phases, nudging=Nudging.symmetric(0.1))
            assert "use omega = 1, or less" in said


# --- gradients --------------------------------------------------------------------------------------------------------------


@at_every_gain
@pytest.mark.parametrize("make", [nonlinear, lateral])
def test_ep_by_states_is_the_slope_of_the_loss(make, gain):
    network = make(gain)
    phases = Phases(REST, REST, deviations=False)
    estimate = ep.eqprop_gradient(network, X, Y, phases, nudging=Nudging.four_point(0.01))
    is_the_slope_of_the_loss(network, estimate.gradient)


def test_states_alone_are_enough():
    """Those that somebody else has relaxed, or measured: the same gradient, for there are no switches to know."""
    network, nudging, phases = nonlinear(), Nudging.symmetric(0.1), Phases(REST, REST, deviations=False)
    estimate = ep.eqprop_gradient(network, X, Y, phases, nudging=nudging)
    nudged = {beta: phase.states for beta, phase in zip(nudging.points, estimate.nudged)}
    again = ep.eqprop_from_states(network, X, Y, estimate.free.states, nudged, nudging)
    assert relative(again.gradient, estimate.gradient) == 0


@at_every_gain
def test_a_lateral_bilinear_synapse_has_every_gradient(gain):
    """By deviations, BPTT and RBP: D has the sum of both ways on its diagonal."""
    network, phases = lateral(gain), Phases(REST, REST, deviations=True)
    gradients = [ep.eqprop_gradient(network, X, Y, phases, nudging=Nudging.four_point(0.01)).gradient,
                 ep.bptt_gradient(network, X, Y, phases).gradient, ep.rbp_gradient(network, X, Y, phases).gradient]
    is_the_slope_of_the_loss(network, gradients[2])
    assert all(relative(g, gradients[2]) < 1e-7 for g in gradients)


def test_a_lateral_synapse_may_be_asymmetric():
    """Feedback weights of its own in the layer, too: the exact gradient is RBP's, as everywhere."""
    network, phases = ep.asymmetric(lateral_dense()), Phases(REST, REST, deviations=True)
    exact = ep.rbp_gradient(network, X, Y, phases).gradient
    assert relative(ep.eqprop_gradient(network, X, Y, phases, nudging=Nudging.four_point(0.01)).gradient, exact) < 1e-7
    is_the_slope_of_the_loss(network, exact)


def lateral_dense():
    synapses = [dense(6, 5, 0), dense(5, 5, 4, 0.1), dense(5, 3, 1)]
    return ep.Network(synapses, "sigmoid", ep.SquaredError(), [(0, 1), (1, 1), (1, 2)])


JACOBIAN = {
    "deviations": lambda net, p: ep.eqprop_gradient(net, X, Y, p, nudging=Nudging.symmetric(0.1)),
    "increments": lambda net, p: ep.eqprop_increments(net, X, Y, random_states(net), 2, nudging=Nudging.symmetric(0.1),
                                                      deviations=True),
    "bptt": lambda net, p: ep.bptt_gradient(net, X, Y, p), "rbp": lambda net, p: ep.rbp_gradient(net, X, Y, p),
    "bptt increments": lambda net, p: ep.bptt_increments(net, X, Y, random_states(net), 1),
    "radius": lambda net, p: ep.spectral_radius(net, X, ep.relax(net, X, 5)), "asymmetric": lambda net, p: ep.asymmetric(net)}


@pytest.mark.parametrize("name", JACOBIAN)
def test_what_needs_a_jacobian_says_what_to_use_instead(name):
    synapse = memory(5, 4)
    synapse.W = synapse.b = np.zeros((5, 4))  # so that it might be doubled
    network = joined(synapse, wiring=[(1, 2)])
    said = sentence(JACOBIAN[name], network, Phases(5, 5, deviations=True))
    assert "nonlinear" in said and "use eqprop_gradient with Phases(..., deviations=False)" in said


def test_complex_nudging_needs_a_holomorphic_synapse():
    phases = Phases(5, 5, deviations=False)
    assert "holomorphic" in sentence(ep.eqprop_gradient, nonlinear(), X, Y, phases, nudging=Nudging.holomorphic(0.1, 4))


def test_it_learns_in_the_main_jobs_loop():
    """Embedded synthetic images, eight of each of five classes: by states, the engine's convolutions beside one's own."""
    images, labels = own.images(40)
    network = own.network(images)
    before = ep.evaluate(network, images, labels, own.settle)[1]
    optimizer = ep.Adam(network, own.RATES)
    for epoch in range(3):
        ep.train_epoch(network, images, labels, own.gradient, optimizer, batch_size=20, epoch=epoch)
    assert ep.evaluate(network, images, labels, own.settle)[1] < before - 0.1


# --- a sigma for each layer ------------------------------------------------------------------------------------------------


def gradients(network, phases):
    return [ep.eqprop_gradient(network, X, Y, phases, nudging=Nudging.symmetric(0.1)), ep.bptt_gradient(network, X, Y, phases),
            ep.rbp_gradient(network, X, Y, phases)]


def test_the_same_sigma_for_each_layer_changes_no_bit():
    for sigma in (ep.HARD_SIGMOID, ep.TANH):
        one, each = (lateral(0.5, sigma_s) for sigma_s in (sigma, [sigma.name] * 3))
        assert (one.energy(X, random_states(one)) == each.energy(X, random_states(each))).all()
        for a, b in zip(gradients(one, Phases(20, 10)), gradients(each, Phases(20, 10))):
            assert relative(a.gradient, b.gradient) == 0 and relative(a.free.states, b.free.states) == 0


@pytest.mark.parametrize("sigmas", [[ep.TANH, ep.SHIFTED_SIGMOID, ep.HARD_SIGMOID], [ep.HARD_SIGMOID, ep.CLIP, ep.TANH]])
def test_each_layer_has_its_own(sigmas):
    """States, energy and every gradient."""
    network = lateral(0.5, sigmas)
    free = ep.relax(network, X, REST)
    for sigma, u, s in zip(sigmas, network.drives(X, free.states)[0], free.states):
        assert relative(sigma.sigma(u), s) < 1e-12
    states = random_states(network)
    G = sum(w * sigma.G(s).sum(1) for w, sigma, s in zip(network.energy_factors, sigmas, states))
    assert network.energy(X, states) == pytest.approx(G - network.phi(X, states), rel=1e-14)
    by_deviations, bptt, rbp = gradients(network, Phases(REST, REST, deviations=True))
    is_the_slope_of_the_loss(network, rbp.gradient)
    assert relative(bptt.gradient, rbp.gradient) < 1e-9 and relative(by_deviations.gradient, rbp.gradient) < 0.02


def test_the_radius_is_that_of_each_layers_sigma():
    """The factor by which a small error shrinks in a step."""
    network = lateral(0.5, [ep.HARD_SIGMOID, ep.TANH, ep.SHIFTED_SIGMOID])
    free = ep.relax(network, X, REST)
    near = ep.relax(network, X, 10, start=[s + 1e-4 * normal(np, s.shape, 1) for s in free.states]).states
    sizes = [np.sqrt(sum(((a - b) ** 2).sum(1) for a, b in zip(states, free.states)))
             for states in (near, ep.relax(network, X, 8, start=near).states)]
    assert (sizes[1] / sizes[0]) ** (1 / 8) == pytest.approx(ep.spectral_radius(network, X, free, 200), rel=0.1)


def test_the_log_knows_the_bounds_of_each_layer():
    """A unit at the upper bound of its own sigma is stuck, and one that is not is not."""
    from ep.train.step import merged, part

    network = ep.Network([dense(6, 5, 0), dense(5, 4, 1)], [ep.RELU6, ep.CLIP], ep.SquaredError())
    for synapse, b in zip(network.synapses, (1.0, 9.0)):
        synapse.W *= 0.0
        synapse.b[:] = b
    network.feedback = 0.0
    step = merged([part(network, ep.eqprop_gradient(network, X, Y, Phases(3, 3, True), nudging=Nudging.symmetric(0.1)))])
    assert step.stuck == [0.0, 1.0]  # 1 is no bound of RELU6


def test_a_device_keeps_each_layer_between_its_own_bounds():
    """With noise in every update; and it has no mismatch of a nonlinear synapse."""
    network = lateral(0.5, [ep.TANH, ep.CLIP, ep.RELU6])
    disturb = ep.Imperfections(update_noise=100.0).disturbance(network, 0, 3)
    for n, (low, high) in enumerate([(-1, 1), (0, 1), (0, 6)], start=1):
        assert set(disturb(n, random_states(network)[n - 1]).ravel()) == {low, high}
    synapse = memory(5, 4)
    synapse.W = synapse.U
    assert "mismatch" in sentence(ep.Imperfections(mismatch=0.1).device, joined(synapse, wiring=[(1, 2)]))


@pytest.mark.parametrize("make, said", [
    (lambda: lateral(sigmas=[ep.TANH] * 2), "one for each of the 3 layers: got 2"),
    (lambda: lateral(sigmas=[]), "one for each of the 3 layers: got 0"),
    (lambda: lateral(sigmas=[ep.TANH, "tanh", 3]), "got 3"),
    (lambda: ep.Network([ep.Conv(np.ones((3, 3, 1, 1)), np.ones(1), (4, 4, 1)), ep.Dense(np.eye(4), np.ones(4), (2, 2, 1))],
                        ["tanh", "clip"], ep.SquaredError()), "max-pooling needs states >= 0"),
    (lambda: ep.Network([dense(3, 3, 0)] * 3, "tanh", ep.SquaredError(), [(0, 1), (1, 2), (2, 1)]), "or join a layer to itself"),
    (lambda: ep.Network([dense(3, 3, 0)] * 2, "tanh", ep.SquaredError(), [(0, 1), (0, 0)]), "leads into layer 0"),
    (lambda: ep.Network([ep.Asymmetric(dense(3, 3, 0), np.eye(3))], "tanh", ep.SquaredError()), "fed back to the input"),
    (lambda: ep.Network([ep.Identity((2, 2, 3))], "tanh", ep.SquaredError()), "takes one axis"),
    (lambda: ep.Network([dense(3, 3, 0)], "tanh", ep.SoftmaxCrossEntropy(np.ones((4, 2)), np.ones(2))), "row of W")])
def test_what_does_not_fit_is_refused(make, said):
    assert said in sentence(make)


# --- files ------------------------------------------------------------------------------------------------------------------


class Drawn(own.Memory):
    """Its parameters are drawn by the constructor, which takes none of them."""

    def __init__(self, units, seed):
        self.units, self.seed = units, seed
        rng = np.random.default_rng(seed)
        super().__init__(rng.normal(size=(units, 3)), rng.normal(size=(units, 3)), 1.0, (units,))


def all_kinds():
    """Conv, Identity, Dense, and three kinds of one's own."""
    conv = ep.Conv(normal(np, (3, 3, 1, 2), 0), normal(np, (2,), 1), (6, 6, 1), pool="average")
    shape = conv.post_shape
    head = memory(18, 5, 1)
    head.pre_shape = shape
    synapses = [conv, ep.Identity(shape), head, inhibition(5), Drawn(5, 3)]
    cost = ep.SoftmaxCrossEntropy(normal(np, (5, 3), 4), normal(np, (3,), 5))
    return ep.Network(synapses, ["clip", "sigmoid", "clip", "tanh"], cost, [(0, 1), (1, 2), (2, 3), (3, 3), (3, 4)], feedback=0.5)


MINE = [own.Memory, own.Inhibition, Drawn]


def test_a_network_of_ones_own_is_saved_and_loaded(tmp_path):
    """The same bits, by whoever has the classes; parameters that a constructor drew are those of the file."""
    network, path = all_kinds(), tmp_path / "net.npz"
    network.synapses[4].V += 1.0
    network.about = {"classes": ["a", "b", "c"]}
    network.save(path)
    again = ep.load(path, synapses=MINE)
    x = np.random.default_rng(0).random((2, 6, 6, 1))
    assert relative(again.parameters(), network.parameters()) == 0 and again.about == network.about
    assert again.wiring == network.wiring and again.activations == network.activations and again.feedback == 0.5
    assert relative(ep.relax(again, x, 7).states, ep.relax(network, x, 7).states) == 0
    again.save(path)  # and once more
    assert relative(ep.load(path, synapses=MINE).parameters(), network.parameters()) == 0


def test_a_file_names_no_code(tmp_path):
    """A class that is not passed is one sentence; a class of one's own that is called Dense is not taken for the package's."""
    path = tmp_path / "net.npz"
    all_kinds().save(path)
    assert "'Memory'" in sentence(ep.load, path) and "'Drawn'" in sentence(ep.load, path, synapses=MINE[:2])
    mine = type("Dense", (ep.Dense,), {})
    ep.Network([mine(np.eye(3), np.zeros(3), (3,))], "tanh", ep.SquaredError()).save(path)
    assert "'Dense'" in sentence(ep.load, path)
    assert type(ep.load(path, synapses=[mine]).synapses[0]) is type(ep.load(path, synapses=mine).synapses[0]) is mine
    described = json.loads(str(dict(np.load(path))["network"]))
    for name in ("os.system", "ep.Synapse", "ep.load", "builtins.eval"):
        described["synapses"][0][0] = name
        np.savez(path, **{**dict(np.load(path)), "network": np.array(json.dumps(described))})
        assert repr(name) in sentence(ep.load, path, synapses=[mine])


def test_a_class_that_has_changed_since_is_one_sentence(tmp_path):
    """Another constructor, or other parameters."""
    path = tmp_path / "net.npz"
    all_kinds().save(path)
    for other in (type("Drawn", (Drawn,), {"__init__": lambda self, size: None}),
                  type("Drawn", (Drawn,), {"parameters": lambda self: {"other": np.zeros(3)}})):
        sentence(ep.load, path, synapses=[*MINE[:2], other])


@pytest.mark.parametrize("change, said", [
    (lambda net: vars(net.synapses[2]).pop("sharpness"), "synapse 3, Memory"),
    (lambda net: setattr(net.synapses[2], "sharpness", abs), "synapse 3, Memory"),
    (lambda net: setattr(net.synapses[0], "pool", ep.AVERAGE_POOL._replace(name="mine")), "synapse 1, ep.Conv"),
    (lambda net: setattr(net, "activation", ep.TANH._replace(name="mine")), "an activation or a cost"),
    (lambda net: setattr(net, "cost", type("Mine", (ep.SquaredError,), {})()), "an activation or a cost")])
def test_what_cannot_be_read_back_is_not_saved(tmp_path, change, said):
    network = all_kinds()
    change(network)
    assert said in sentence(network.save, tmp_path / "net.npz") and list(tmp_path.iterdir()) == []
