"""Costs: the force is -dC/ds, their own gradient is dC/dtheta, and softmax neither overflows nor conjugates."""

import numpy as np
import pytest
from cases import complex_step, dot, slope, total
from helpers import normal, relative

from ep.backend import to_host
from ep.cost import SoftmaxCrossEntropy, SquaredError

COSTS = {"squared error": (5,), "cross-entropy": (6,), "cross-entropy of an image": (2, 1, 3)}  # shape of s
every_cost = pytest.mark.parametrize("name", COSTS)


def case(xp, name, dW=0.0, db=0.0):
    """(cost, s, y): 4 examples, 5 classes; the targets are probabilities, not all one-hot."""
    s = normal(xp, (4, *COSTS[name]), 0)
    y = np.eye(5)[[0, 2, 4, 2]]
    y[3] = 0.2
    cost = SoftmaxCrossEntropy(normal(xp, (6, 5), 1) + dW, normal(xp, (5,), 2) + db) if "entropy" in name else SquaredError()
    return cost, s, xp.asarray(y)


@every_cost
def test_the_force_is_minus_the_derivative_of_the_cost(xp, name):
    """force = -dC/ds along a random direction, by finite differences and by the complex step (complex states)."""
    cost, s, y = case(xp, name)
    d = normal(xp, s.shape, 3)
    force = cost.force(s, y)
    assert force.shape == s.shape
    assert -slope(lambda t: total(cost.value(s + t * d, y))) == pytest.approx(dot(force, d), rel=1e-9)
    assert -complex_step(lambda t: total(cost.value(s + t * d, y))) == pytest.approx(dot(force, d), rel=1e-13)


@every_cost
def test_the_force_is_holomorphic(xp, name):
    """The derivative of the force is symmetric, < d, dF e > = < e, dF d >, by the complex step: no conjugation in it."""
    cost, s, y = case(xp, name)
    d, e = normal(xp, s.shape, 3), normal(xp, s.shape, 4)
    there, back = (complex_step(lambda t, a=a, b=b: dot(cost.force(s + t * a, y), b)) for a, b in ((d, e), (e, d)))
    assert there == pytest.approx(back, rel=1e-12)
    assert there == pytest.approx(slope(lambda t: dot(cost.force(s + t * d, y), e)), rel=1e-9)


@every_cost
def test_a_readouts_own_gradient(xp, name):
    """gradient = dC/d(W, b), summed over the batch."""
    cost, s, y = case(xp, name)
    gradient = cost.gradient(s, y)
    assert gradient.keys() == cost.parameters().keys()
    for parameter, g in gradient.items():
        d = normal(xp, g.shape, 3)
        by_theta = slope(lambda t, d=d, p=parameter: total(case(xp, name, **{f"d{p}": t * d})[0].value(s, y)))
        assert by_theta == pytest.approx(dot(g, d), rel=1e-9)


def test_squared_error_has_no_parameters(xp):
    """Its output layer is part of the system; its value is 1/2 ||s - y||^2 and its output s."""
    cost, s, y = case(xp, "squared error")
    assert cost.parameters() == cost.gradient(s, y) == {} and cost.output(s) is s
    assert relative(cost.value(s, y), 0.5 * np.sum((to_host(s) - to_host(y)) ** 2, axis=1)) < 1e-14


def test_cross_entropy_is_its_definition(xp):
    """C = - sum_i y_i log o_i with o = softmax(W^T s + b), rows that sum to 1."""
    cost, s, y = case(xp, "cross-entropy")
    o = to_host(cost.output(s))
    z = to_host(s) @ to_host(cost.W) + to_host(cost.b)
    assert relative(o, np.exp(z) / np.exp(z).sum(1, keepdims=True)) < 1e-14
    assert relative(cost.value(s, y), -np.sum(to_host(y) * np.log(o), axis=1)) < 1e-13


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_large_logits_do_not_overflow(xp, dtype):
    """Logits of +-2000: the cost is their difference, and everything stays finite."""
    cost = SoftmaxCrossEntropy(xp.asarray([[2000.0, -2000.0]], dtype=dtype), xp.zeros(2, dtype=dtype))
    s, y = xp.ones((1, 1), dtype=dtype), xp.asarray([[0.0, 1.0]], dtype=dtype)
    assert to_host(cost.value(s, y)).real.item() == pytest.approx(4000, rel=1e-6)
    assert np.array_equal(to_host(cost.output(s)), [[1, 0]])
    assert np.array_equal(to_host(cost.force(s, y)), [[-4000]])
    assert str(cost.force(s, y).dtype) == dtype
