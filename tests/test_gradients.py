"""Every gradient of this package is the slope of the loss at the free fixed point, and a wrong rule is not.

For every case of cases.py: EP by deviations and by the difference of states, BPTT, recurrent backpropagation. The slope itself
is computed by the complex step through hundreds of free steps, and so shares nothing with the rules but the free phase.
"""

import functools
from dataclasses import replace

import numpy as np
import pytest
from cases import (
    ANGLE,
    CASES,
    CE,
    CHAINS,
    GAINS,
    KINDS,
    SE,
    TILTED,
    WITH_ENERGY,
    Case,
    backpropagation,
    cosine,
    dot,
    every,
    every_case,
    fitted_slope,
    loss,
    loss_slope,
    random_direction,
    random_states,
    same_switches,
    settled_slope,
    stays,
    where,
)
from helpers import flat, held, normal, relative

import ep
from ep import bptt
from ep.backend import to_host
from ep.bptt import bptt_gradient
from ep.builders import mlp
from ep.cost import SquaredError
from ep.dynamics import SCHEDULES, Phase, Phases, deviate, relax, response
from ep.eqprop import eqprop_gradient
from ep.errors import EPError
from ep.gdu import eqprop_increments
from ep.nudging import Nudging
from ep.rbp import rbp_gradient
from ep.vectorfield import asymmetric, kolen_pollack

both_forms = pytest.mark.parametrize("deviations", [True, False], ids=["deviations", "two states"])
FINE = Nudging.four_point(1e-3)  # bias 1e-12
TINY = Nudging.four_point(1e-5)  # moves no unit to or from a bound; deviations lose no digits by it


@functools.cache
def exact_gradient(xp, case):
    """By recurrent backpropagation at the fixed point, which the first test below proves right. Asked for once."""
    return rbp_gradient(*case.example(xp), case.at_rest).gradient


def states_of(phases):
    """The same phases, nudged states instead of deviations: equation (4) with live switches, as the paper has it."""
    return Phases(phases.free, phases.nudged, deviations=False)


# --- the theorem: equations (3), (4), (12), (6), (9) ----------------------------------------------------------------------


@every_case
def test_bptt_and_rbp_are_the_slope_of_the_loss(xp, case):
    """BPTT through all steps, and RBP at the fixed point, along a random direction; and the one is the other, parameter by
    parameter, none of which is 0."""
    net, x, y = case.example(xp)
    backward, recurrent = bptt_gradient(net, x, y, case.at_rest), rbp_gradient(net, x, y, case.at_rest)
    for found in (backward, recurrent):
        assert found.free.residual < 1e-14 and not found.nudged
        assert dot(found.gradient, random_direction(net)) == pytest.approx(settled_slope(xp, case), rel=1e-11)
        assert found.gradient.keys() == net.parameters().keys()
        assert found.loss == pytest.approx(loss(net, x, y, case.steps), rel=1e-12)
    for name, g in backward.gradient.items():
        smallest = 1e-5 * (case.gain if name.endswith("B") or case.wiring == "dead end" else 1)
        assert abs(to_host(g)).max() > smallest and relative(recurrent.gradient[name], g) < 1e-10, name


@every_case
def test_ep_by_deviations_is_the_slope_of_the_loss(xp, case):
    """Symmetric or not, at every gain: along the direction, and as much as RBP's for each parameter by itself."""
    net, x, y = case.example(xp)
    found = eqprop_gradient(net, x, y, case.at_rest, nudging=TINY)
    exact = exact_gradient(xp, case)
    for phase in found.nudged:
        states = [s + d / w for s, d, w in zip(found.free.states, phase.states, net.energy_factors)]
        assert phase.residual < 1e-14 and stays(net, found.free, states, phase.switches)
    assert dot(found.gradient, random_direction(net)) == pytest.approx(settled_slope(xp, case), rel=1e-9)
    assert all(relative(found.gradient[name], g) < 1e-8 for name, g in exact.items())


@every(WITH_ENERGY)
def test_ep_by_the_difference_of_states_is_the_slope_of_the_loss(xp, case):
    """As long as no nudge moves a switch or a clip. A difference of states loses digits: layer n answers w_n times less than
    the last, so that it knows as many fewer."""
    net, x, y = case.example(xp)
    found = eqprop_gradient(net, x, y, states_of(case.at_rest), nudging=FINE)
    exact, lost = exact_gradient(xp, case), 10 * max(net.energy_factors)
    assert all(phase.residual < 1e-14 and stays(net, found.free, phase.states, phase.switches) for phase in found.nudged)
    assert dot(found.gradient, random_direction(net)) == pytest.approx(settled_slope(xp, case), rel=1e-10 * lost)
    assert all(relative(found.gradient[name], g) < 1e-9 * lost for name, g in exact.items())


def test_by_default_ep_is_the_difference_of_two_states(xp):
    """Rule (4) written out, at a nudge so large that deviations give another number."""
    net, x, y = Case("max", cost=SE).example(xp)
    free = relax(net, x, 60)
    below, above = (net.hebbian(x, nudged.states, nudged.switches)
                    for nudged in (relax(net, x, 40, y, beta, start=free.states) for beta in (-0.5, 0.5)))
    by_hand = {name: -(above[name] - below[name]) / (2 * 0.5) / len(x) for name in above}
    found, other = (eqprop_gradient(net, x, y, phases, nudging=Nudging.symmetric(0.5)).gradient
                    for phases in (Phases(60, 40), Phases(60, 40, deviations=True)))
    assert found.keys() == by_hand.keys() and relative(found, by_hand) < 1e-12
    assert relative(other, by_hand) > 1e-3


ORDERS = [(Nudging.one_sided, 1), (Nudging.symmetric, 2), (Nudging.four_point, 4), (lambda b: Nudging.holomorphic(b, 3), 3),
          (lambda b: Nudging.holomorphic(b, 4), 4), (lambda b: Nudging.holomorphic(b, 6), 6),
          (lambda b: Nudging.holomorphic(b, 2, shifted=True), 2), (lambda b: Nudging.from_points((-b, b / 2, b)), 2)]


@pytest.mark.parametrize("nudging,order,gain,cost,deviations", [  # every nudging in both forms; gains and costs take turns
    (*row, *[(1.0, SE), (0.3, CE), (0.01, SE)][(k + deviations) % 3], deviations)
    for k, row in enumerate(ORDERS) for deviations in (True, False)])
def test_the_bias_falls_with_the_order_of_the_nudging(xp, nudging, order, gain, cost, deviations):
    """The error of the estimate falls as beta^order at every gain, and the gradient is real (average pooling, sigmoid)."""
    case = Case("average", cost=cost, gain=gain)
    net, x, y = case.example(xp)
    phases = case.at_rest if deviations else states_of(case.at_rest)
    exact, betas = exact_gradient(xp, case), (0.1, 0.05) if order > 2 else (2e-2, 1e-2)
    found = [eqprop_gradient(net, x, y, phases, nudging=nudging(b)).gradient for b in betas]
    errors = [relative(gradient, exact) for gradient in found]
    assert errors[1] < 0.05 and fitted_slope(errors, betas) == pytest.approx(order, abs=0.15)
    assert {str(g.dtype) for g in found[0].values()} == {"float64"}


@every([Case("average", "tanh"), Case("average", angle=ANGLE), Case("dense", "tanh", SE, angle=ANGLE)])
def test_six_complex_phases_give_the_gradient_to_round_off(xp, case):
    """Holomorphic nudging at a finite beta of 0.02."""
    net, x, y = case.example(xp)
    found = eqprop_gradient(net, x, y, case.at_rest, nudging=Nudging.holomorphic(0.02, 6)).gradient
    assert {str(g.dtype) for g in found.values()} == {"float64"}
    assert relative(found, exact_gradient(xp, case)) < 1e-9


@both_forms
def test_real_and_complex_points_in_one_nudging(xp, deviations):
    """Re f(beta) and f(i beta) = f(0) + i beta f'(0) + ... in one formula of first order."""
    case = Case("average")
    net, x, y = case.example(xp)
    mixed = Nudging((1e-5, 1e-5j), (5e4, -5e4 - 5e4j), take_real=True)
    phases = case.at_rest if deviations else states_of(case.at_rest)
    assert relative(eqprop_gradient(net, x, y, phases, nudging=mixed).gradient, exact_gradient(xp, case)) < 1e-3


@both_forms
def test_the_mean_over_random_signs_is_the_symmetric_estimate(xp, deviations):
    """(g(+beta) + g(-beta)) / 2 = symmetric; alone, one sign is something else."""
    net, x, y = Case("max", "hard-sigmoid").example(xp)
    plus, minus, both = (eqprop_gradient(net, x, y, Phases(120, 80, deviations), nudging=n).gradient for n in (
        Nudging.one_sided(0.3), Nudging.one_sided(-0.3), Nudging.symmetric(0.3)))
    assert relative({name: 0.5 * (plus[name] + minus[name]) for name in plus}, both) < 1e-13
    assert relative(plus, both) > 1e-3


@pytest.mark.parametrize("case,deviations", [
    (Case("dense"), True), (Case("dense"), False), (Case("average"), True), (Case("triangle", gain=0.3), True),
    (Case("triangle", gain=0.3), False), (Case("dense", "tanh", angle=ANGLE), True)], ids=str)
@pytest.mark.parametrize("free,nudged", [("checkerboard", "checkerboard"), ("up", "down"), ("down", "up")])
def test_all_schedules_give_the_same_gradient(xp, case, free, nudged, deviations):
    """EP and RBP, at converged fixed points; a tolerance stops the free phase early."""
    net, x, y = case.example(xp)
    phases = Phases(Phase(case.steps, free, 3e-15), Phase(case.steps, nudged), deviations)
    one = eqprop_gradient(net, x, y, case.at_rest, nudging=FINE).gradient
    other, lost = eqprop_gradient(net, x, y, phases, nudging=FINE), 1 if deviations else 10 * max(net.energy_factors)
    assert other.free.steps < case.steps and relative(other.gradient, one) < 1e-9 * lost
    assert relative(rbp_gradient(net, x, y, phases).gradient, one) < 1e-9


@pytest.mark.parametrize("algorithm", ["eqprop", "two states", "asymmetric", "bptt", "rbp"])
def test_the_gradient_is_a_batch_mean(xp, algorithm):
    """The gradient of a batch = the mean over its examples, each with its own s*; loss and right predictions likewise."""
    net, x, y = Case("max", cost=SE, angle=ANGLE if algorithm == "asymmetric" else None).example(xp)

    def gradient(x, y):
        if algorithm in ("bptt", "rbp"):
            return {"bptt": bptt_gradient, "rbp": rbp_gradient}[algorithm](net, x, y, Phases(30, 10))
        return eqprop_gradient(net, x, y, Phases(30, 10, algorithm != "two states"), nudging=Nudging.symmetric(0.1))

    batch, singles = gradient(x, y), [gradient(x[n:n + 1], y[n:n + 1]) for n in range(3)]
    assert relative({k: sum(s.gradient[k] for s in singles) / 3 for k in batch.gradient}, batch.gradient) < 1e-12
    assert batch.loss == pytest.approx(sum(s.loss for s in singles) / 3, rel=1e-13)
    assert batch.correct == sum(s.correct for s in singles)


# --- free phases that have not settled, or are settled already ------------------------------------------------------------


def test_one_sided_nudging_reuses_a_free_phase_that_has_settled(xp):
    """Then the point beta = 0 costs nothing: its phase is the free phase itself. As a deviation it is 0, settled or not."""
    net, x, y = Case("average").example(xp)
    for settled, free in ((True, Phase(99, tolerance=1e-9)), (False, 3)):
        two, one = (eqprop_gradient(net, x, y, Phases(free, 5, deviations), nudging=Nudging.one_sided(0.1))
                    for deviations in (False, True))
        assert two.free.converged == settled and (two.nudged[0] is two.free) == settled and two.nudged[1].steps == 5
        assert [phase.steps for phase in one.nudged] == [5]


@both_forms
def test_what_has_not_settled_cancels(xp, deviations):
    """After T = 2 steps the states still move. One-sided and symmetric estimates tend to the same limit all the same. Were the
    phase at beta = 0 left at s_T, (s_{T+K} - s_T)/beta would swamp it."""
    net, x, y = Case("average").example(xp)
    betas, apart = (1e-3, 1e-4), []
    for beta in betas:
        one, two = (eqprop_gradient(net, x, y, Phases(2, 3, deviations), nudging=n)
                    for n in (Nudging.one_sided(beta), Nudging.symmetric(beta)))
        assert one.free.residual > 1e-2
        apart.append(relative(one.gradient, two.gradient))
    assert apart[0] < 1e-2 and fitted_slope(apart, betas) == pytest.approx(1, abs=0.05)
    if not deviations:  # the estimate is the sum of its increments from there
        steps = eqprop_increments(net, x, y, one.free.states, 3, nudging=Nudging.one_sided(1e-4), deviations=False)
        assert relative({name: sum(g[name] for g, _ in steps) for name in steps[0][0]},
                        {name: one.gradient[name] for name in steps[0][0]}) < 1e-8


def test_frozen_switches(xp):
    """Where nudging moves the live switches, deviations at those of s* keep the bias at O(beta^2): 1% instead of 700%."""
    net, x, y = Case("max", cost=SE, scale=2.0, seed=2).example(xp)
    exact, errors = bptt_gradient(net, x, y, Phases(480, 480)).gradient, {}
    for freeze, beta in ((True, 0.05), (True, 0.1), (False, 0.05)):
        result = eqprop_gradient(net, x, y, Phases(480, 480, deviations=freeze), nudging=Nudging.symmetric(beta))
        assert all(same_switches(phase.switches, result.free.switches) for phase in result.nudged) == freeze
        errors[freeze, beta] = relative(result.gradient, exact)
    assert fitted_slope([errors[True, 0.1], errors[True, 0.05]], [0.1, 0.05]) == pytest.approx(2, abs=0.1)
    assert errors[True, 0.05] < 0.02 and errors[False, 0.05] > 1


# --- BPTT where nothing has settled ---------------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("forward,back", [(5, 5), (7, 4), (3, 1)], ids=["from zero", "truncated", "one step"])
def test_bptt_is_the_derivative_of_the_unrolled_loss(xp, case, forward, back):
    """d/dtheta of C(s_T, y), where theta acts in the last K of T steps, far from a fixed point."""
    net, x, y = replace(case, scale=1.5, seed=5).example(xp)
    direction = random_direction(net)
    start = relax(net, x, forward - back).states if back < forward else None
    expected = loss_slope(net, x, y, back, direction, start)
    result = bptt_gradient(net, x, y, Phases(forward, back))
    assert abs(expected) > 1e-5 and (result.free.residual > 1e-6 or case.gain < 1)
    assert dot(result.gradient, direction) == pytest.approx(expected, rel=1e-10)
    assert result.free.steps == forward and result.loss == pytest.approx(loss(net, x, y, back, start), rel=1e-13)


@every_case
def test_the_reverse_sweep_uses_the_switches_of_its_own_step(xp, case):
    """The same from a random state, where no zero hides which switches were used; larger weights move them at each step."""
    net, x, y = replace(case, scale=1.5).example(xp)
    start, direction = random_states(xp, net), random_direction(net)
    trajectory, end = bptt.unroll(net, x, start, 4)
    gradient = net.readout_gradient(end.states, y)
    for g, _ in bptt.backward(net, x, y, trajectory, end.states):
        gradient = {**gradient, **{name: gradient.get(name, 0.0) + g[name] for name in g}}
    if case.wiring == "max" and case.gain > 0.1:  # of W, and of B where there is one
        switches = [flat(list(sw[1]) if case.angle is not None else sw[1]) for _, _, sw in trajectory]
        assert all((a != b).any() for a, b in zip(switches, switches[1:]))
    expected = loss_slope(net, x, y, 4, direction, start)
    assert abs(expected) > 1e-4 and dot(gradient, direction) / len(x) == pytest.approx(expected, rel=1e-11)


# --- deviations, equation (11) --------------------------------------------------------------------------------------------


def check_deviations(net, x, y, free, beta, schedule, transposed=True):
    """After 1, 2 and 20 steps: delta_n / w_n = s_n - s*_n, s relaxed with the switches of s*, which are the deviations' too."""
    for steps in (1, 2, 20):
        phase = Phase(steps, schedule)
        delta = deviate(net, y, beta, free, phase, transposed)
        states = relax(held(net, free.switches), x, phase, y, beta, start=free.states).states
        assert delta.steps == steps and same_switches(delta.switches, free.switches)
        for d, w, s, rest in zip(delta.states, net.energy_factors, states, free.states):
            assert abs(to_host(rest + d / w - s)).max() < 1e-14  # round-off of states of size 1, and of a few sums
        assert relative([d / w for d, w in zip(delta.states, net.energy_factors)],
                        [s - rest for s, rest in zip(states, free.states)]) < 1e-12
    assert max(abs(to_host(d)).max() for d in delta.states) > 0.01


@every_case
def test_deviations_are_differences_of_frozen_states(xp, case):
    """Of the network's own response, which is w_n times the transposed one where there is an energy; for both signs of the
    nudge, whether units reach their bounds or not. Through D^T an asymmetric network responds in another way."""
    net, x, y = replace(case, scale=0.9).example(xp)
    number = len(str(case))  # another schedule for each
    free = relax(net, x, Phase(4 * case.steps, tolerance=3e-16))
    own = dict(transposed=False) if case.angle is not None else {}
    for k in (0, 1):
        check_deviations(net, x, y, free, (0.5, -0.5)[k], list(SCHEDULES)[(number + k) % 4], **own)
    plain, transposed = (deviate(net, y, 0.5, free, 30, t).states for t in (False, True))
    assert (relative(plain[:-1], transposed[:-1]) > 0.1) if own else (relative(plain, transposed) == 0)


@every([Case("dense", "tanh", CE, 1.0), Case("dense", "sigmoid", SE, 0.3), Case("average", "sigmoid", CE, 0.01)])
def test_complex_deviations_are_differences_of_complex_states(xp, case):
    """Holomorphic networks, a nudge of any phase."""
    net, x, y = case.example(xp)
    free = relax(net, x, Phase(4 * case.steps, tolerance=3e-16))
    for beta in (0.3j, 0.2 - 0.3j):
        check_deviations(net, x, y, free, beta, "down")


@every(where(TILTED, gain=1.0))
def test_exact_asymmetric_deviations_are_those_of_equation_8(xp, case):
    """s <- sigma( drive(s*) + D^T (s - s*) - beta dC/ds ), written out."""
    net, x, y = case.example(xp)
    free = relax(net, x, case.steps)
    for beta in (0.4, -0.4):
        drives, states = net.drives(x, free.states)[0], list(free.states)
        for steps in range(1, 6):
            v, u = [None, *(s - rest for s, rest in zip(states, free.states))], [None, *drives]
            for synapse, (i, j), sw in zip(net.synapses, net.wiring, free.switches):
                if i > 0:
                    u[i] = u[i] + synapse.drive_post_adjoint(v[j], sw)  # W^T, where the drive has B^T
                    u[j] = u[j] + synapse.drive_pre_adjoint(v[i], sw)  # B, where the drive has W
            u[-1] = u[-1] + beta * net.cost.force(states[-1], y)
            states = [net.activation.sigma(u_n) for u_n in u[1:]]
            found = deviate(net, y, beta, free, steps).states
            assert all(abs(to_host(s - rest - d)).max() < 1e-14 for s, rest, d in zip(states, free.states, found))
        assert abs(to_host(found[0])).max() > 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_response_is_what_rbp_sends_back(xp, schedule):
    """- sum_k c_k delta^{beta_k} of a tiny nudge = (9), step by step, under every schedule: also far from its fixed point."""
    net, x, y = Case("max", cost=SE, gain=0.5).example(xp)
    settled = Phase(240, tolerance=3e-16)
    free = relax(net, x, settled)
    for steps in (1, 2, 5):
        mu, nudged = response(net, y, free, Nudging.symmetric(1e-6), Phase(steps, schedule))
        gradient = net.parameter_adjoint(x, free.states, free.switches, mu)
        exact = rbp_gradient(net, x, y, Phases(settled, Phase(steps, schedule))).gradient
        assert len(nudged) == 2
        assert relative([g / 3 for g in gradient.values()], [exact[name] for name in gradient]) < 1e-9


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("activation,top", [("hard-sigmoid", 1.0), ("relu6", 6.0)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_unit_at_a_bound_is_freed_by_a_nudge_towards_the_target_and_buried_by_one_away(xp, schedule, activation, top, gain):
    """The response mu of a unit at its lower bound is never positive for beta > 0: learning then raises its drive, or leaves it.
    For beta < 0 it is never negative. At the upper bound the other way round. The symmetric one is their mean: both signs."""
    net, x, y = Case("dense", activation, gain=gain, scale=4.0).example(xp, n=300)
    free = relax(net, top * (2 * x - 1), Phase(20))
    at_bounds = [1.0 * (s == 0) - (s == top) for s in free.states]  # 1 at the lower one, -1 at the upper one, 0 inside
    assert set(flat(at_bounds)) == {-1, 0, 1}

    def outward(nudging):  # what makes learning bury units that are at a bound is positive
        mu, _ = response(net, y, free, nudging, Phase(3, schedule))
        return flat([to_host(m * at) for m, at in zip(mu, at_bounds)])

    towards, away = outward(Nudging.one_sided(top / 2)), outward(Nudging.one_sided(-top / 2))
    assert min(towards) < 0 < max(away) and max(towards) == 0 == min(away)
    both = outward(Nudging.symmetric(top / 2))
    assert abs(both - (towards + away) / 2).max() < 1e-12 and min(both) < 0 < max(both)


# --- asymmetric networks, equations (7) and (8) ---------------------------------------------------------------------------


@every(TILTED)
def test_the_own_rule_is_wrong_where_B_is_not_W_and_right_where_it_is(xp, case):
    """Vector-field EP at 90 degrees is no gradient, but for the readout's and the last layer's own. With B = W it is, by
    deviations and by the difference of states; dW + dB is then the gradient of the symmetric network; so it is for BPTT."""
    net, x, y = case.example(xp)
    own = eqprop_gradient(net, x, y, case.at_rest, nudging=TINY, transposed=False).gradient
    exact = exact_gradient(xp, case)
    inside = [name for name in exact if "readout" not in name]
    assert relative([own[name] for name in inside], [exact[name] for name in inside]) > 1e-2
    if case.wiring == "one's own":
        return  # it is not the symmetric network at any angle: its last synapse has no B
    expected, other = exact_gradient(xp, replace(case, angle=None)), replace(case, angle=0.0).network(xp)
    backward = bptt_gradient(other, x, y, case.at_rest).gradient
    assert backward.keys() - expected.keys() == {name for name in other.parameters() if name.endswith(".B")} != set()
    assert relative({name: kolen_pollack(backward)[name] for name in expected}, expected) < 1e-11
    small, lost = Nudging.four_point(1e-4), 10 * max(net.energy_factors)
    for phases, nudging, bound in ((case.at_rest, TINY, 1e-8), (states_of(case.at_rest), small, 1e-8 * lost)):
        found = eqprop_gradient(other, x, y, phases, nudging=nudging, transposed=False).gradient
        joined = kolen_pollack(found)
        assert relative(found, backward) < bound
        assert all(relative(joined[name], expected[name]) < bound for name in expected)


def test_kolen_pollack_touches_only_pairs(xp):
    """dW and dB become their sum; biases, the first layer and the readout stay."""
    net = Case("average", angle=ANGLE).network(xp)
    gradient = {name: normal(xp, w.shape, [k, 3]) for k, (name, w) in enumerate(net.parameters().items())}
    joined = kolen_pollack(gradient)
    assert joined.keys() == gradient.keys() == {"1.W", "1.b", "2.W", "2.b", "2.B", "readout.W", "readout.b"}
    for name in gradient:
        expected = gradient["2.W"] + gradient["2.B"] if name in ("2.W", "2.B") else gradient[name]
        assert relative(joined[name], expected) == 0


def test_both_halves_of_a_gradient_that_is_not_called_W(xp):
    """Of a synapse of somebody's own in an asymmetric network, what the way up and the way down say is added."""
    net, x, _ = Case("one's own", angle=ANGLE).example(xp)
    free, mu = relax(net, x, 120), random_states(xp, net)
    halves = [net.parameter_adjoint(x, free.states, free.switches, [keep * m for m, keep in zip(mu, kept)])["4.g"]
              for kept in ((1, 0, 0), (0, 1, 0), (1, 1, 0))]
    assert relative(halves[0] + halves[1], halves[2]) < 1e-14
    assert all(abs(to_host(half)).min() > 1e-4 for half in halves)


# --- wrong rules ----------------------------------------------------------------------------------------------------------


def test_a_skip_with_the_gain_of_one_layer_is_noticed(xp):
    """gamma on every way down, as scaling the feedback without an energy would have it: (4) is then no gradient. (12) still is
    one, for the response runs through D^T of whatever D is."""
    case = Case("triangle", cost=SE, gain=0.3)
    net, x, y = case.example(xp)
    net.gains = [net.feedback if i else 1.0 for i, _ in net.wiring]
    expected = loss_slope(net, x, y, case.steps, random_direction(net))
    for phases, right in ((case.at_rest, True), (states_of(case.at_rest), False)):
        found = eqprop_gradient(net, x, y, phases, nudging=FINE).gradient
        assert (abs(dot(found, random_direction(net)) / expected - 1) < 1e-6) == right


# --- weak feedback, and none ----------------------------------------------------------------------------------------------


def test_backpropagation_by_hand(xp):
    """The reference itself, for one dense network in four lines of NumPy."""
    net = mlp([6, 5, 3], "tanh", SquaredError, dtype="float64").to(xp)
    _, x, y = Case("dense").example(xp)
    (W1, b1), (W2, b2) = ((synapse.W, synapse.b) for synapse in net.synapses)
    h = xp.tanh(x @ W1 + b1)
    s = xp.tanh(h @ W2 + b2)
    error = (s - y) * (1 - s * s)
    below = error @ W2.T * (1 - h * h)
    expected = {"1.W": x.T @ below / 3, "1.b": below.mean(0), "2.W": h.T @ error / 3, "2.b": error.mean(0)}
    assert relative(backpropagation(net, x, y), expected) < 1e-14


@every([Case(*kind, cost, scale=1.5) for kind in KINDS for cost in (CE, SE)] + [Case("strides", "tanh")])
def test_weak_feedback_is_backpropagation(xp, case):
    """At gamma = 1e-4 every parameter's gradient points where feed-forward backpropagation points; at 0 it is the same
    numbers, after one sweep up and one down, with a nudge of 1e-6 (and by BPTT, and whatever the number of steps)."""
    net, x, y = replace(case, gain=1e-4).example(xp)
    exact, nudging = backpropagation(net, x, y), Nudging.symmetric(1e-6)
    weak = eqprop_gradient(net, x, y, Phases(Phase(2, "up"), Phase(2, "down"), deviations=True), nudging=nudging).gradient
    assert all(cosine(weak[name], g) > 0.9999 for name, g in exact.items())
    net.feedback = 0.0
    for phases in (Phases(Phase(1, "up"), Phase(1, "down"), True), Phases(8, 8, True)):
        none = eqprop_gradient(net, x, y, phases, nudging=nudging).gradient
        assert all(relative(none[name], g) < 1e-9 for name, g in exact.items())
    backward = bptt_gradient(net, x, y, Phases(8, 8)).gradient
    assert all(relative(backward[name], g) < 1e-12 for name, g in exact.items())


def test_without_feedback_all_factors_are_numbers(xp):
    """At gamma = 0 a layer before the last has the factor infinity, and one deeper than the last 0: (11) takes large numbers."""
    net, x, y = Case("dead end", gain=0.0).example(xp)
    phases = Phases(Phase(1, "up"), Phase(3, "down"), deviations=True)
    found, exact = (g.gradient for g in (eqprop_gradient(net, x, y, phases, nudging=TINY), rbp_gradient(net, x, y, phases)))
    assert all(abs(to_host(found[name] - g)).max() < 1e-9 for name, g in exact.items()) and abs(exact["1.W"]).max() > 1e-3
    assert not found["3.W"].any()  # nothing listens to layer 3


def deep(xp, layers, beta, free, nudged, deviations=True):
    """(smallest cosine over all parameters of a float32 estimate with the exact gradient in float64, cosine of the first layer,
    the estimate) for a hard-sigmoid MLP at gamma = 0.02, initial scale 4."""
    net, exact = (mlp([20, *[32] * layers, 5], "hard-sigmoid", dtype=dtype, scale=4.0, feedback=0.02).to(xp)
                  for dtype in ("float32", "float64"))
    exact.set_parameters({name: w.astype("float64") for name, w in net.parameters().items()})
    x, y = xp.asarray(np.random.default_rng(0).random((16, 20)), dtype="float32"), xp.asarray(np.arange(16) % 5)
    truth = rbp_gradient(exact, x.astype("float64"), y, Phases(Phase(50, "up", 1e-13), Phase(50, "down", 1e-15)))
    assert truth.free.converged and min(np.linalg.norm(flat(g)) for g in truth.gradient.values()) > 1e-6
    phases = Phases(Phase(free, "up"), Phase(nudged, "down"), deviations)
    with np.errstate(all="ignore" if not deviations else "raise", under="ignore"):
        found = eqprop_gradient(net, x, y, phases, nudging=Nudging.symmetric(beta))
    with np.errstate(invalid="ignore"):  # a gradient of 0 has no direction: NaN
        cosines = {name: cosine(found.gradient[name], g) for name, g in truth.gradient.items()}
    return np.min(list(cosines.values())), cosines["1.W"], found  # NaN if there is one


def test_deviations_keep_the_digits_that_a_difference_of_states_loses(xp):
    """12 layers in float32: the lowest answers are 1e-19 of the nudge. As deviations all layers point where the exact gradient
    points; as a difference of two states, settled to the last bit, the lower layers get nothing or noise."""
    worst, _, found = deep(xp, 12, 0.1, 8, 3)
    assert worst > 0.97 and {str(g.dtype) for g in found.gradient.values()} == {"float32"}
    worst, first, found = deep(xp, 12, 0.1, 50, 20, deviations=False)
    assert found.free.residual < 1e-6 and not worst > 0.5 and not first > 0.5  # 0 (so that the cosine is NaN) or noise


def test_nothing_underflows_or_overflows_in_50_layers(xp):
    """w_1 = 50^49, beyond the numbers of float32: the deviations stay of the size of the nudge."""
    worst, first, found = deep(xp, 50, 0.01, 8, 3)
    assert worst > 0.97 and first > 0.97
    sizes = [float(abs(d).max()) for d in found.nudged[0].states]
    assert 1e-8 < min(sizes) and max(sizes) < 1.0


# --- precision, and what is refused ---------------------------------------------------------------------------------------


@both_forms
@every([replace(case, dtype="float32") for case in where(CASES, wiring=CHAINS[:3], gain=0.3)])
def test_single_precision_is_kept(xp, case, deviations):
    """float32 in, float32 states and gradients out, also where beta is a NumPy number, as it is when it comes from an array."""
    net, x, y = case.example(xp)
    results = [bptt_gradient(net, x, y, Phases(5, 3)), rbp_gradient(net, x, y, Phases(5, 3))]
    for beta in (0.1, np.float64(0.1), np.float32(0.1)):
        phases, nudging = Phases(5, 3, deviations), Nudging.symmetric(beta)
        results.append(eqprop_gradient(net, x, y, phases, nudging=nudging, transposed=case.angle is None or deviations))
    for result in results:
        arrays = [*result.free.u, *result.gradient.values(), *(s for r in (result.free, *result.nudged) for s in r.states)]
        assert {str(a.dtype) for a in arrays} == {"float32"}
    deviations = [deviate(net, y, beta, result.free, 3).states for beta in (np.float64(0.1), np.float32(0.1), 1)]
    assert {str(d.dtype) for delta in deviations for d in delta} == {"float32"}


@pytest.mark.parametrize("free,nudged,match", [
    (Phase(4, "checkerboard"), 3, "synchronous"), (4, Phase(3, "down"), "synchronous"),
    (Phase(4, tolerance=1e-6), 3, "no tolerance"), (4, Phase(3, tolerance=1e-6), "no tolerance"),
    (4, 5, "1 to T = 4 steps: got K = 5")])
def test_what_bptt_cannot_do_is_refused(free, nudged, match):
    """Other schedules, a tolerance, more steps back than forward: one sentence each."""
    with pytest.raises(EPError, match=match):
        bptt_gradient(*Case("average").example(), Phases(free, nudged))


@pytest.mark.parametrize("case,deviations,nudging,match", [
    (Case("max"), True, Nudging.holomorphic(0.1, 4), "holomorphic network"),
    (Case("max"), False, Nudging.holomorphic(0.1, 4), "holomorphic network"),
    (Case("max", angle=ANGLE), True, Nudging.holomorphic(0.1, 4), "holomorphic network"),
    (Case("max", angle=ANGLE), False, FINE, "the exact gradient of an asymmetric network needs deviations"),
    (Case("average", gain=0.0), False, FINE, "use a small gain, or nudge by deviations")], ids=str)
def test_what_ep_cannot_do_is_refused(case, deviations, nudging, match):
    """The gradient and its increments: one sentence each."""
    net, x, y = case.example()
    with pytest.raises(EPError, match=match):
        eqprop_gradient(net, x, y, Phases(5, 5, deviations), nudging=nudging)
    with pytest.raises(EPError, match=match):
        eqprop_increments(net, x, y, random_states(np, net), 3, nudging=nudging, deviations=deviations)


@pytest.mark.parametrize("cost", [ep.SquaredError, ep.SoftmaxCrossEntropy])
def test_deviations_take_labels(cost):
    """`deviate` and `response` read labels as every gradient does (of as many images as classes, too), and count them."""
    net, x, y = ep.mlp([4, 5, 3], cost=cost), np.random.default_rng(0).random((3, 4), "float32"), np.array([0, 2, 1])
    free = ep.relax(net, x, 20)
    for f in (lambda y: ep.deviate(net, y, 0.1, free, 5).states, lambda y: ep.response(net, y, free, FINE, 5)[0]):
        assert relative(f(y), f(net.targets(y))) == 0
        with pytest.raises(EPError, match="one label or target per image of the free phase: got 2 for 3"):
            f(y[:2])


def test_the_original_of_an_asymmetric_network_is_left_alone(xp):
    """asymmetric() copies: training the copy moves nothing in the network it came from, and seeds give different B."""
    net = Case("average").network(xp)
    before = {name: w.copy() for name, w in net.parameters().items()}
    one, other = asymmetric(net, seed=0), asymmetric(net, seed=1)
    assert relative(one.parameters()["2.B"], other.parameters()["2.B"]) > 0.5
    for w in one.parameters().values():
        w += 1.0
    assert relative(net.parameters(), before) == 0
    assert {name: other.parameters()[name].shape for name in before} == {name: w.shape for name, w in before.items()}
