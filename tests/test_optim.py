"""SGD is the rule of the paper: v <- 0.9 v + (g + wd w), w <- w - rate v, with a cosine-annealed rate per layer."""

import numpy as np
import pytest

from ep import SGD, EPError, mlp
from ep.backend import to_host


def test_two_steps_by_hand(xp):
    """Momentum, weight decay on weights and biases, one rate per layer."""
    network = mlp([2, 3, 2], dtype="float64").to(xp)
    w = {name: to_host(p).copy() for name, p in network.parameters().items()}
    optimizer = SGD(network, [0.1, 0.2], momentum=0.9, weight_decay=0.01)
    gradients = [{name: xp.full(p.shape, k) for name, p in w.items()} for k in (1.0, -2.0)]
    for g in gradients:
        optimizer.step(g)
    for name, p in w.items():
        rate = {"1": 0.1, "readout": 0.2}[name.split(".")[0]]
        v = 1.0 + 0.01 * p
        p1 = p - rate * v
        v = 0.9 * v + (-2.0 + 0.01 * p1)
        np.testing.assert_allclose(to_host(network.parameters()[name]), p1 - rate * v, rtol=1e-13)
        assert network.parameters()[name] is optimizer.parameters[name]


def test_cosine():
    """From the rate to the floor over anneal_epochs, halfway in the middle, held at the floor afterwards."""
    optimizer = SGD(mlp([2, 3, 2]), [0.25, 0.05], anneal_epochs=100, floor=1e-5)
    assert optimizer.rate("1", 0) == 0.25
    assert optimizer.rate("readout", 50) == pytest.approx((0.05 + 1e-5) / 2)
    assert optimizer.rate("1", 100) == optimizer.rate("1", 119) == 1e-5
    assert SGD(mlp([2, 3, 2]), 0.1).rate("1", 7) == 0.1


@pytest.mark.parametrize("rates", [[0.1, 0.1, 0.1], [0.1, -0.1], 0.0, float("nan"), float("inf")])
def test_refuses_rates(rates):
    with pytest.raises(EPError, match="learning rate"):
        SGD(mlp([2, 3, 2]), rates)


def test_steps_in_float32(xp):
    """Nothing of an update is promoted to float64."""
    network = mlp([2, 3, 2]).to(xp)
    optimizer = SGD(network, 0.1, weight_decay=3e-4, anneal_epochs=3)
    optimizer.step({name: xp.ones_like(p) for name, p in network.parameters().items()}, epoch=1)
    assert {p.dtype for p in (*network.parameters().values(), *optimizer.state().values())} == {np.dtype("float32")}
