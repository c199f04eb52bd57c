"""BPTT by hand against the derivative of the loss after T steps, where the states are *not* at a fixed point."""

import numpy as np
import pytest
from helpers import (
    COST_NAMES,
    NETWORKS,
    data,
    dot,
    loss,
    loss_slope,
    moved,
    network,
    normal,
    random_direction,
    random_states,
    relative,
    slope,
    sweep_from_a_random_state,
)

from ep import bptt, dynamics
from ep.backend import to_host
from ep.dynamics import Phase, Phases
from ep.errors import EPError

every_network = pytest.mark.parametrize("kind,activation", NETWORKS)
every_cost = pytest.mark.parametrize("cost", COST_NAMES)


@every_cost
@every_network
@pytest.mark.parametrize("steps_free,steps_back", [(4, 4), (6, 3), (3, 1)], ids=["from zero", "truncated", "one step"])
def test_bptt_is_the_derivative_of_the_unrolled_loss(xp, kind, activation, cost, steps_free, steps_back):
    """d/dtheta of C(s_T, y), where theta acts in the last K of T steps, along a random direction."""
    net = network(xp, kind, activation, cost, scale=1.5, seed=5)
    x, y = data(xp, net)
    direction = random_direction(net)
    start = dynamics.relax(net, x, steps_free - steps_back).states if steps_back < steps_free else None
    expected = loss_slope(net, x, y, steps_back, direction, start)
    result = bptt.bptt_gradient(net, x, y, Phases(steps_free, steps_back))
    assert result.free.residual > 1e-6 and abs(expected) > 1e-4
    assert dot(result.gradient, direction) == pytest.approx(expected, rel=1e-11)
    assert result.free.steps == steps_free and result.loss == pytest.approx(loss(net, x, y, steps_back, start), rel=1e-13)


@every_cost
@every_network
def test_the_sweep_from_a_random_state(xp, kind, activation, cost):
    """The same from a random state, where no zero hides which switches were used; larger weights move them at each step."""
    net = network(xp, kind, activation, cost, scale=1.5)
    x, y = data(xp, net)
    trajectory, found, expected = sweep_from_a_random_state(xp, net, x, y)
    if kind == "max":
        switches = [to_host(sw[1]) for _, _, sw in trajectory]
        assert all((a != b).any() for a, b in zip(switches, switches[1:]))
    assert abs(expected) > 1e-4
    assert found == pytest.approx(expected, rel=1e-11)


@every_network
def test_the_adjoints_are_transposes(xp, kind, activation):
    """D^T is symmetric, < v, D^T mu > = < mu, D^T v >, and equals differences of the drives at these switches."""
    net = network(xp, kind, activation)
    x, _ = data(xp, net)
    states, mu, v = random_states(xp, net), *([normal(xp, (3, *s), [seed, k]) for k, s in enumerate(net.shapes[1:])]
                                             for seed in (1, 2))
    switches = net.drives(x, states)[1]
    there, back = (dot(list(net.transposed_drives(a, switches).values()), b) for a, b in ((mu, v), (v, mu)))
    assert there == pytest.approx(back, rel=1e-12)
    assert slope(lambda t: dot(net.drives(x, moved(states, v, t))[0], mu)) == pytest.approx(there, rel=1e-9)


def test_bptt_increments_need_no_nudging_and_stay_at_the_fixed_point(xp):
    """The first mu is sigma'(u) dC/ds in the last layer and zero elsewhere."""
    net = network(xp, "average", "sigmoid", "squared-error")
    x, y = data(xp, net)
    states = random_states(xp, net)
    end = [net.activation.sigma(u) for u in net.drives(x, states)[0]]
    mu = bptt.bptt_increments(net, x, y, states, 1)[0][1]
    assert not any(to_host(m).any() for m in mu[:-1])
    assert relative(mu[-1], net.activation.dsigma(net.drives(x, states)[0][-1]) * (end[-1] - y)) < 1e-13


@pytest.mark.parametrize("free,nudged,match", [
    (Phase(4, "checkerboard"), 3, "synchronous"), (4, Phase(3, "down"), "synchronous"),
    (Phase(4, tolerance=1e-6), 3, "no tolerance"), (4, Phase(3, tolerance=1e-6), "no tolerance"),
    (4, 5, "1 to T = 4 steps: got K = 5")])
def test_what_bptt_cannot_do_is_refused(free, nudged, match):
    """Other schedules, a tolerance, more steps back than forward: one sentence each."""
    net = network(np)
    with pytest.raises(EPError, match=match):
        bptt.bptt_gradient(net, *data(np, net), Phases(free, nudged))
