"""Recurrent backpropagation: equal to BPTT and to the derivative of the loss at convergence, symmetric or not."""

import numpy as np
import pytest
from helpers import CONVERGED, COST_NAMES, NETWORKS, K, T, data, dot, loss_slope, network, random_direction, relative
from test_network import skip_network

from ep.backend import to_host
from ep.bptt import bptt_gradient, bptt_increments
from ep.dynamics import Phase, Phases, relax
from ep.errors import EPError
from ep.rbp import rbp_gradient
from ep.vectorfield import asymmetric


def check(xp, net):
    """Every parameter has a gradient, the same as BPTT's; along a random direction, the derivative of C(s*, y)."""
    x, y = data(xp, net)
    found, direction = rbp_gradient(net, x, y, CONVERGED), random_direction(net)
    assert found.free.residual < 1e-14
    assert all(abs(to_host(g)).max() > 1e-5 for g in found.gradient.values())
    assert relative(found.gradient, bptt_gradient(net, x, y, Phases(2 * T, T)).gradient) < 1e-11
    assert dot(found.gradient, direction) == pytest.approx(loss_slope(net, x, y, T, direction), rel=1e-10)
    assert not found.nudged


@pytest.mark.parametrize("cost", COST_NAMES)
@pytest.mark.parametrize("kind,activation", NETWORKS)
def test_rbp_is_the_gradient_of_the_loss(xp, kind, activation, cost):
    """Symmetric networks of every kind."""
    check(xp, network(xp, kind, activation, cost))


@pytest.mark.parametrize("kind,activation", [("dense", "tanh"), ("average", "sigmoid"), ("max", "sigmoid")])
def test_rbp_goes_through_the_transposed_jacobian(xp, kind, activation):
    """Asymmetric networks, with feedback unrelated to the forward weights: there D^T is not D."""
    check(xp, asymmetric(network(xp, kind, activation)))


def test_rbp_needs_no_chain(xp):
    """A skip connection is only wiring."""
    check(xp, skip_network(xp))


@pytest.mark.parametrize("cost", COST_NAMES)
def test_few_steps_are_truncated_bptt(xp, cost):
    """K steps of mu = the sum of BPTT's increments over K steps at the fixed point, long before either has converged."""
    net = network(xp, "max", "sigmoid", cost)
    x, y = data(xp, net)
    states = relax(net, x, T).states
    parts = bptt_increments(net, x, y, states, 4)
    found = rbp_gradient(net, x, y, Phases(T, 4)).gradient
    assert relative({name: found[name] for name in parts[0][0]},
                    {name: sum(g[name] for g, _ in parts) for name in parts[0][0]}) < 1e-12
    assert relative(found, rbp_gradient(net, x, y, CONVERGED).gradient) > 1e-4


@pytest.mark.parametrize("free,nudged", [("checkerboard", "checkerboard"), ("up", "down")])
def test_a_tolerance_ends_both_relaxations(xp, free, nudged):
    """Fewer free steps with other schedules and a tolerance, and the same gradient to about that tolerance."""
    net = network(xp, "average")
    x, y = data(xp, net)
    found = rbp_gradient(net, x, y, Phases(Phase(T, free, 1e-10), Phase(K, nudged, 1e-10)))
    assert found.free.steps < T / 2
    assert 1e-14 < relative(found.gradient, rbp_gradient(net, x, y, CONVERGED).gradient) < 1e-7


def test_no_step_is_refused():
    """K = 0 would be a gradient of 0."""
    net = network(np)
    with pytest.raises(EPError, match="steps: .* got 0"):
        rbp_gradient(net, *data(np, net), Phases(5, 0))
