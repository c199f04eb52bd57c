"""The feedback gain gamma: the energy with weights, the theorem at every gain, and the limit of no feedback, backpropagation.

Gain 1, where all weights are 1, is what the other tests are at.
"""

import json

import numpy as np
import pytest
from helpers import (
    COST_NAMES,
    NETWORKS,
    data,
    dot,
    fitted_slope,
    flat,
    loss_slope,
    network,
    normal,
    random_direction,
    random_states,
    relative,
    same_switches,
    slope,
)
from test_dynamics import largest_violation
from test_gdu import falls_as, increments, of_backward
from test_network import check_derivatives

from ep import bptt, eqprop
from ep.activations import ACTIVATIONS, SIGMOID
from ep.backend import to_host
from ep.builders import convnet, load, mlp
from ep.cost import COSTS, SquaredError
from ep.dynamics import SCHEDULES, Phase, Phases, relax
from ep.errors import EPError
from ep.network import Network
from ep.npz import read_npz
from ep.nudging import Nudging
from ep.rbp import rbp_gradient
from ep.synapse import Dense
from ep.vectorfield import asymmetric

GAINS = (1.0, 0.3, 0.05)
STEPS_TO_REST = 60  # at gains below 1 these networks are at a fixed point after half the steps that they take at 1
PHASES = Phases(STEPS_TO_REST, 40)
INVERSE = {"hard-sigmoid": lambda s: 2 * s, "clip": lambda s: s, "relu6": lambda s: s, "tanh": np.arctanh,
           "sigmoid": lambda s: (np.log(s) - np.log(1 - s) + 2) / 4}
FEW = [("dense", "tanh"), ("dense", "hard-sigmoid"), ("average", "sigmoid"), ("max", "hard-sigmoid")]
every_network = pytest.mark.parametrize("kind,activation", NETWORKS)
few_networks = pytest.mark.parametrize("kind,activation", FEW)
every_cost = pytest.mark.parametrize("cost", COST_NAMES)
weak_gains = pytest.mark.parametrize("gain", GAINS[1:])
both_forms = pytest.mark.parametrize("deviations", [True, False], ids=["deviations", "two states"])


def triangle(xp, gain=1.0):
    """x -> 1 -> 2 -> 3 and the skip 1 -> 3, dense, sigmoid."""
    wiring, units = [(0, 1), (1, 2), (2, 3), (1, 3)], (6, 5, 4, 3)
    synapses = [Dense(0.4 * normal(xp, (units[i], units[j]), [k, 1]), normal(xp, (units[j],), [k, 2]), (units[i],))
                for k, (i, j) in enumerate(wiring)]
    return Network(synapses, SIGMOID, SquaredError(), wiring=wiring, feedback=gain)


# --- the energy, equation (10) ----------------------------------------------------------------------------------------


@every_network
def test_the_three_faces_with_weights(xp, kind, activation):
    """w_n u_n = dPhi/ds_n, hebbian = dPhi/dtheta, E = sum_n w_n G - Phi, by finite differences; and Phi by each face:

    Phi = sum_k w_j < drive_post_k(s_i), s_j > = < theta, hebbian >
        = sum_k w_i gains[k] < s_i, drive_pre_k(s_j) > + w_j < b, s_j >
    """
    net = network(xp, kind, activation)
    x, _ = data(xp, net)
    layers = [x, *random_states(xp, net)]
    for net.feedback in GAINS:
        check_derivatives(xp, net)
        w, by_up, by_down = [None, *net.weights], 0.0, 0.0
        switches = net.drives(x, layers[1:])[1]
        for synapse, (i, j), gain, sw in zip(net.synapses, net.wiring, net.gains, switches):
            by_up += w[j] * dot(synapse.drive_post(layers[i], sw)[0], layers[j])
            bias = w[j] * dot(synapse.b + 0.0 * layers[j], layers[j])
            down = dot(layers[i], synapse.drive_pre(layers[j], sw))
            by_down += (w[i] * gain if i > 0 else w[j]) * down + bias
        phi = to_host(net.phi(x, layers[1:])).sum()
        products = net.hebbian(x, layers[1:], switches)
        own = {name: net.parameters()[name] for name in products}
        assert [by_up, by_down, dot(products, own)] == pytest.approx([phi] * 3, rel=1e-12)


@every_network
def test_the_slope_of_the_energy_anywhere(xp, kind, activation):
    """dE/ds_n = w_n (sigma^-1(s_n) - u_n) at a random state, layer by layer along random directions."""
    net = network(xp, kind, activation)
    x, _ = data(xp, net)
    states = random_states(xp, net)
    for net.feedback in GAINS:
        u = net.drives(x, states)[0]
        for n, w in enumerate(net.weights):
            d = normal(xp, states[n].shape, [4, n])
            moved = slope(lambda t, n=n, d=d: to_host(net.energy(x, [*states[:n], states[n] + t * d, *states[n + 1:]])).sum(),
                          1e-4)
            expected = w * (INVERSE[activation](flat(states[n])) - flat(u[n])) @ flat(d)
            assert abs(moved - expected) < 1e-8 * w * np.linalg.norm(flat(d)) and abs(expected) > 1e-2 * w


@every_network
@weak_gains
def test_the_free_fixed_point_is_stationary_for_the_energy(xp, kind, activation, gain):
    """dE/ds_n = 0 at s* by finite differences of E itself along directions inside the box, and no bound is left against the
    slope; a random state is not stationary."""
    net = network(xp, kind, activation, feedback=gain, scale=0.9)
    x, _ = data(xp, net)
    free, (low, high) = relax(net, x, 2 * STEPS_TO_REST), net.activation.bounds
    assert free.residual < 1e-14
    for n, s in enumerate(free.states):
        d = normal(xp, s.shape, [5, n]) * ((s > low) & (s < high))
        moved = slope(lambda t, n=n, s=s, d=d: to_host(
            net.energy(x, [*free.states[:n], s + t * d, *free.states[n + 1:]])).sum(), 1e-5)
        # round-off: differences over 1e-5 of energies of about the size of the largest weight
        assert abs(moved) < 1e-9 * max(net.weights) * np.linalg.norm(flat(d))
    assert largest_violation(net, x, free.states) < 1e-9
    assert largest_violation(net, x, random_states(xp, net)) > 0.1


def test_weights_and_gains(xp):
    """w_n = gamma^(depth_n - depth_L), gains w_j/w_i; on a skip over two layers gamma^2; at gamma = 0 nothing comes down."""
    net = triangle(xp, 0.3)
    assert net.depths == [0, 1, 2, 3] and net.weights == pytest.approx([1 / 0.09, 1 / 0.3, 1.0])
    assert net.gains[1:] == pytest.approx([0.3, 0.3, 0.09])
    net.feedback = 0
    assert net.weights == [np.inf, np.inf, 1.0] and net.gains[1:] == [0.0, 0.0, 0.0] and type(net.feedback) is float
    net.feedback = 1
    assert net.weights == [1.0] * 3 and net.gains == [1.0] * 4


def test_a_drive_that_comes_down_is_multiplied_by_its_gain(xp):
    """u_1 of the triangle = what comes up + gamma W_12 s_2 + gamma^2 W_13 s_3, written out; u_3 has no gain in it."""
    net = triangle(xp, 0.3)
    x, _ = data(xp, net)
    s1, s2, s3 = random_states(xp, net)
    first, second, third, skip = net.synapses
    u = net.drives(x, [s1, s2, s3])[0]
    assert relative(u[0], x @ first.W + first.b + 0.3 * s2 @ second.W.T + 0.09 * s3 @ skip.W.T) < 1e-14
    assert relative(u[1], s1 @ second.W + second.b + 0.3 * s3 @ third.W.T) < 1e-14
    assert relative(u[2], s2 @ third.W + third.b + s1 @ skip.W + skip.b) < 1e-14


# --- schedules --------------------------------------------------------------------------------------------------------


def graph(wiring):
    """A dense network with that wiring, two units a layer."""
    return Network([Dense(np.ones((2, 2)), np.ones(2), (2,)) for _ in wiring], SIGMOID, SquaredError(), wiring=wiring)


@pytest.mark.parametrize("wiring,colours,depths", [
    ([(0, 1), (1, 2), (2, 3), (3, 4)], [[1, 3], [2, 4]], [[1], [2], [3], [4]]),
    ([(0, 1), (1, 2), (2, 3), (1, 3)], [[1], [2], [3]], [[1], [2], [3]]),  # a triangle takes three colours
    ([(0, 1), (1, 2), (2, 3), (3, 4), (1, 4)], [[1, 3], [2, 4]], [[1], [2], [3], [4]]),  # a square takes two
    ([(0, 1), (1, 2), (2, 3), (1, 3), (3, 4)], [[1, 4], [2], [3]], [[1], [2], [3], [4]]),  # parity would move 1 with 3
    ([(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)], [[1, 2, 4], [3]], [[1, 2], [3], [4]]),  # two branches that join
    ([(2, 1), (1, 3), (0, 2)], [[2, 3], [1]], [[2], [1], [3]])])  # numbered in another order
def test_schedules_follow_the_wiring(wiring, colours, depths):
    """Checkerboard: no two joined layers move together. Sweeps: by depth. Every layer moves once a step."""
    net = graph(wiring)
    found = {name: [list(group) for group in schedule(net)] for name, schedule in SCHEDULES.items()}
    assert found["checkerboard"] == colours and found["up"] == depths and found["down"] == depths[::-1]
    for name, groups in found.items():
        assert sorted(sum(groups, [])) == list(range(1, len(net.shapes)))
        assert name == "synchronous" or not any(i in group and j in group for i, j in wiring for group in groups)


@pytest.mark.parametrize("schedule", ["checkerboard", "up", "down"])
def test_steps_on_a_triangle_never_raise_the_energy(xp, schedule):
    """Which needs colours that follow the wiring: by parity layers 1 and 3, which are joined, would move together."""
    net = triangle(xp)
    net.synapses[3].W = 10.0 * net.synapses[3].W  # 1 -> 3 decides
    x, _ = data(xp, net)
    for net.feedback in GAINS:
        states = random_states(xp, net)
        energies = [to_host(net.energy(x, states))]
        for _ in range(15):
            states = relax(net, x, Phase(1, schedule), start=states).states
            energies.append(to_host(net.energy(x, states)))
        assert np.diff(energies, axis=0).max() < 1e-13 * np.abs(energies).max()  # round-off
        assert (energies[1] < energies[0]).all()


@every_network
def test_the_first_sweep_up_is_the_feed_forward_pass(xp, kind, activation):
    """Bit for bit, at any gain: the layers above are still 0 when a layer is updated, and nothing comes down from them."""
    net = network(xp, kind, activation, scale=1.5, feedback=0.3)
    x, _ = data(xp, net)
    swept, s = relax(net, x, Phase(1, "up")), x
    for n, synapse in enumerate(net.synapses):
        s = net.activation.sigma(synapse.drive_post(s)[0])
        assert relative(swept.states[n], s) == 0


# --- the theorem ------------------------------------------------------------------------------------------------------


@every_cost
@few_networks
@weak_gains
def test_every_gradient_is_that_of_the_loss(xp, kind, activation, cost, gain):
    """EP as deviations and as the difference of two states, BPTT and RBP, along a random direction = the derivative of the
    loss by the complex step; and each parameter's EP gradient is BPTT's: none is 0, in the first layer neither."""
    net = network(xp, kind, activation, cost, feedback=gain)
    (x, y), direction = data(xp, net), random_direction(net)
    expected, nudging = loss_slope(net, x, y, STEPS_TO_REST, direction), Nudging.four_point(1e-3)
    backward = bptt.bptt_gradient(net, x, y, Phases(STEPS_TO_REST, STEPS_TO_REST))
    assert backward.free.residual < 1e-14
    assert dot(backward.gradient, direction) == pytest.approx(expected, rel=1e-11)
    assert dot(rbp_gradient(net, x, y, PHASES).gradient, direction) == pytest.approx(expected, rel=1e-11)
    deviations, states = (eqprop.eqprop_gradient(net, x, y, Phases(PHASES.free, PHASES.nudged, form), nudging=nudging)
                          for form in (True, False))
    assert all(same_switches(phase.switches, states.free.switches) for phase in states.nudged)
    assert dot(deviations.gradient, direction) == pytest.approx(expected, rel=1e-9)
    lost = 10 * max(net.weights)  # of the digits of a difference of states: layer n answers w_n times less than the last
    assert dot(states.gradient, direction) == pytest.approx(expected, rel=1e-10 * lost)
    for name, exact in backward.gradient.items():
        assert abs(to_host(exact)).max() > 1e-5 and relative(deviations.gradient[name], exact) < 1e-9, name
        assert relative(states.gradient[name], exact) < 1e-9 * lost, name


@both_forms
@weak_gains
@pytest.mark.parametrize("nudging,order", [
    (Nudging.one_sided, 1), (Nudging.symmetric, 2), (Nudging.four_point, 4),
    (lambda b: Nudging.holomorphic(b, 3), 3), (lambda b: Nudging.holomorphic(b, 4), 4),
    (lambda b: Nudging.holomorphic(b, 6), 6), (lambda b: Nudging.holomorphic(b, 2, shifted=True), 2),
    (lambda b: Nudging.from_points((-b, b / 2, b)), 2),
], ids=["one-sided", "symmetric", "four-point", "holomorphic-3", "holomorphic-4", "holomorphic-6", "shifted-2", "from-points"])
def test_the_bias_falls_with_the_order_of_the_nudging(xp, nudging, order, gain, deviations):
    """The error of the estimate falls as beta^order at every gain (convolutional, average pooling, sigmoid)."""
    net = network(xp, "average", "sigmoid", feedback=gain)
    x, y = data(xp, net)
    exact, betas = rbp_gradient(net, x, y, PHASES).gradient, (0.2, 0.1) if order > 2 else (2e-2, 1e-2)
    phases = Phases(PHASES.free, PHASES.nudged, deviations)
    errors = [relative(eqprop.eqprop_gradient(net, x, y, phases, nudging=nudging(b)).gradient, exact) for b in betas]
    assert errors[1] < 0.05 and fitted_slope(errors, betas) == pytest.approx(order, abs=0.15)


@both_forms
@every_cost
@few_networks
@weak_gains
def test_every_increment_is_bptts(xp, kind, activation, cost, gain, deviations):
    """GDU: g_t of EP = g_t of BPTT, and mu_t = - sum_k c_k w_n (s_{t+1} - s_t), with the factor w_n, to O(beta^2)."""
    net = network(xp, kind, activation, cost, feedback=gain)
    x, y = data(xp, net)
    free = relax(net, x, 2 * STEPS_TO_REST, start=random_states(xp, net))
    assert free.residual < 1e-14
    backward, betas, errors = of_backward(net, x, y, free), (1e-3, 5e-4), []
    for beta in betas:
        forward = increments(net, x, y, free, Nudging.symmetric(beta), deviations)
        errors.append([relative(ours, bptts) for ours, bptts in zip(zip(*forward), zip(*backward))])
    # a difference of states has lost as many digits as its layer's response is smaller than the nudge: a factor w_n and more
    round_off = 1e-10 if deviations else 1e-9 * max(net.weights)
    assert np.max(errors[-1]) < 5e-6 and all(falls_as(2, pair, betas, round_off) for pair in zip(*errors))
    one_sided = increments(net, x, y, free, Nudging.one_sided(1e-4), deviations)
    assert all(relative(ours, bptts) < 1e-3 for ours, bptts in zip(zip(*one_sided), zip(*backward)))


@pytest.mark.parametrize("kind,activation,cost", [
    ("dense", "tanh", "squared-error"), ("average", "sigmoid", "cross-entropy"), ("max", "hard-sigmoid", "squared-error")])
@weak_gains
def test_asymmetric_ep_is_the_gradient_of_the_loss(xp, kind, activation, cost, gain):
    """Feedback at 90 degrees: the response through D^T is exact at any gain, the plain one is not; increments are BPTT's."""
    net = asymmetric(network(xp, kind, activation, cost, feedback=gain))
    (x, y), direction = data(xp, net), random_direction(net)
    assert net.feedback == gain
    expected, nudging = loss_slope(net, x, y, STEPS_TO_REST, direction), Nudging.four_point(1e-3)
    backward = bptt.bptt_gradient(net, x, y, Phases(STEPS_TO_REST, STEPS_TO_REST)).gradient
    exact, own = (eqprop.eqprop_gradient(net, x, y, PHASES, nudging=nudging, transposed=transposed).gradient
                  for transposed in (True, False))
    for gradient in (exact, backward, rbp_gradient(net, x, y, PHASES).gradient):
        assert dot(gradient, direction) == pytest.approx(expected, rel=1e-9)
    inside = [name for name in backward if "readout" not in name]
    assert relative(exact, backward) < 1e-9 and relative([own[k] for k in inside], [backward[k] for k in inside]) > 1e-2
    free = relax(net, x, 2 * STEPS_TO_REST, start=random_states(xp, net))
    ours, bptts = (zip(*increments) for increments in (
        eqprop.eqprop_increments(net, x, y, free.states, 6, nudging=nudging),
        bptt.bptt_increments(net, x, y, free.states, 6)))
    assert all(relative(a, b) < 1e-8 for a, b in zip(ours, bptts))


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("angle", [None, 90.0], ids=["symmetric", "asymmetric"])
def test_a_skip_connection(xp, angle, gain):
    """EP, BPTT and RBP in the triangle = the derivative of its loss, under every schedule; increments are BPTT's."""
    net = triangle(xp, gain)
    if angle is None:
        check_derivatives(xp, net)
    else:
        net = asymmetric(net, angle)
    (x, y), direction, nudging = data(xp, net), random_direction(net), Nudging.four_point(1e-3)
    expected, limit = loss_slope(net, x, y, 120, direction), Phases(120, 120)
    assert abs(expected) > 1e-3
    gradients = [bptt.bptt_gradient(net, x, y, limit), rbp_gradient(net, x, y, limit)]
    for free, nudged in (("synchronous", "synchronous"), ("checkerboard", "checkerboard"), ("up", "down")):
        phases = Phases(Phase(120, free), Phase(120, nudged))
        gradients += [eqprop.eqprop_gradient(net, x, y, phases, nudging=nudging), rbp_gradient(net, x, y, phases)]
    for found in gradients:
        assert found.free.residual < 1e-14 and dot(found.gradient, direction) == pytest.approx(expected, rel=1e-9)
    states = relax(net, x, 200).states
    ours = eqprop.eqprop_increments(net, x, y, states, 6, nudging=nudging)
    backward = bptt.bptt_increments(net, x, y, states, 6)
    assert all(relative(a, b) < 1e-8 for a, b in zip(zip(*ours), zip(*backward)))


# --- the limit of no feedback -----------------------------------------------------------------------------------------


def backpropagation(net, x, y):
    """dL/dtheta of the feed-forward network with these weights (batch mean), by hand: no relaxation, no feedback."""
    layers, slopes, switches = [x], [], []
    for synapse in net.synapses:
        u, sw = synapse.drive_post(layers[-1])
        layers, slopes, switches = [*layers, net.activation.sigma(u)], [*slopes, net.activation.dsigma(u)], [*switches, sw]
    gradient, back = net.readout_gradient(layers[1:], y), -net.cost.force(layers[-1], y)
    for n in reversed(range(len(net.synapses))):
        error = slopes[n] * back
        gradient |= {f"{n + 1}.{name}": g for name, g in net.synapses[n].hebbian(layers[n], error, switches[n]).items()}
        back = net.synapses[n].drive_pre(error, switches[n])
    return {name: g / len(x) for name, g in gradient.items()}


def cosine(a, b):
    a, b = flat(a).astype(float), flat(b).astype(float)
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def test_backpropagation_by_hand(xp):
    """The reference itself, for one dense network in four lines of NumPy."""
    net = mlp([6, 5, 3], ACTIVATIONS["tanh"], SquaredError, dtype="float64").to(xp)
    x, y = data(xp, net)
    (W1, b1), (W2, b2) = ((synapse.W, synapse.b) for synapse in net.synapses)
    h = xp.tanh(x @ W1 + b1)
    s = xp.tanh(h @ W2 + b2)
    error = (s - y) * (1 - s * s)
    below = error @ W2.T * (1 - h * h)
    expected = {"1.W": x.T @ below / 3, "1.b": below.mean(0), "2.W": h.T @ error / 3, "2.b": error.mean(0)}
    assert relative(backpropagation(net, x, y), expected) < 1e-14


@every_cost
@every_network
def test_weak_feedback_is_backpropagation(xp, kind, activation, cost):
    """At gamma = 1e-4 every parameter's gradient points where feed-forward backpropagation points; at 0 it is the same
    numbers, after one sweep up and one down, with a nudge of 1e-6 (and by BPTT, and whatever the number of steps)."""
    net = network(xp, kind, activation, cost, feedback=1e-4, scale=1.5)
    x, y = data(xp, net)
    exact, nudging = backpropagation(net, x, y), Nudging.symmetric(1e-6)
    up_down, longer = Phases(Phase(2, "up"), Phase(2, "down")), Phases(8, 8)
    weak = eqprop.eqprop_gradient(net, x, y, up_down, nudging=nudging).gradient
    assert all(cosine(weak[name], g) > 0.9999 for name, g in exact.items())
    net.feedback = 0.0
    for phases in (Phases(Phase(1, "up"), Phase(1, "down")), longer):
        none = eqprop.eqprop_gradient(net, x, y, phases, nudging=nudging).gradient
        assert all(relative(none[name], g) < 1e-9 for name, g in exact.items())
    backward = bptt.bptt_gradient(net, x, y, longer).gradient
    assert all(relative(backward[name], g) < 1e-12 for name, g in exact.items())


def test_what_makes_no_sense_without_feedback_is_refused():
    """Phi, E, and a difference of states that do not differ: one sentence each."""
    net = network(np, feedback=0.0)
    (x, y), states = data(np, net), random_states(np, net)
    for f in (net.phi, net.energy):
        with pytest.raises(EPError, match="no Phi and no energy: nothing comes down"):
            f(x, states)
    with pytest.raises(EPError, match="use deviations, or a gain above 0"):
        eqprop.eqprop_gradient(net, x, y, Phases(3, 3, deviations=False), nudging=Nudging.symmetric(0.1))
    with pytest.raises(EPError, match="use deviations, or a gain above 0"):
        eqprop.eqprop_increments(net, x, y, states, 3, nudging=Nudging.symmetric(0.1), deviations=False)


@pytest.mark.parametrize("gain", [0.3, 1e-3, 0.0])
def test_a_layer_deeper_than_the_last(xp, gain):
    """A dead end 1 -> 2 -> 3 beside the way to the last layer, 1 -> 4: its weight is below 1, and 0 without feedback."""
    def dense(pre, post, seed):
        return Dense(0.4 * normal(xp, (pre, post), seed), normal(xp, (post,), seed + 1), (pre,))
    net = Network([dense(6, 5, 1), dense(5, 4, 3), dense(4, 4, 5), dense(5, 3, 7)], SIGMOID, SquaredError(),
                  wiring=[(0, 1), (1, 2), (2, 3), (1, 4)], feedback=gain)
    (x, y), direction = data(xp, net), random_direction(net)
    assert net.depths == [0, 1, 2, 3, 2] and net.weights == pytest.approx([1 / gain if gain else np.inf, 1.0, gain, 1.0])
    found = eqprop.eqprop_gradient(net, x, y, Phases(120, 120), nudging=Nudging.four_point(1e-3)).gradient
    assert dot(found, direction) == pytest.approx(loss_slope(net, x, y, 120, direction), rel=1e-9)


# --- builders, files, errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [-0.1, float("nan"), float("inf"), "1", None, 1j])
def test_gains_that_make_no_sense_are_refused(gain):
    """By the network, by both builders, and when it is changed later: in one sentence, and the old one stays."""
    net = network(np, feedback=0.5)
    for build in (lambda: setattr(net, "feedback", gain), lambda: mlp([4, 3, 2], feedback=gain),
                  lambda: convnet([2], (6, 6, 1), feedback=gain)):
        with pytest.raises(EPError, match="feedback gain"):
            build()
    assert net.feedback == 0.5


@every_cost
@pytest.mark.parametrize("kind", ["dense", "max"])
def test_a_file_carries_the_gain_and_what_it_is_about(tmp_path, kind, cost):
    """feedback (as it is when saved, not as it was built) and `about`; asymmetric copies carry both."""
    net = network(np, kind, "sigmoid", cost, feedback=0.3)
    net.feedback, net.about = 0.02, {"classes": ["cat", "dog", "ship"], "mean": [0.5, 0.25]}
    for one in (net, asymmetric(net)):
        one.save(tmp_path / "net.npz")
        again = load(tmp_path / "net.npz")
        assert again.feedback == 0.02 and again.about == net.about
        x, _ = data(np, net)
        assert relative(relax(again, x, 5).states, relax(one, x, 5).states) == 0
    net.about = None
    net.save(tmp_path / "net.npz")
    assert load(tmp_path / "net.npz").about is None


def test_a_file_from_before_the_gain_loads_with_1(tmp_path):
    """Its recipe has no feedback; one with a gain that makes no sense is a damaged file."""
    path, net = tmp_path / "net.npz", network(np, feedback=0.3)
    net.save(path)
    arrays = read_npz(path)
    recipe = json.loads(str(arrays["recipe"]))
    assert recipe.pop("feedback") == 0.3
    np.savez(path, **{**arrays, "recipe": np.array(json.dumps(recipe))})
    again = load(path)
    assert again.feedback == 1.0 and again.about is None and relative(again.parameters(), net.parameters()) == 0
    np.savez(path, **{**arrays, "recipe": np.array(json.dumps({**recipe, "feedback": -1}))})
    with pytest.raises(EPError):
        load(path)


@every_cost
def test_builders_take_the_gain(cost):
    """mlp and convnet; 1, the paper's, without."""
    for build in (lambda **o: mlp([4, 3, 3, 2], cost=COSTS[cost], **o),
                  lambda **o: convnet([2, 3], (8, 8, 1), cost=COSTS[cost], **o)):
        assert build().feedback == 1.0 and build(feedback=0.02).feedback == 0.02
        assert relative(build().parameters(), build(feedback=0.02).parameters()) == 0
