"""PyTorch's autograd as an oracle: it differentiates Phi itself. Skipped where PyTorch is not installed."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import relative

import ep
from ep import engine, eqprop
from ep.builders import calibrate

torch = pytest.importorskip("torch", reason="PyTorch is not installed (it is only ever a test oracle)")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "laboratory"))
from backpropagation import backpropagated  # noqa: E402
from pytorch_twin import FeedForward, Twin, inside, outside  # noqa: E402

NUDGING = ep.Nudging.symmetric(0.5)


def close(found, expected, bound):
    return abs(found - expected).max() <= bound * max(abs(expected).max(), 1e-300)


@pytest.mark.parametrize("schedule", ["synchronous", "checkerboard", "down"])
@pytest.mark.parametrize("cost", [ep.SoftmaxCrossEntropy, ep.SquaredError])
def test_a_small_network_step_by_step_in_float64(schedule, cost):
    """States after every phase and every gradient agree to rounding, with a last layer larger than 1x1, at two gains."""
    network = ep.convnet([4, 5], (12, 12, 2), 3, cost=cost, scale=1.5, dtype="float64", paddings=[1, 1])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 12, 12, 2)), np.array([0, 1, 2, 0])
    phases = ep.Phases(ep.Phase(9, schedule), ep.Phase(5, schedule), deviations=False)
    for network.feedback in (1.0, 0.3):
        found, free, nudged = Twin(network).gradient(x, y, 9, 5, nudging=NUDGING, schedule=schedule)
        expected = ep.eqprop_gradient(network, x, y, phases, nudging=NUDGING)
        assert all(close(a, b, 1e-12) for a, b in zip(free, expected.free.states))
        for states, phase in zip(nudged, expected.nudged):
            assert all(close(a, b, 1e-12) for a, b in zip(states, phase.states))
        for name, g in expected.gradient.items():
            assert abs(g).max() > 0 and close(found[name], g, 1e-10), name


@pytest.mark.parametrize("prepared", [lambda network: network, engine.prepared], ids=["core", "engine"])
def test_without_feedback_it_is_backpropagation(prepared):
    """gamma = 0, one sweep up and one down: the gradient of PyTorch's feed-forward network, to O(beta^2)."""
    network = ep.convnet([4, 5, 6], (24, 24, 2), 3, scale=4.0, dtype="float64", feedback=0.0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 24, 24, 2)), np.array([0, 1, 2, 0])
    twin = FeedForward(network)
    twin.loss(inside(x), torch.tensor(network.targets(y, x.dtype))).backward()
    phases = ep.Phases(ep.Phase(1, "up"), ep.Phase(1, "down"), deviations=True)
    found = ep.eqprop_gradient(prepared(network), x, y, phases, nudging=ep.Nudging.symmetric(1e-3))
    for name, w in twin.theta.items():
        assert abs(found.gradient[name]).max() > 0 and close(found.gradient[name], outside(w.grad), 1e-5), name


@pytest.mark.parametrize("activation", ["relu6", "hard-sigmoid"])
def test_without_feedback_a_residual_network_is_backpropagation(activation):
    """What backpropagation.py trains by, strides and identities included: the same gradient at gamma = 0."""
    network = ep.resnet(6, (3, 4, 5), (16, 16, 3), activation=activation, feedback=0.0, dtype="float64")
    x, y = np.random.default_rng(0).normal(size=(8, 16, 16, 3)), np.arange(8) % 10
    calibrate(network, x, 1.0, 0.3)
    phases = ep.Phases(ep.Phase(1, "up"), ep.Phase(1, "down"), deviations=True)
    found = ep.eqprop_gradient(network, x, y, phases, nudging=ep.Nudging.symmetric(1e-5)).gradient
    expected = backpropagated(network, x, y, None).gradient
    assert found.keys() == expected.keys()
    for name, g in expected.items():
        assert abs(g).max() > 0 and relative(found[name], g) < 1e-6, name


def test_the_papers_network(monkeypatch):
    """One gradient of the whole network, float64, few steps: by autograd, on the synapses of the core and on the engine's.

    From random states: from zero, layers 2 to 4 are constant images after one step, and whose window's corner wins is up
    to rounding.
    """
    network = ep.convnet(dtype="float64")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 32, 32, 3)), np.array([3, 8])
    start = [rng.random((2, *shape)) for shape in network.shapes[1:]]
    found, free, _ = Twin(network).gradient(x, y, 3, 5, nudging=NUDGING, start=start)
    monkeypatch.setattr(eqprop, "relax", lambda *arguments, **options: ep.relax(*arguments, **{"start": start} | options))
    for ours in (network, engine.prepared(network)):
        expected = ep.eqprop_gradient(ours, x, y, ep.Phases(3, 5, deviations=False), nudging=NUDGING)
        assert all(close(a, b, 1e-12) for a, b in zip(free, expected.free.states))
        for name, g in expected.gradient.items():
            assert abs(g).max() > 0 and close(found[name], g, 1e-8), name
