"""The dynamics: its fixed points are the stationary points of E, its schedules agree, and relax says how it ended."""

import numpy as np
import pytest
from helpers import NETWORKS, T, data, flat, network, normal, random_states, relative, same_switches, slope

from ep.activations import ACTIVATIONS, CLIP
from ep.backend import to_host
from ep.builders import mlp
from ep.cost import SquaredError
from ep.dynamics import Phase, Phases, relax, residual
from ep.errors import EPError

every_network = pytest.mark.parametrize("kind,activation", NETWORKS)
bipartite = pytest.mark.parametrize("kind,activation", [(k, a) for k, a in NETWORKS if k != "max"])


def energy_slopes(net, x, states):
    """dE/ds of every unit, host arrays: differences of G (h = 1e-5: round-off 1e-11), minus the drives."""
    u = net.drives(x, states)[0]
    return [to_host(slope(lambda t, s=s: net.activation.G(s + t), 1e-5) - u_n) for s, u_n in zip(states, u)]


def largest_violation(net, x, states):
    """How far E is from stationary on the box: |dE/ds| inside; at a bound only slopes that lead back inside count."""
    low, high = net.activation.bounds
    worst = []
    for s, dE in zip(map(to_host, states), energy_slopes(net, x, states)):
        worst += [abs(dE[(s > low) & (s < high)]), -dE[s == low], dE[s == high]]
    return np.max(np.concatenate(worst))  # NaN if there is one


@every_network
def test_the_free_fixed_point_is_stationary_for_the_energy(xp, kind, activation):
    """dE/ds = 0 inside the box, >= 0 at the lower and <= 0 at the upper bound, exactly at s*."""
    net = network(xp, kind, activation, scale=0.9)
    x, _ = data(xp, net)
    free = relax(net, x, 5 * T)
    assert free.residual < 1e-14
    assert largest_violation(net, x, free.states) < 1e-9
    assert largest_violation(net, x, random_states(xp, net)) > 0.1


@pytest.mark.parametrize("kind", ["dense", "average", "max"])
def test_the_energy_itself_is_stationary_along_random_directions(xp, kind):
    """The same through Network.energy: its slope along random directions is 0 at s*."""
    net = network(xp, kind, "sigmoid")
    x, _ = data(xp, net)

    def energy_slope(states):
        d = [normal(xp, s.shape, [3, k]) for k, s in enumerate(states)]
        return slope(lambda t: to_host(net.energy(x, [s + t * v for s, v in zip(states, d)])).sum())

    assert abs(energy_slope(relax(net, x, T).states)) < 1e-8
    assert abs(energy_slope(random_states(xp, net))) > 0.1


def test_a_wrong_G_is_not_stationary(xp):
    """1/2 ||s||^2 with the paper's clip(u/2, 0, 1): |dE/ds| is of order 1 at an exact fixed point."""
    net = network(xp, "average", "hard-sigmoid", scale=2.0)
    x, _ = data(xp, net)
    states = relax(net, x, T).states
    assert largest_violation(net, x, states) < 1e-9
    net.activation = net.activation._replace(G=CLIP.G)
    assert largest_violation(net, x, states) > 0.1


@pytest.mark.parametrize("schedule", ["checkerboard", "up", "down"])
@bipartite
def test_steps_of_some_layers_at_a_time_never_raise_the_energy(xp, kind, activation, schedule):
    """A free checkerboard step minimises E over the odd, then over the even layers, a sweep over one layer after the other
    (average pooling, dense), at every feedback gain."""
    net = network(xp, kind, activation, scale=1.5)
    x, _ = data(xp, net)
    for net.feedback in (1.0, 0.3, 0.05):
        states = random_states(xp, net)
        energies = [to_host(net.energy(x, states))]
        for _ in range(12):
            states = relax(net, x, Phase(1, schedule), start=states).states
            energies.append(to_host(net.energy(x, states)))
        changes = np.diff(energies, axis=0)
        assert changes.max() < 1e-13 * abs(energies[0]).max()  # round-off of a sum of about a hundred terms
        assert (changes[0] < -0.1).all()


@bipartite
def test_a_checkerboard_step_is_two_synchronous_half_steps(xp, kind, activation):
    """From any start, k checkerboard steps give the odd layers of 2k-1 synchronous steps and the even ones of 2k."""
    net = network(xp, kind, activation, scale=1.5)
    x, _ = data(xp, net)
    start = random_states(xp, net)
    for k in (1, 2, 5):
        board = relax(net, x, Phase(k, "checkerboard"), start=start).states
        odd, even = (relax(net, x, t, start=start).states for t in (2 * k - 1, 2 * k))
        assert relative(board[0::2], odd[0::2]) == 0  # the same numbers in the same order: bit for bit
        assert relative(board[1::2], even[1::2]) == 0
        assert relative(board[0::2], even[0::2]) > 0  # not because everything has converged


@bipartite
def test_both_schedules_reach_the_same_fixed_point(xp, kind, activation):
    """In a contractive regime, from different starts, nudged or not."""
    net = network(xp, kind, activation)
    x, y = data(xp, net)
    for beta in (0.0, 0.2, -0.2):
        one = relax(net, x, 2 * T, y, beta, start=random_states(xp, net))
        other = relax(net, x, Phase(T, "checkerboard"), y, beta)
        assert relative(one.states, other.states) < 1e-12


def test_synchronous_steps_may_alternate_for_ever(xp):
    """Where E has several minima: from one start, synchronous steps end in a cycle of two states, checkerboard steps settle."""
    net = mlp([6, 8, 8, 5, 3], ACTIVATIONS["sigmoid"], SquaredError, scale=5.0, seed=4, dtype="float64").to(xp)
    x, _ = data(xp, net, n=4)
    both = relax(net, x, 500)
    after_two = relax(net, x, 2, start=both.states)
    assert both.residual > 0.5 and residual(after_two.states, both.states) < 1e-12
    board = relax(net, x, Phase(500, "checkerboard"))
    assert board.residual < 1e-10
    assert relax(net, x, 1, start=board.states).residual < 1e-10  # a fixed point of synchronous steps too


@every_network
def test_a_step_is_sigma_of_the_drives(xp, kind, activation):
    """Equation (1): s_n <- sigma(dPhi/ds_n - beta dC/ds_n), all layers from the old values, the cost only in the last."""
    net = network(xp, kind, activation)
    x, y = data(xp, net)
    states = random_states(xp, net)
    u = net.drives(x, states)[0]
    u[-1] = u[-1] + 0.3 * net.cost.force(states[-1], y)
    after = relax(net, x, 1, y, 0.3, start=states)
    assert relative(after.states, [net.activation.sigma(v) for v in u]) < 1e-14
    assert same_switches(after.switches, net.drives(x, after.states)[1])
    change = max(abs(to_host(a) - to_host(b)).max() for a, b in zip(after.states, states))
    assert after.residual == pytest.approx(change, rel=1e-14)


def test_relax_leaves_its_start_alone(xp):
    """The arrays and the list of `start`, and given switches, are unchanged."""
    net = network(xp, "max")
    x, _ = data(xp, net)
    start, copies = random_states(xp, net), random_states(xp, net)
    switches = net.drives(x, start)[1]
    kept = list(switches)
    relax(net, x, 3, start=start, switches=switches)
    assert relative(start, copies) == 0 and all(a is b for a, b in zip(switches, kept))


# --- how a relaxation ends --------------------------------------------------------------------------------------------


def test_a_fixed_number_of_steps(xp):
    """Without a tolerance all steps are made, the residual is looked at once, and only 0 counts as converged."""
    net = network(xp)
    x, _ = data(xp, net)
    r = relax(net, x, 7)
    assert (r.steps, r.history, r.converged) == (7, [(7, r.residual)], False) and r.residual > 0
    net.set_parameters({name: 0.0 * w for name, w in net.parameters().items()})  # rests exactly, on every processor
    still = relax(net, x, 5, start=relax(net, x, 3).states)
    assert (still.steps, still.residual, still.converged) == (5, 0.0, True)


def test_the_tolerance_stops_at_the_first_small_residual(xp):
    """Up to T steps, fewer once the residual is at most the tolerance; the history has every step."""
    net = network(xp)
    x, _ = data(xp, net)
    r = relax(net, x, Phase(T, tolerance=1e-6))
    assert r.converged and r.residual <= 1e-6 < r.history[-2][1]
    assert [t for t, _ in r.history] == list(range(1, r.steps + 1)) and r.steps < T
    assert relative(r.states, relax(net, x, r.steps).states) == 0


def test_a_missed_tolerance_is_said(xp):
    """Too few steps: converged is False."""
    net = network(xp)
    r = relax(net, data(xp, net)[0], Phase(3, tolerance=1e-9))
    assert (r.steps, r.converged) == (3, False) and r.residual > 1e-9


def test_the_residual_is_computed_only_every_so_many_steps(xp):
    """check_every: the steps at its multiples, and the last; it decides where a tolerance can stop."""
    net = network(xp)
    x, _ = data(xp, net)
    assert [t for t, _ in relax(net, x, Phase(7, check_every=3)).history] == [3, 6, 7]
    every, fifth = relax(net, x, Phase(T, tolerance=1e-6)), relax(net, x, Phase(T, tolerance=1e-6, check_every=5))
    assert fifth.steps == -(-every.steps // 5) * 5 and fifth.converged


def test_frozen_switches_are_kept_throughout(xp):
    """Given switches rule every drive and come back; at those of the fixed point, they change nothing."""
    net = network(xp, "max", "sigmoid")
    x, _ = data(xp, net)
    free = relax(net, x, T)
    again = relax(net, x, 3, start=free.states, switches=free.switches)
    assert relative(again.states, free.states) < 1e-14
    foreign = [None if sw is None else (sw + 1) % 4 for sw in free.switches]
    foreign[0] = free.switches[0]  # those into layer 1 are fixed by the input
    held = relax(net, x, T, start=free.states, switches=foreign)
    assert same_switches(held.switches, foreign) and relative(held.states, free.states) > 1e-3
    u = net.synapses[1].linear_post(held.states[0], foreign[1]) + net.synapses[1].b
    assert relative(held.states[1], net.activation.sigma(u)) < 1e-12


@pytest.mark.parametrize("kind,activation", [("average", "sigmoid"), ("dense", "tanh")])
def test_complex_nudging_is_analytic(xp, kind, activation):
    """s^(i b) for tiny b is s* + i b ds/dbeta: the complex step through the dynamics."""
    net = network(xp, kind, activation)
    x, y = data(xp, net)
    start = relax(net, x, T).states
    nudged = relax(net, x, T, y, 1e-20j, start=start).states
    real = slope(lambda b: flat(relax(net, x, T, y, b, start=start).states), 1e-3)
    assert relative([s.imag / 1e-20 for s in nudged], real) < 1e-10
    assert relative([s.real for s in nudged], start) < 1e-15


@pytest.mark.parametrize("kind,activation", [("average", "hard-sigmoid"), ("dense", "clip"), ("max", "sigmoid")])
def test_complex_nudging_needs_a_holomorphic_network(kind, activation):
    """Clipping and max-pooling refuse complex nudging in one sentence, also when the imaginary part is 0."""
    net = network(np, kind, activation)
    x, y = data(np, net)
    for beta in (0.1j, 0.1 + 0j):
        with pytest.raises(EPError, match="needs a holomorphic network"):
            relax(net, x, 3, y, beta)


@pytest.mark.parametrize("options,match", [
    (dict(steps=3, schedule="random"), "unknown schedule 'random': expected one of synchronous, checkerboard, up, down"),
    (dict(steps=0), "steps: .* got 0"), (dict(steps=1, tolerance=-1.0), "tolerance: .* got -1"),
    (dict(steps=1, tolerance=float("nan")), "tolerance: .* got nan"), (dict(steps=3, check_every=0), "check_every: .* got 0")])
def test_phases_that_make_no_sense_are_refused(options, match):
    """Each is one sentence, and it does not take a network to see it."""
    with pytest.raises(EPError, match=match):
        Phase(**options)


def test_a_number_of_steps_is_a_phase():
    """For both phases of a gradient; the nudged ones are deviations unless the difference of two states is asked for."""
    phases = Phases(7, Phase(3, "down"))
    assert phases == Phases(Phase(7, "synchronous", 0.0, None), Phase(3, "down"), deviations=True)
    for free, nudged in ((0, 3), (3, 0)):
        with pytest.raises(EPError, match="steps: .* got 0"):
            Phases(free, nudged)


def test_nudging_needs_targets():
    """One per input."""
    net = network(np)
    x, y = data(np, net)
    for targets, sentence in ((None, "needs the targets y"), (y[:2], "got 2 for 3")):
        with pytest.raises(EPError, match=sentence):
            relax(net, x, 3, targets, 0.1)
