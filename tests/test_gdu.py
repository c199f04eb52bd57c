"""The GDU theorem: each step of a nudged phase makes the update that BPTT makes at the same distance from the end.

Preconditions, asserted in `at_a_fixed_point` and `increments`: the free phase (from a random state) has converged, and no
switch and no clipping changes between s* and the nudged states; and, so that nothing passes vacuously, no gradient is 0.
"""

import numpy as np
import pytest
from helpers import COST_NAMES, NETWORKS, T, data, fitted_slope, flat, insides, network, random_states, relative, same_switches

from ep import bptt, dynamics, eqprop
from ep.nudging import Nudging

STEPS = 10
every_network = pytest.mark.parametrize("kind,activation", NETWORKS)
every_cost = pytest.mark.parametrize("cost", COST_NAMES)


def at_a_fixed_point(xp, kind, activation, cost):
    """(network, x, y, states s*) with s* relaxed from a random state."""
    net = network(xp, kind, activation, cost)
    x, y = data(xp, net)
    free = dynamics.relax(net, x, steps=2 * T, start=random_states(xp, net))
    assert free.residual < 1e-14
    return net, x, y, free


def increments(net, x, y, free, nudging):
    """EP's increments; asserts that the nudged phases stay where the theorem holds."""
    for beta in nudging.points:
        states = free.states
        for _ in range(STEPS):
            phase = dynamics.relax(net, x, y, beta, steps=1, start=states)
            states = phase.states
            if not net.holomorphic:
                assert same_switches(phase.switches, free.switches)
                assert all(np.array_equal(a, b) for a, b in zip(insides(net, states), insides(net, free.states)))
    return eqprop.eqprop_increments(net, x, y, free.states, STEPS, nudging=nudging)


def of_backward(net, x, y, free):
    """BPTT's increments; asserts that every parameter has some, and that most layers move at most steps."""
    backward = bptt.bptt_increments(net, x, y, free.states, STEPS)
    sizes = {name: max(abs(flat(g[name])).max() for g, _ in backward) for name in backward[0][0]}
    assert sizes.keys() == {name for name in net.parameters() if "readout" not in name}
    assert min(sizes.values()) > 1e-5, sizes
    moving = [flat(m).any() for _, mu in backward for m in mu]  # in a chain, every second layer rests at every second step
    assert sum(moving) >= 0.3 * len(moving)
    return backward


@every_cost
@every_network
def test_every_increment_is_bptts(xp, kind, activation, cost):
    """g_t of EP = g_t of BPTT, and sum_k c_k (s_{t+1} - s_t) = -mu_t, with an error that falls as beta^2."""
    net, x, y, free = at_a_fixed_point(xp, kind, activation, cost)
    backward, betas = of_backward(net, x, y, free), (1e-3, 5e-4)
    mu = [[-m for m in mu] for _, mu in backward]
    errors = []
    for beta in betas:
        forward = increments(net, x, y, free, Nudging.symmetric(beta))
        errors.append((relative([g for g, _ in forward], [g for g, _ in backward]), relative([ds for _, ds in forward], mu)))
    assert np.max(errors[-1]) < 5e-6
    assert all(falls_as(2, pair, betas) for pair in zip(*errors))


def falls_as(order, errors, betas):
    """Whether the errors fall as beta^order, or are at round-off (1e-16 / beta) already."""
    return np.max(errors) < 1e-10 or abs(fitted_slope(errors, betas) - order) < 0.1


@every_network
def test_one_sided_increments_are_bptts_to_first_order(xp, kind, activation):
    """One-sided nudging: the same theorem with an error that falls as beta only."""
    net, x, y, free = at_a_fixed_point(xp, kind, activation, "cross-entropy")
    backward, betas = [g for g, _ in of_backward(net, x, y, free)], (1e-3, 5e-4)
    errors = [relative([g for g, _ in increments(net, x, y, free, Nudging.one_sided(b))], backward) for b in betas]
    assert errors[-1] < 1e-2 and falls_as(1, errors, betas)


@every_cost
@pytest.mark.parametrize("kind", ["dense", "average"])
def test_complex_increments_are_bptts(xp, kind, cost):
    """Holomorphic nudging with 6 phases: equal to 1e-10 (round-off), and real."""
    net, x, y, free = at_a_fixed_point(xp, kind, "sigmoid", cost)
    forward = increments(net, x, y, free, Nudging.holomorphic(5e-3, 6))
    backward = of_backward(net, x, y, free)
    assert relative([g for g, _ in forward], [g for g, _ in backward]) < 1e-10
    assert relative([ds for _, ds in forward], [[-m for m in mu] for _, mu in backward]) < 1e-10


@every_cost
@pytest.mark.parametrize("kind,activation", [("dense", "tanh"), ("average", "sigmoid"), ("max", "hard-sigmoid")])
def test_increments_sum_to_the_gradients(xp, kind, activation, cost):
    """K increments of BPTT sum to the K-step truncated BPTT gradient; K increments of EP to the estimate after K steps."""
    net = network(xp, kind, activation, cost)
    x, y = data(xp, net)
    nudging, states = Nudging.symmetric(1e-2), dynamics.relax(net, x, steps=T).states
    sums = {
        "bptt": (bptt.bptt_gradient(net, x, y, T, STEPS), bptt.bptt_increments(net, x, y, states, STEPS)),
        "eqprop": (eqprop.eqprop_gradient(net, x, y, T, STEPS, nudging=nudging),
                   eqprop.eqprop_increments(net, x, y, states, STEPS, nudging=nudging))}
    for whole, parts in sums.values():
        total = {name: sum(g[name] for g, _ in parts) for name in parts[0][0]}
        assert relative(total, {name: whole.gradient[name] for name in total}) < 1e-11


def test_frozen_increments(xp):
    """With frozen switches the theorem holds also at a nudging that would move the live ones."""
    net = network(xp, "max", "sigmoid", "squared-error", scale=2.0, seed=2)
    x, y = data(xp, net)
    free, nudging = dynamics.relax(net, x, steps=4 * T), Nudging.symmetric(0.05)
    backward = [g for g, _ in bptt.bptt_increments(net, x, y, free.states, 2 * STEPS)]
    frozen, live = (relative([g for g, _ in eqprop.eqprop_increments(
        net, x, y, free.states, 2 * STEPS, nudging=nudging, freeze_switches=freeze)], backward) for freeze in (True, False))
    assert free.residual < 1e-14 and frozen < 0.02 and live > 1
