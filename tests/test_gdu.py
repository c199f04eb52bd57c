"""The GDU theorem: each step of a nudged phase makes the update that BPTT makes at the same distance from the end.

Preconditions, asserted in `at_a_fixed_point` and `increments`: the free phase (from a random state) has converged, and no
switch and no clipping changes between s* and the nudged states; and, so that nothing passes vacuously, no gradient is 0.
"""

import numpy as np
import pytest
from helpers import COST_NAMES, NETWORKS, T, data, fitted_slope, flat, insides, network, random_states, relative, same_switches

from ep import bptt, dynamics, eqprop
from ep.dynamics import Phases
from ep.nudging import Nudging

STEPS = 10
every_network = pytest.mark.parametrize("kind,activation", NETWORKS)
every_cost = pytest.mark.parametrize("cost", COST_NAMES)
both_forms = pytest.mark.parametrize("deviations", [True, False], ids=["deviations", "two states"])


def at_a_fixed_point(xp, kind, activation, cost, **options):
    """(network, x, y, `Relaxation` of the free phase) with s* relaxed from a random state."""
    net = network(xp, kind, activation, cost, **options)
    x, y = data(xp, net)
    free = dynamics.relax(net, x, 2 * T, start=random_states(xp, net))
    assert free.residual < 1e-14
    return net, x, y, free


def increments(net, x, y, free, nudging, deviations=True):
    """EP's increments; asserts that the nudged phases stay where the theorem holds."""
    for beta in nudging.points:
        states = free.states
        for _ in range(STEPS):
            phase = dynamics.relax(net, x, 1, y, beta, start=states)
            states = phase.states
            if not net.holomorphic:
                assert same_switches(phase.switches, free.switches)
                assert all(np.array_equal(a, b) for a, b in zip(insides(net, states), insides(net, free.states)))
    return eqprop.eqprop_increments(net, x, y, free.states, STEPS, nudging=nudging, deviations=deviations)


def of_backward(net, x, y, free):
    """BPTT's increments; asserts that every parameter has some, and that most layers move at most steps."""
    backward = bptt.bptt_increments(net, x, y, free.states, STEPS)
    sizes = {name: max(abs(flat(g[name])).max() for g, _ in backward) for name in backward[0][0]}
    assert sizes.keys() == {name for name in net.parameters() if "readout" not in name}
    assert min(sizes.values()) > 1e-5, sizes
    moving = [flat(m).any() for _, mu in backward for m in mu]  # in a chain, every second layer rests at every second step
    assert sum(moving) >= 0.3 * len(moving)
    return backward


@both_forms
@every_cost
@every_network
def test_every_increment_is_bptts(xp, kind, activation, cost, deviations):
    """g_t of EP = g_t of BPTT, and - sum_k c_k (s_{t+1} - s_t) = mu_t, with an error that falls as beta^2."""
    net, x, y, free = at_a_fixed_point(xp, kind, activation, cost)
    backward, betas = of_backward(net, x, y, free), (1e-3, 5e-4)
    errors = []
    for beta in betas:
        forward = increments(net, x, y, free, Nudging.symmetric(beta), deviations)
        errors.append([relative(ours, bptts) for ours, bptts in zip(zip(*forward), zip(*backward))])
    assert np.max(errors[-1]) < 5e-6
    assert all(falls_as(2, pair, betas) for pair in zip(*errors))


def falls_as(order, errors, betas, round_off=1e-10):
    """Whether the errors fall as beta^order, or are at round-off (1e-16 / beta) already."""
    return np.max(errors) < round_off or abs(fitted_slope(errors, betas) - order) < 0.1


@both_forms
@every_network
def test_one_sided_increments_are_bptts_to_first_order(xp, kind, activation, deviations):
    """One-sided nudging: the same theorem with an error that falls as beta only."""
    net, x, y, free = at_a_fixed_point(xp, kind, activation, "cross-entropy")
    backward, betas = [g for g, _ in of_backward(net, x, y, free)], (1e-3, 5e-4)
    errors = [relative([g for g, _ in increments(net, x, y, free, Nudging.one_sided(b), deviations)], backward)
              for b in betas]
    assert errors[-1] < 1e-2 and falls_as(1, errors, betas)


@both_forms
@every_cost
@pytest.mark.parametrize("kind", ["dense", "average"])
def test_complex_increments_are_bptts(xp, kind, cost, deviations):
    """Holomorphic nudging with 6 phases: equal to 1e-10 (round-off), and real."""
    net, x, y, free = at_a_fixed_point(xp, kind, "sigmoid", cost)
    forward = increments(net, x, y, free, Nudging.holomorphic(5e-3, 6), deviations)
    backward = of_backward(net, x, y, free)
    for ours, bptts in zip(zip(*forward), zip(*backward)):  # g_t, then mu_t
        assert relative(ours, bptts) < 1e-10
        assert flat(ours).dtype == "float64"


@both_forms
@every_cost
@pytest.mark.parametrize("kind,activation", [("dense", "tanh"), ("average", "sigmoid"), ("max", "hard-sigmoid")])
def test_increments_sum_to_the_gradients(xp, kind, activation, cost, deviations):
    """K increments of BPTT sum to the K-step truncated BPTT gradient; K increments of EP to the estimate after K steps."""
    net = network(xp, kind, activation, cost)
    x, y = data(xp, net)
    nudging, states = Nudging.symmetric(1e-2), dynamics.relax(net, x, T).states
    sums = {
        "bptt": (bptt.bptt_gradient(net, x, y, Phases(T, STEPS)), bptt.bptt_increments(net, x, y, states, STEPS)),
        "eqprop": (eqprop.eqprop_gradient(net, x, y, Phases(T, STEPS, deviations), nudging=nudging),
                   eqprop.eqprop_increments(net, x, y, states, STEPS, nudging=nudging, deviations=deviations))}
    for whole, parts in sums.values():
        total = {name: sum(g[name] for g, _ in parts) for name in parts[0][0]}
        assert relative(total, {name: whole.gradient[name] for name in total}) < 1e-11


def test_frozen_increments(xp):
    """With deviations, at the switches of s*, the theorem holds also at a nudging that would move the live ones."""
    net = network(xp, "max", "sigmoid", "squared-error", scale=2.0, seed=2)
    x, y = data(xp, net)
    free, nudging = dynamics.relax(net, x, 4 * T), Nudging.symmetric(0.05)
    backward = [g for g, _ in bptt.bptt_increments(net, x, y, free.states, 2 * STEPS)]
    frozen, live = (relative([g for g, _ in eqprop.eqprop_increments(
        net, x, y, free.states, 2 * STEPS, nudging=nudging, deviations=frozen)], backward) for frozen in (True, False))
    assert free.residual < 1e-14 and frozen < 0.02 and live > 1
