"""The theorem: EP estimates the gradient of the loss at the free fixed point, with the bias its nudging promises."""

import numpy as np
import pytest
from helpers import (
    COST_NAMES,
    NETWORKS,
    K,
    T,
    data,
    dot,
    fitted_slope,
    insides,
    loss,
    loss_slope,
    network,
    random_direction,
    relative,
    same_switches,
)

from ep import bptt, eqprop
from ep.backend import to_host
from ep.errors import EPError
from ep.nudging import Nudging


def estimate(net, x, y, nudging, **options):
    """EP between converged phases: then only the bias of the nudging is left."""
    result = eqprop.eqprop_gradient(net, x, y, T, K, nudging=nudging, **options)
    assert all(phase.residual < 1e-14 for phase in (result.free, *result.nudged))
    return result


@pytest.mark.parametrize("cost", COST_NAMES)
@pytest.mark.parametrize("kind,activation", NETWORKS)
def test_eqprop_and_bptt_give_the_gradient_of_the_loss(xp, kind, activation, cost):
    """EP's and BPTT's gradients along a random direction = the derivative of C(s*, y); no parameter's is 0."""
    net = network(xp, kind, activation, cost)
    x, y = data(xp, net)
    direction = random_direction(net)
    expected = loss_slope(net, x, y, T, direction)
    ep, backward = estimate(net, x, y, Nudging.four_point(1e-3)), bptt.bptt_gradient(net, x, y, T, T)
    for phase in ep.nudged:  # else the theorem does not apply
        assert same_switches(phase.switches, ep.free.switches)
        assert all(np.array_equal(a, b) for a, b in zip(insides(net, phase.states), insides(net, ep.free.states)))
    assert all(abs(to_host(g)).max() > 1e-5 for g in backward.gradient.values())
    assert dot(backward.gradient, direction) == pytest.approx(expected, rel=1e-11)
    assert dot(ep.gradient, direction) == pytest.approx(expected, rel=1e-9)  # bias 1e-12, round-off 1e-15 / 1e-3
    assert ep.loss == pytest.approx(loss(net, x, y, T), rel=1e-12) == backward.loss


@pytest.mark.parametrize("cost", COST_NAMES)
@pytest.mark.parametrize("nudging,order", [
    (Nudging.one_sided, 1), (Nudging.symmetric, 2), (Nudging.four_point, 4),
    (lambda b: Nudging.holomorphic(b, 3), 3), (lambda b: Nudging.holomorphic(b, 4), 4),
    (lambda b: Nudging.holomorphic(b, 6), 6), (lambda b: Nudging.holomorphic(b, 2, shifted=True), 2),
], ids=["one-sided", "symmetric", "four-point", "holomorphic-3", "holomorphic-4", "holomorphic-6", "shifted-2"])
def test_the_bias_falls_with_the_order_of_the_nudging(xp, nudging, order, cost):
    """The error of the estimate falls as beta^order (convolutional, average pooling, sigmoid)."""
    net = network(xp, "average", "sigmoid", cost)
    x, y = data(xp, net)
    exact, betas = bptt.bptt_gradient(net, x, y, T, T).gradient, (0.1, 0.05) if order > 2 else (2e-2, 1e-2)
    errors = [relative(estimate(net, x, y, nudging(b)).gradient, exact) for b in betas]
    assert errors[1] < 0.05
    assert fitted_slope(errors, betas) == pytest.approx(order, abs=0.15)


def test_complex_nudging_gives_a_real_gradient(xp):
    """Holomorphic EP with 6 phases at beta = 0.02 is the exact gradient, in float64 (not complex) arrays."""
    net = network(xp, "average", "tanh")
    x, y = data(xp, net)
    gradient = estimate(net, x, y, Nudging.holomorphic(0.02, 6)).gradient
    assert {str(g.dtype) for g in gradient.values()} == {"float64"}
    assert relative(gradient, bptt.bptt_gradient(net, x, y, T, T).gradient) < 1e-11


def test_complex_nudging_of_a_clipped_network_is_refused():
    """The refusal of a network that is not holomorphic reaches the user of eqprop_gradient."""
    net = network(np, "max", "sigmoid")
    x, y = data(np, net)
    with pytest.raises(EPError, match="holomorphic network"):
        eqprop.eqprop_gradient(net, x, y, 5, 5, nudging=Nudging.holomorphic(0.1, 4))


def test_one_sided_nudging_reuses_a_free_phase_that_has_settled(xp):
    """Then the point beta = 0 costs nothing: its phase is the free phase itself."""
    net = network(xp)
    result = eqprop.eqprop_gradient(net, *data(xp, net), 99, 5, nudging=Nudging.one_sided(0.1), tolerance=1e-9)
    assert result.free.converged and result.nudged[0] is result.free and result.nudged[1].steps == 5


def test_what_has_not_settled_cancels(xp):
    """After T = 2 steps the states still move. One-sided and symmetric estimates tend to the same limit all the same, and are
    the sums of their increments from there. Were the phase at beta = 0 left at s_T, (s_{T+K} - s_T)/beta would swamp it."""
    net = network(xp)
    x, y = data(xp, net)
    one, two = (eqprop.eqprop_gradient(net, x, y, 2, 3, nudging=n) for n in (Nudging.one_sided(1e-3), Nudging.symmetric(1e-3)))
    assert one.free.residual > 1e-2
    assert relative(one.gradient, two.gradient) < 1e-2
    steps = eqprop.eqprop_increments(net, x, y, one.free.states, 3, nudging=Nudging.one_sided(1e-3))
    assert relative({name: sum(g[name] for g, _ in steps) for name in steps[0][0]},
                    {name: one.gradient[name] for name in steps[0][0]}) < 1e-9


def test_the_mean_over_random_signs_is_the_symmetric_estimate(xp):
    """(g(+beta) + g(-beta)) / 2 = symmetric, and random_sign draws both signs."""
    net = network(xp, "max", "hard-sigmoid")
    x, y = data(xp, net)
    rng = np.random.default_rng(0)
    signed = {n.points[1]: n for n in (Nudging.random_sign(0.3, rng) for _ in range(50))}
    assert sorted(signed) == [-0.3, 0.3]
    plus, minus, both = (estimate(net, x, y, n).gradient for n in (signed[0.3], signed[-0.3], Nudging.symmetric(0.3)))
    assert relative({name: 0.5 * (plus[name] + minus[name]) for name in plus}, both) < 1e-13
    assert relative(plus, both) > 1e-3  # alone, one sign is something else


@pytest.mark.parametrize("algorithm", ["eqprop", "bptt"])
def test_the_gradient_is_a_batch_mean(xp, algorithm):
    """The gradient of a batch = the mean over its examples; loss and number of right predictions likewise."""
    net = network(xp, "max", "sigmoid", "squared-error")
    x, y = data(xp, net)

    def gradient(x, y):
        if algorithm == "bptt":
            return bptt.bptt_gradient(net, x, y, 30, 10)
        return eqprop.eqprop_gradient(net, x, y, 30, 10, nudging=Nudging.symmetric(0.1))

    batch, singles = gradient(x, y), [gradient(x[n:n + 1], y[n:n + 1]) for n in range(3)]
    assert relative({k: sum(s.gradient[k] for s in singles) / 3 for k in batch.gradient}, batch.gradient) < 1e-12
    assert batch.loss == pytest.approx(sum(s.loss for s in singles) / 3, rel=1e-13)
    assert batch.correct == sum(s.correct for s in singles)


def test_integer_labels_are_one_hot_targets(xp):
    """y may be (N,) integers or (N, classes) numbers."""
    net = network(xp)
    x, y = data(xp, net)
    nudging = Nudging.symmetric(0.1)
    one, other = (eqprop.eqprop_gradient(net, x, t, 10, 5, nudging=nudging) for t in (y, y.argmax(1)))
    assert relative(one.gradient, other.gradient) == 0


def test_frozen_switches(xp):
    """Where nudging moves the live switches, the switches of s* keep the bias at O(beta^2): 1% instead of 700%."""
    net = network(xp, "max", "sigmoid", "squared-error", scale=2.0, seed=2)
    x, y = data(xp, net)
    exact = bptt.bptt_gradient(net, x, y, 4 * T, 4 * T).gradient
    errors = {}
    for freeze, beta in ((True, 0.05), (True, 0.1), (False, 0.05)):
        result = eqprop.eqprop_gradient(net, x, y, 4 * T, 4 * T, nudging=Nudging.symmetric(beta), freeze_switches=freeze)
        assert all(same_switches(phase.switches, result.free.switches) for phase in result.nudged) == freeze
        errors[freeze, beta] = relative(result.gradient, exact)
    assert fitted_slope([errors[True, 0.1], errors[True, 0.05]], [0.1, 0.05]) == pytest.approx(2, abs=0.1)
    assert errors[True, 0.05] < 0.02 and errors[False, 0.05] > 1


@pytest.mark.parametrize("kind", ["dense", "average"])
def test_both_schedules_give_the_same_gradient(xp, kind):
    """At converged fixed points the schedule does not matter; a tolerance stops the free phase early."""
    net = network(xp, kind)
    x, y = data(xp, net)
    one = estimate(net, x, y, Nudging.symmetric(0.1))
    other = estimate(net, x, y, Nudging.symmetric(0.1), schedule="checkerboard", tolerance=1e-15)
    assert other.free.steps < T
    assert relative(other.gradient, one.gradient) < 1e-11


def test_the_relax_argument_is_used(xp):
    """`relax` replaces the plain one in every phase: this is where a fast path plugs in."""
    from ep.dynamics import relax
    calls, net = [], network(xp)

    def counting(*args, **options):
        calls.append(args[3:4])
        return relax(*args, **options)

    eqprop.eqprop_gradient(net, *data(xp, net), 10, 5, nudging=Nudging.four_point(0.1), relax=counting)
    assert calls == [(), (-0.1,), (-0.05,), (0.05,), (0.1,)]
