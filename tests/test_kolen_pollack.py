"""What Kolen-Pollack does in training: both directions get the same update, so that weight decay alone acts on W - B."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import ANGLE, SE, Case

from ep.backend import to_host
from ep.dynamics import Phases
from ep.eqprop import eqprop_gradient
from ep.nudging import Nudging
from ep.train.optimizers import SGD
from ep.vectorfield import alignment, kolen_pollack

EXAMPLES = Path(__file__).parents[1] / "examples"


def trained(xp, combine, weight_decay, epochs=2, steps=5, **annealing):
    """(angle, |W - B|) of layer 2 before and after training a network on three images, and the predicted factor between."""
    net, x, y = Case("max", "hard-sigmoid", SE, angle=ANGLE, scale=1.5).example(xp)
    optimizer, before = SGD(net, 0.1, weight_decay=weight_decay, **annealing), alignment(net.parameters())["2"]
    for epoch in range(epochs):
        for _ in range(steps):
            gradient = eqprop_gradient(net, x, y, Phases(30, 10, deviations=False), nudging=Nudging.symmetric(0.3),
                                       transposed=False).gradient
            assert abs(to_host(gradient["2.B"])).max() > 1e-5
            optimizer.step(combine(gradient), epoch)
    return before, alignment(net.parameters())["2"], optimizer.decay("2", epochs, steps)


@pytest.mark.parametrize("annealing", [{}, {"anneal_epochs": 2}], ids=["constant", "annealed"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_kolen_pollack_shrinks_the_difference_as_predicted(xp, weight_decay, annealing):
    """|W - B| is multiplied by what weight decay alone leaves of 1, whatever the gradients are; own updates do not do that."""
    (_, before), (_, after), predicted = trained(xp, kolen_pollack, weight_decay, **annealing)
    assert after / before == pytest.approx(predicted, rel=1e-11)
    assert predicted == 1 if weight_decay == 0 else predicted < 0.9
    (_, before), (_, after), _ = trained(xp, lambda gradient: gradient, weight_decay, **annealing)
    assert abs(after / before - predicted) > 1e-5


def test_kolen_pollack_aligns(xp):
    """With weight decay the angle between W and B falls from nearly 90 degrees to below 15."""
    (before, _), (after, _), predicted = trained(xp, kolen_pollack, 0.02, steps=50)
    assert before > 75 and after < 15 and predicted == pytest.approx(0.102, abs=1e-3)


def test_the_predicted_shrinking():
    """A constant rate: exp(-rate wd steps/(1 - momentum)), to the order of rate x wd; the paper's numbers after 1,250 steps."""
    net = Case("dense", cost=SE).network()
    assert SGD(net, 0.1, 0.9, 3e-4).decay("1", 1, 1250) == pytest.approx(np.exp(-0.1 * 3e-4 * 1250 / 0.1), rel=5e-3)
    annealed = SGD(net, 0.1, 0.9, 3e-3, anneal_epochs=10)
    sum_of_rates = sum(100 * annealed.rate("1", epoch) for epoch in range(10))
    assert annealed.decay("1", 10, 100) == pytest.approx(np.exp(-3e-3 * sum_of_rates / 0.1), rel=5e-2)


@pytest.mark.slow
def test_the_example_of_alignment(tmp_path, monkeypatch):
    """examples/asymmetric_alignment.py with one seed, two angles and fewer steps: its figure, its tables, its claim."""
    spec = importlib.util.spec_from_file_location("alignment_example", EXAMPLES / "asymmetric_alignment.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for name, value in dict(ANGLES=(90.0, 0.0), SEEDS=(0,), T=50, K=25).items():
        monkeypatch.setattr(example, name, value)
    monkeypatch.setattr(sys, "argv", ["asymmetric_alignment.py", "--out", str(tmp_path)])
    example.main()
    (random,), (aligned,) = json.loads((tmp_path / "asymmetric_alignment.json").read_text())["cosines"]
    assert min(min(random["exact"].values()), *(min(c.values()) for c in aligned.values())) > 0.99
    assert max(random["own"][name] for name in ("1.W", "2.W", "2.B", "3.B")) < 0.5
    assert (tmp_path / "asymmetric_alignment.png").read_bytes().startswith(b"\x89PNG")
    assert "| 2.W | Kolen-Pollack |" in (tmp_path / "asymmetric_alignment.md").read_text()
