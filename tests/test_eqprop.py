"""The theorem: EP estimates the gradient of the loss at the free fixed point, with the bias its nudging promises."""

import numpy as np
import pytest
from helpers import (
    CONVERGED,
    COST_NAMES,
    NETWORKS,
    TWO_STATES,
    T,
    data,
    dot,
    fitted_slope,
    insides,
    loss,
    loss_slope,
    network,
    nudged_states,
    random_direction,
    relative,
    same_switches,
)

from ep import bptt, eqprop
from ep.backend import to_host
from ep.dynamics import READABLE, Phase, Phases
from ep.errors import EPError
from ep.nudging import Nudging

both_forms = pytest.mark.parametrize("deviations", [True, False], ids=["deviations", "two states"])
LIMIT = Phases(T, T)  # for BPTT: all the way back to zero


def estimate(net, x, y, nudging, phases=CONVERGED):
    """EP between converged phases: then only the bias of the nudging is left."""
    result = eqprop.eqprop_gradient(net, x, y, phases, nudging=nudging)
    assert all(phase.residual < 1e-14 for phase in (result.free, *result.nudged))
    return result


@both_forms
@pytest.mark.parametrize("cost", COST_NAMES)
@pytest.mark.parametrize("kind,activation", NETWORKS)
def test_eqprop_and_bptt_give_the_gradient_of_the_loss(xp, kind, activation, cost, deviations):
    """EP's and BPTT's gradients along a random direction = the derivative of C(s*, y); no parameter's is 0."""
    net = network(xp, kind, activation, cost)
    x, y = data(xp, net)
    direction = random_direction(net)
    expected = loss_slope(net, x, y, T, direction)
    ep = estimate(net, x, y, Nudging.four_point(1e-3), CONVERGED if deviations else TWO_STATES)
    backward = bptt.bptt_gradient(net, x, y, LIMIT)
    for phase in ep.nudged:  # else the theorem does not apply
        states = nudged_states(net, ep.free, phase, deviations)
        assert same_switches(phase.switches, ep.free.switches)
        assert all(np.array_equal(a, b) for a, b in zip(insides(net, states), insides(net, ep.free.states)))
    assert all(abs(to_host(g)).max() > 1e-5 for g in backward.gradient.values())
    assert dot(backward.gradient, direction) == pytest.approx(expected, rel=1e-11)
    assert dot(ep.gradient, direction) == pytest.approx(expected, rel=1e-9)  # bias 1e-12, round-off 1e-15 / 1e-3
    assert ep.loss == pytest.approx(loss(net, x, y, T), rel=1e-12) == backward.loss


@both_forms
@pytest.mark.parametrize("cost", COST_NAMES)
@pytest.mark.parametrize("nudging,order", [
    (Nudging.one_sided, 1), (Nudging.symmetric, 2), (Nudging.four_point, 4),
    (lambda b: Nudging.holomorphic(b, 3), 3), (lambda b: Nudging.holomorphic(b, 4), 4),
    (lambda b: Nudging.holomorphic(b, 6), 6), (lambda b: Nudging.holomorphic(b, 2, shifted=True), 2),
], ids=["one-sided", "symmetric", "four-point", "holomorphic-3", "holomorphic-4", "holomorphic-6", "shifted-2"])
def test_the_bias_falls_with_the_order_of_the_nudging(xp, nudging, order, cost, deviations):
    """The error of the estimate falls as beta^order (convolutional, average pooling, sigmoid)."""
    net = network(xp, "average", "sigmoid", cost)
    x, y = data(xp, net)
    exact, betas = bptt.bptt_gradient(net, x, y, LIMIT).gradient, (0.1, 0.05) if order > 2 else (2e-2, 1e-2)
    phases = CONVERGED if deviations else TWO_STATES
    errors = [relative(estimate(net, x, y, nudging(b), phases).gradient, exact) for b in betas]
    assert errors[1] < 0.05
    assert fitted_slope(errors, betas) == pytest.approx(order, abs=0.15)


@both_forms
def test_complex_nudging_gives_a_real_gradient(xp, deviations):
    """Holomorphic EP with 6 phases at beta = 0.02 is the exact gradient, in float64 (not complex) arrays."""
    net = network(xp, "average", "tanh")
    x, y = data(xp, net)
    gradient = estimate(net, x, y, Nudging.holomorphic(0.02, 6), CONVERGED if deviations else TWO_STATES).gradient
    assert {str(g.dtype) for g in gradient.values()} == {"float64"}
    assert relative(gradient, bptt.bptt_gradient(net, x, y, LIMIT).gradient) < 1e-11


@both_forms
def test_complex_nudging_of_a_clipped_network_is_refused(deviations):
    """The refusal of a network that is not holomorphic reaches the user of eqprop_gradient."""
    net = network(np, "max", "sigmoid")
    x, y = data(np, net)
    with pytest.raises(EPError, match="holomorphic network"):
        eqprop.eqprop_gradient(net, x, y, Phases(5, 5, deviations), nudging=Nudging.holomorphic(0.1, 4))


def test_one_sided_nudging_reuses_a_free_phase_that_has_settled(xp):
    """Then the point beta = 0 costs nothing: its phase is the free phase itself. As a deviation it is 0, settled or not."""
    net = network(xp)
    for settled, free in ((True, Phase(99, tolerance=1e-9)), (False, 3)):
        two, one = (eqprop.eqprop_gradient(net, *data(xp, net), Phases(free, 5, deviations), nudging=Nudging.one_sided(0.1))
                    for deviations in (False, True))
        assert two.free.converged == settled and (two.nudged[0] is two.free) == settled and two.nudged[1].steps == 5
        assert [phase.steps for phase in one.nudged] == [5]


def test_what_has_not_settled_cancels(xp):
    """After T = 2 steps the states still move. One-sided and symmetric estimates tend to the same limit all the same, and are
    the sums of their increments from there. Were the phase at beta = 0 left at s_T, (s_{T+K} - s_T)/beta would swamp it."""
    net = network(xp)
    x, y = data(xp, net)
    one, two = (eqprop.eqprop_gradient(net, x, y, Phases(2, 3, deviations=False), nudging=n)
                for n in (Nudging.one_sided(1e-3), Nudging.symmetric(1e-3)))
    assert one.free.residual > 1e-2
    assert relative(one.gradient, two.gradient) < 1e-2
    steps = eqprop.eqprop_increments(net, x, y, one.free.states, 3, nudging=Nudging.one_sided(1e-3), deviations=False)
    assert relative({name: sum(g[name] for g, _ in steps) for name in steps[0][0]},
                    {name: one.gradient[name] for name in steps[0][0]}) < 1e-9


def test_the_drift_of_what_has_not_settled_is_not_in_a_deviation(xp):
    """After T = 2 steps one-sided and symmetric deviations tend to one limit as well, their difference as beta."""
    net = network(xp)
    x, y = data(xp, net)
    betas, apart = (1e-3, 1e-4), []
    for beta in betas:
        one, two = (eqprop.eqprop_gradient(net, x, y, Phases(2, 3), nudging=n) for n in (Nudging.one_sided(beta),
                                                                                         Nudging.symmetric(beta)))
        assert one.free.residual > 1e-2
        apart.append(relative(one.gradient, two.gradient))
    assert apart[0] < 1e-2 and fitted_slope(apart, betas) == pytest.approx(1, abs=0.05)


@both_forms
def test_the_mean_over_random_signs_is_the_symmetric_estimate(xp, deviations):
    """(g(+beta) + g(-beta)) / 2 = symmetric, and random_sign draws both signs."""
    net = network(xp, "max", "hard-sigmoid")
    x, y = data(xp, net)
    rng = np.random.default_rng(0)
    signed = {n.points[1]: n for n in (Nudging.random_sign(0.3, rng) for _ in range(50))}
    assert sorted(signed) == [-0.3, 0.3]
    phases = CONVERGED if deviations else TWO_STATES
    plus, minus, both = (estimate(net, x, y, n, phases).gradient for n in (signed[0.3], signed[-0.3], Nudging.symmetric(0.3)))
    assert relative({name: 0.5 * (plus[name] + minus[name]) for name in plus}, both) < 1e-13
    assert relative(plus, both) > 1e-3  # alone, one sign is something else


@pytest.mark.parametrize("algorithm", ["eqprop", "two states", "bptt"])
def test_the_gradient_is_a_batch_mean(xp, algorithm):
    """The gradient of a batch = the mean over its examples; loss and number of right predictions likewise."""
    net = network(xp, "max", "sigmoid", "squared-error")
    x, y = data(xp, net)

    def gradient(x, y):
        if algorithm == "bptt":
            return bptt.bptt_gradient(net, x, y, Phases(30, 10))
        phases = Phases(30, 10, deviations=algorithm == "eqprop")
        return eqprop.eqprop_gradient(net, x, y, phases, nudging=Nudging.symmetric(0.1))

    batch, singles = gradient(x, y), [gradient(x[n:n + 1], y[n:n + 1]) for n in range(3)]
    assert relative({k: sum(s.gradient[k] for s in singles) / 3 for k in batch.gradient}, batch.gradient) < 1e-12
    assert batch.loss == pytest.approx(sum(s.loss for s in singles) / 3, rel=1e-13)
    assert batch.correct == sum(s.correct for s in singles)


def test_integer_labels_are_one_hot_targets(xp):
    """y may be (N,) integers or (N, classes) numbers."""
    net = network(xp)
    x, y = data(xp, net)
    nudging = Nudging.symmetric(0.1)
    one, other = (eqprop.eqprop_gradient(net, x, t, Phases(10, 5), nudging=nudging) for t in (y, y.argmax(1)))
    assert relative(one.gradient, other.gradient) == 0


def test_frozen_switches(xp):
    """Where nudging moves the live switches, deviations at those of s* keep the bias at O(beta^2): 1% instead of 700%."""
    net = network(xp, "max", "sigmoid", "squared-error", scale=2.0, seed=2)
    x, y = data(xp, net)
    exact = bptt.bptt_gradient(net, x, y, Phases(4 * T, 4 * T)).gradient
    errors = {}
    for freeze, beta in ((True, 0.05), (True, 0.1), (False, 0.05)):
        phases = Phases(4 * T, 4 * T, deviations=freeze)
        result = eqprop.eqprop_gradient(net, x, y, phases, nudging=Nudging.symmetric(beta))
        assert all(same_switches(phase.switches, result.free.switches) for phase in result.nudged) == freeze
        errors[freeze, beta] = relative(result.gradient, exact)
    assert fitted_slope([errors[True, 0.1], errors[True, 0.05]], [0.1, 0.05]) == pytest.approx(2, abs=0.1)
    assert errors[True, 0.05] < 0.02 and errors[False, 0.05] > 1


@both_forms
@pytest.mark.parametrize("kind", ["dense", "average"])
@pytest.mark.parametrize("free,nudged", [("checkerboard", "checkerboard"), ("up", "down"), ("down", "up")])
def test_all_schedules_give_the_same_gradient(xp, kind, free, nudged, deviations):
    """At converged fixed points the schedules do not matter; a tolerance stops the free phase early."""
    net = network(xp, kind)
    x, y = data(xp, net)
    one = estimate(net, x, y, Nudging.symmetric(0.1), CONVERGED if deviations else TWO_STATES)
    other = estimate(net, x, y, Nudging.symmetric(0.1), Phases(Phase(T, free, 1e-15), Phase(T, nudged), deviations))
    assert other.free.steps < T
    assert relative(other.gradient, one.gradient) < 1e-11


@pytest.mark.parametrize("deviations,expected", [
    (True, ["relax", "response", "products"]), (False, ["relax", -0.1, -0.05, 0.05, 0.1])], ids=["deviations", "two states"])
def test_the_solver_is_used(xp, deviations, expected):
    """Its functions replace the plain ones in every phase: this is where a fast path plugs in."""
    calls, net = [], network(xp)

    def counting(name, function):
        def counted(*arguments, **options):
            calls.append(arguments[4] if name == "relax" and len(arguments) > 4 else name)
            return function(*arguments, **options)
        return counted

    solver = READABLE._replace(**{name: counting(name, function) for name, function in READABLE._asdict().items()})
    phases, nudging = Phases(10, 5, deviations), Nudging.four_point(0.1)
    found = eqprop.eqprop_gradient(net, *data(xp, net), phases, nudging=nudging, solver=solver)
    assert calls == expected
    assert relative(found.gradient, eqprop.eqprop_gradient(net, *data(xp, net), phases, nudging=nudging).gradient) == 0
