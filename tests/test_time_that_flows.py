"""Continuous time: examples/16_time_that_flows.py ends where `relax` does, and a slow oscillation of beta reads the gradient."""

import importlib.util

import numpy as np
import pytest
from helpers import EXAMPLES

import ep
from ep import Phase, Phases

SPEC = importlib.util.spec_from_file_location("time_that_flows", EXAMPLES / "16_time_that_flows.py")
flowing = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(flowing)

X, Y = np.random.default_rng(0).random((3, 8)), np.array([0, 2, 1])


@pytest.mark.parametrize("beta", [0.0, 0.2, -0.2])
@pytest.mark.parametrize("sigma", ["tanh", "sigmoid", "hard-sigmoid"])
def test_it_ends_where_relax_does(monkeypatch, sigma, beta):
    """Free and nudged; units at a bound, too."""
    monkeypatch.setattr(flowing, "AT_REST", 1e-8)
    network = ep.mlp([8, 12, 10, 3], sigma, ep.SquaredError, seed=3, scale=1.5, dtype="float64")
    relaxed = ep.relax(network, X, Phase(2000, "checkerboard", 1e-12), Y, beta)
    _, path = flowing.flow(network, X, network.init_state(X), (0.0, 1e4), network.targets(Y), lambda t: beta, until_rest=True)
    assert relaxed.converged and ep.residual(flowing.states(network, path[-1]), relaxed.states) < 1e-6
    assert sigma != "hard-sigmoid" or any((s == 0).any() for s in relaxed.states)


def test_the_energy_falls_where_synchronous_steps_alternate_for_ever():
    network = ep.mlp([6, 8, 8, 5, 3], "sigmoid", ep.SquaredError, scale=5.0, seed=4, dtype="float64")
    x = np.random.default_rng([0, 17]).random((4, 6))
    assert ep.relax(network, x, 500).residual > 0.5
    _, s, rise = flowing.settle(network, x)
    assert rise < 1e-10 and ep.relax(network, x, 1, start=s).residual < 1e-5


def test_the_slowest_mode_is_one_over_one_minus_the_radius():
    """Distance to the fixed point: by exp(-1) in every tau, late enough."""
    x = X[:1]
    network = flowing.small_network(0.8, x)
    exact = ep.relax(network, x, flowing.REST)
    tau = 1 / (1 - ep.spectral_radius(network, x, exact, 300)[0])
    _, path = flowing.flow(network, x, network.init_state(x), tau * np.array([0.0, 6.0, 7.0, 8.0]))
    distances = [max(abs(a - b).max() for a, b in zip(flowing.states(network, v), exact.states)) for v in path[1:]]
    assert np.log(distances[0] / distances[1]) == pytest.approx(1, abs=0.01)
    assert np.log(distances[1] / distances[2]) == pytest.approx(1, abs=0.01)


def test_a_slow_swing_of_beta_reads_the_gradient():
    """The error is of order b^2 where the swing is slow; a fast one is no gradient."""
    x, y = X[:1], Y[1:2]
    network = flowing.small_network(0.5, x)
    exact = ep.rbp_gradient(network, x, y, Phases(flowing.REST, flowing.REST)).gradient
    slow = [flowing.compared(flowing.swung_gradient(network, x, y, 800.0, b), exact) for b in (0.2, 0.1)]
    assert slow[1][0] > 0.9999 and slow[0][1] / slow[1][1] == pytest.approx(4, abs=0.5)
    fast = [flowing.compared(flowing.swung_gradient(network, x, y, period, 0.02), exact)[1] for period in (4.0, 40.0, 400.0)]
    assert fast[0] > 0.3 and fast[0] > 4 * fast[1] > 16 * fast[2]
