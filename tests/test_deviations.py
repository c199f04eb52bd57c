"""Nudged phases as deviations, equation (11): the nudged states minus s*, step by step, and no digit is lost."""

import numpy as np
import pytest
from helpers import COST_NAMES, NETWORKS, K, T, data, dot, flat, network, normal, random_states, relative, same_switches, slope
from test_gain import GAINS, cosine, triangle

from ep.activations import ACTIVATIONS
from ep.backend import to_host
from ep.builders import mlp
from ep.dynamics import SCHEDULES, Phase, Phases, deviate, relax, response
from ep.eqprop import eqprop_gradient
from ep.errors import EPError
from ep.nudging import Nudging
from ep.rbp import rbp_gradient
from ep.vectorfield import asymmetric

every_network = pytest.mark.parametrize("kind,activation", NETWORKS)
every_cost = pytest.mark.parametrize("cost", COST_NAMES)
smooth = pytest.mark.parametrize("kind,activation", [("dense", "tanh"), ("dense", "sigmoid"), ("average", "sigmoid")])
some_networks = pytest.mark.parametrize("kind,activation", [("dense", "tanh"), ("average", "sigmoid"), ("max", "sigmoid"),
                                                            ("max", "hard-sigmoid")])


def at_rest(net, x):
    """A free phase that has converged to round-off."""
    free = relax(net, x, Phase(4 * T, tolerance=3e-16))
    assert free.residual < 1e-15
    return free


def check_against_states(net, x, y, free, beta, schedules, transposed=True):
    """After 1, 2 and 20 steps: delta_n / w_n = s_n - s*_n, s relaxed with the switches of s*, which are the deviations' too."""
    largest = 0.0
    for schedule in schedules:
        for steps in (1, 2, 20):
            phase = Phase(steps, schedule)
            delta = deviate(net, y, beta, free, phase, transposed)
            states = relax(net, x, phase, y, beta, start=free.states, switches=free.switches)
            assert delta.steps == steps and same_switches(delta.switches, free.switches)
            for d, w, s, rest in zip(delta.states, net.weights, states.states, free.states):
                assert abs(to_host(rest + d / w - s)).max() < 1e-14  # round-off of states of size 1, and of a few sums
                largest = max(largest, abs(to_host(d)).max())
            moved = [d / w for d, w in zip(delta.states, net.weights)]
            assert relative(moved, [s - rest for s, rest in zip(states.states, free.states)]) < 1e-12
    assert largest > 0.01


@every_cost
@every_network
def test_deviations_are_differences_of_frozen_states(xp, kind, activation, cost):
    """At every gain, for both signs of the nudge, where units reach their bounds or not."""
    net = network(xp, kind, activation, cost, scale=0.9)
    x, y = data(xp, net)
    first = COST_NAMES.index(cost)  # another schedule for each gain and cost
    for k, net.feedback in enumerate(GAINS):
        check_against_states(net, x, y, at_rest(net, x), (0.5, -0.5, 0.5)[k], list(SCHEDULES)[first + k:first + k + 1])


@every_cost
@smooth
def test_complex_deviations_are_differences_of_complex_states(xp, kind, activation, cost):
    """Holomorphic networks, a nudge of any phase."""
    net = network(xp, kind, activation, cost)
    x, y = data(xp, net)
    for net.feedback, beta in zip(GAINS, (0.3j, 0.2 - 0.3j, -0.3 + 0.1j)):
        check_against_states(net, x, y, at_rest(net, x), beta, ("synchronous", "down"))


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("kind,activation", [("dense", "tanh"), ("average", "hard-sigmoid"), ("max", "sigmoid")])
def test_asymmetric_deviations_are_differences_of_frozen_states(xp, kind, activation, gain):
    """transposed=False: the plain response of an asymmetric network's own dynamics, through D; and D^T is another one."""
    net = asymmetric(network(xp, kind, activation, "squared-error", feedback=gain))
    x, y = data(xp, net)
    free = at_rest(net, x)
    check_against_states(net, x, y, free, 0.5, ("synchronous", "checkerboard", "down"), transposed=False)
    plain, transposed = (deviate(net, y, 0.5, free, K, t).states for t in (False, True))
    assert relative(plain[:-1], transposed[:-1]) > 0.1


@every_cost
@some_networks
@pytest.mark.parametrize("beta", [0.4, -0.4])
def test_exact_asymmetric_deviations_are_those_of_equation_8(xp, kind, activation, cost, beta):
    """transposed=True, gain 1: s <- sigma( drive(s*) + D^T (s - s*) - beta dC/ds ), written out."""
    net = asymmetric(network(xp, kind, activation, cost))
    x, y = data(xp, net)
    free = at_rest(net, x)
    drives, states = net.drives(x, free.states)[0], list(free.states)
    for steps in range(1, 9):
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


@pytest.mark.parametrize("gain", GAINS)
def test_deviations_in_a_triangle(xp, gain):
    """A skip connection and its gain gamma^2, under every schedule."""
    net = triangle(xp, gain)
    x, y = data(xp, net)
    check_against_states(net, x, y, at_rest(net, x), 0.5, SCHEDULES)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("connections", ["symmetric", "asymmetric", "triangle"])
def test_transposed_drives_are_the_transposed_jacobian(xp, connections, gain):
    """< D v, mu > = < v, D^T mu > with D v by differences of the drives; w_i D_ij = w_j D_ji where the network is symmetric;
    transposed=False is w D (mu/w) everywhere; and the group asked for is the group that comes."""
    net = triangle(xp, gain) if connections == "triangle" else network(xp, "max", "sigmoid", feedback=gain)
    net = asymmetric(net) if connections == "asymmetric" else net
    x, _ = data(xp, net)
    states, mu, v = random_states(xp, net), *([normal(xp, (3, *s), [seed, k]) for k, s in enumerate(net.shapes[1:])]
                                             for seed in (1, 2))
    switches, w = net.drives(x, states)[1], net.weights

    def moved(direction, onto):  # < D direction, onto >
        return slope(lambda t: dot(net.drives(x, [s + t * d for s, d in zip(states, direction)])[0], onto))

    back = net.transposed_drives(mu, switches)
    assert list(back) == list(range(1, len(net.shapes))) and dot(list(back.values()), v) == pytest.approx(moved(v, mu), rel=1e-8)
    plain = net.transposed_drives(mu, switches, transposed=False)
    by_differences = moved([m / w_n for m, w_n in zip(mu, w)], [w_n * v_n for v_n, w_n in zip(v, w)])
    assert dot(list(plain.values()), v) == pytest.approx(by_differences, rel=1e-8)
    assert (relative(list(plain.values()), list(back.values())) < 1e-14) == (connections != "asymmetric")
    part = net.transposed_drives(mu, switches, [2])
    assert list(part) == [2] and relative(part[2], back[2]) == 0


def test_a_relaxation_knows_its_arguments_of_sigma(xp):
    """states[n] = sigma(u[n]) bit for bit, whatever the schedule, nudged or not."""
    net = network(xp, "max", "sigmoid", scale=1.5, feedback=0.5)
    x, y = data(xp, net)
    for schedule in SCHEDULES:
        for beta in (0.0, 0.3):
            r = relax(net, x, Phase(3, schedule), y, beta, start=random_states(xp, net))
            assert all(relative(net.activation.sigma(u), s) == 0 for u, s in zip(r.u, r.states))


def test_one_sweep_carries_the_nudge_to_the_first_layer(xp):
    """Down: all layers answer at once, as much as after one step of each in that order; synchronous and upward steps bring it
    one layer further each. At gamma = 0 the first downward sweep is all there is."""
    net = network(xp, "dense", "sigmoid", feedback=0.3)
    x, y = data(xp, net)
    free = at_rest(net, x)
    for schedule, reached in (("down", [True, True, True]), ("up", [False, False, True]), ("synchronous", [False, False, True])):
        delta = deviate(net, y, 0.5, free, Phase(1, schedule)).states
        assert [bool(to_host(d).any()) for d in delta] == reached, schedule
    net.feedback = 0.0
    free = relax(net, x, Phase(1, "up"))
    one, many = (deviate(net, y, 1e-6, free, Phase(steps, "down")).states for steps in (1, 7))
    assert relative(one, many) < 1e-5 and all(to_host(d).any() for d in one)  # for a nudge so small that dC/ds stays


def test_the_response_is_what_rbp_sends_back(xp):
    """- sum_k c_k delta^{beta_k} of a tiny nudge = (9), step by step, under every schedule: also far from its fixed point."""
    net = network(xp, "max", "sigmoid", "squared-error", feedback=0.5)
    x, y = data(xp, net)
    free = at_rest(net, x)
    for schedule in SCHEDULES:
        for steps in (1, 2, 5):
            phases = Phases(Phase(2 * T, tolerance=3e-16), Phase(steps, schedule))
            mu, nudged = response(net, y, free, Nudging.symmetric(1e-6), phases.nudged)
            gradient = net.parameter_adjoint(x, free.states, free.switches, mu)
            exact = rbp_gradient(net, x, y, phases).gradient
            assert len(nudged) == 2
            assert relative([g / 3 for g in gradient.values()], [exact[name] for name in gradient]) < 1e-9


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("activation,top", [("hard-sigmoid", 1.0), ("relu6", 6.0)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_unit_at_a_bound_is_freed_by_a_nudge_towards_the_target_and_buried_by_one_away(xp, schedule, activation, top, gain):
    """The response mu of a unit at its lower bound is never positive for beta > 0: learning then raises its drive, or leaves it.
    For beta < 0 it is never negative. At the upper bound the other way round. The symmetric one is their mean: both signs."""
    net = network(xp, "dense", activation, scale=4.0, feedback=gain)
    x, y = data(xp, net, n=300)
    free = relax(net, top * (2 * x - 1), Phase(20))
    at_bounds = [1.0 * (s == 0) - (s == top) for s in free.states]  # 1 at the lower one, -1 at the upper one, 0 inside
    assert set(flat(at_bounds)) == {-1, 0, 1}

    def outward(nudging):  # what makes learning bury units that are at a bound is positive
        mu, _ = response(net, y, free, nudging, Phase(3, schedule))
        return flat([to_host(m * at) for m, at in zip(mu, at_bounds)])

    towards, away = outward(Nudging.one_sided(top / 2)), outward(Nudging.one_sided(-top / 2))
    assert min(towards) < 0 < max(away)
    assert max(towards) == 0 == min(away)
    both = outward(Nudging.symmetric(top / 2))
    assert abs(both - (towards + away) / 2).max() < 1e-12 and min(both) < 0 < max(both)


def test_a_tolerance_ends_a_phase_of_deviations(xp):
    """At the residual of delta, which is kept multiplied by the weights."""
    net = network(xp, "average", feedback=0.3)
    x, y = data(xp, net)
    phase = deviate(net, y, 0.1, at_rest(net, x), Phase(T, tolerance=1e-8))
    assert phase.converged and phase.residual <= 1e-8 < phase.history[-2][1] and phase.steps < T


@pytest.mark.parametrize("kind,activation", [("average", "hard-sigmoid"), ("dense", "clip"), ("max", "sigmoid")])
def test_complex_deviations_need_a_holomorphic_network(kind, activation):
    """As `relax` does, `deviate` refuses a complex nudge of what is clipped or max-pooled, also where the imaginary part is 0."""
    net = network(np, kind, activation)
    x, y = data(np, net)
    for beta in (0.1j, 0.1 + 0j, np.complex128(0.1j)):
        with pytest.raises(EPError, match="needs a holomorphic network"):
            deviate(net, y, beta, relax(net, x, 3), 3)


@pytest.mark.parametrize("beta", [np.float64(0.1), np.float32(0.1), 1], ids=["float64", "float32", "int"])
def test_any_number_is_a_nudge_and_promotes_nothing(xp, beta):
    """float32 deviations, also where beta is a NumPy number."""
    net = network(xp, "max", "hard-sigmoid", dtype="float32")
    x, y = data(xp, net, dtype="float32")
    assert {str(d.dtype) for d in deviate(net, y, beta, relax(net, x, 5), 3).states} == {"float32"}


# --- precision --------------------------------------------------------------------------------------------------------


def deep(xp, layers, beta, free, nudged, deviations=True):
    """(smallest cosine over all parameters of a float32 estimate with the exact gradient in float64, cosine of the first layer,
    the estimate) for a hard-sigmoid MLP at gamma = 0.02, initial scale 4."""
    options = dict(activation=ACTIVATIONS["hard-sigmoid"], scale=4.0, feedback=0.02)
    net, exact = (mlp([20, *[32] * layers, 5], dtype=dtype, **options).to(xp) for dtype in ("float32", "float64"))
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
