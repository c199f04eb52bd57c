"""A nudging is a differentiation formula: its moments, its order, and how it differentiates functions of one number."""

import cmath
import math

import numpy as np
import pytest
from cases import fitted_slope

from ep.errors import EPError
from ep.nudging import Nudging

FORMULAS = {  # name: (constructor, order, number of phases)
    "one-sided": (Nudging.one_sided, 1, 2),
    "symmetric": (Nudging.symmetric, 2, 2),
    "four-point": (Nudging.four_point, 4, 4),
    "three points": (lambda b: Nudging.from_points([-b, 0.5 * b, b]), 2, 3),
    **{f"holomorphic {n}": (lambda b, n=n: Nudging.holomorphic(b, n), n, n // 2 + 1) for n in (2, 3, 4, 5, 6, 8)},
    **{f"shifted {n}": (lambda b, n=n: Nudging.holomorphic(b, n, shifted=True), n, n // 2) for n in (2, 4, 6)},
}
every_formula = pytest.mark.parametrize("name", FORMULAS)
FUNCTIONS = {"exp": (cmath.exp, 1.0), "rational": (lambda z: (1 + z) / (3 - z), 4 / 9)}  # f, f'(0)


def derivative(nudging, f):
    total = sum(c * f(b) for b, c in zip(nudging.points, nudging.weights))
    return total.real if nudging.take_real else total


@every_formula
@pytest.mark.parametrize("beta", [0.3, 1.0, -0.5])
def test_moments_and_order(name, beta):
    """sum_k c_k beta_k^m = [m == 1] up to m = order, and not at m = order + 1; beta is the largest |beta_k| of every formula."""
    make, order, phases = FORMULAS[name]
    nudging = make(beta)
    for m in range(order + 1):
        assert abs(nudging.moment(m) - (m == 1)) < 1e-13 * max(1, abs(beta) ** (m - 1))
    assert abs(nudging.moment(order + 1)) > 1e-3 * abs(beta) ** order
    assert nudging.order == order and len(nudging.points) == phases
    assert max(map(abs, nudging.points)) == pytest.approx(abs(beta), rel=1e-15)
    assert any(isinstance(b, complex) for b in nudging.points) == nudging.take_real == (name.startswith(("holo", "shifted")))


@every_formula
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_error_falls_as_beta_to_the_order(name, function):
    """Differentiating a known function at 0, at two strengths."""
    (make, order, _), (f, exact) = FORMULAS[name], FUNCTIONS[function]
    betas = (0.2, 0.1)
    errors = [abs(derivative(make(b), f) - exact) for b in betas]
    assert fitted_slope(errors, betas) == pytest.approx(order, abs=0.25)  # the next term of the series, at beta = 0.2


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_half_circle_is_the_full_circle(n, shifted, function):
    """Phases with Im >= 0 only, the others by conjugate symmetry, give Cauchy's sum over the full circle."""
    f, b = FUNCTIONS[function][0], 0.5
    turns = [cmath.exp(1j * math.pi * (2 * k + shifted) / n) for k in range(n)]
    full = sum(f(b * z) / (n * b * z) for z in turns)
    assert derivative(Nudging.holomorphic(b, n, shifted), f) == pytest.approx(full.real, rel=1e-13)
    assert abs(full.imag) < 1e-14


def test_points_on_the_axes_are_exact():
    """holomorphic(b, 2, shifted) is the single point i b, the complex step; exp(i pi) = -1 without an imaginary part of 1e-16."""
    nudging = Nudging.holomorphic(0.1, 2, shifted=True)
    assert nudging.points == (0.1j,)
    assert derivative(nudging, cmath.exp) == pytest.approx(cmath.exp(0.1j).imag / 0.1, rel=1e-15)
    assert [p.imag for p in Nudging.holomorphic(0.1, 4).points] == [0.0, 0.1, 0.0]


def test_formulas_from_points():
    """from_points on the points of the symmetric and the 4-point formula has their weights."""
    for make in (Nudging.one_sided, Nudging.symmetric, Nudging.four_point):
        nudging = make(0.3)
        assert np.allclose(Nudging.from_points(nudging.points).weights, nudging.weights, rtol=1e-13, atol=0)


def test_random_sign_is_one_sided_with_either_sign():
    """Drawn from the given generator: reproducible, and about half each (500 draws: 5 sigma are 56)."""
    rng, again = np.random.default_rng(1), np.random.default_rng(1)
    drawn = [Nudging.random_sign(0.2, rng) for _ in range(500)]
    assert all(n in (Nudging.one_sided(0.2), Nudging.one_sided(-0.2)) for n in drawn)
    assert abs(sum(n.points[1] > 0 for n in drawn) - 250) < 56
    assert drawn == [Nudging.random_sign(0.2, again) for _ in range(500)]


@pytest.mark.parametrize("make,match", [
    *[(lambda b=b, f=f: f(b), "finite number other than 0") for b in (0, 0.0, math.nan, math.inf, 1j)
      for f in (Nudging.one_sided, Nudging.symmetric, Nudging.four_point, lambda b: Nudging.holomorphic(b, 4))],
    (lambda: Nudging.random_sign(0, np.random.default_rng(0)), "finite number other than 0"),
    (lambda: Nudging.holomorphic(0.1, 1), "points .* at least 2, got 1"),
    (lambda: Nudging.from_points([0.1]), "at least two different"), (lambda: Nudging.from_points([0.1, 0.1]), "different"),
    (lambda: Nudging.from_points([0.1, 0.2, 1j]), "different real numbers"),
    (lambda: Nudging((0.1,), (1.0, 2.0)), "one weight per point"), (lambda: Nudging((), ()), "one weight per point"),
    (lambda: Nudging([0.1, [0.2]], (1.0, 1.0)), "expected real or complex numbers"), (lambda: Nudging(3, (1.0,)), "got 3"),
    (lambda: Nudging((0.0,), (1.0,)), "not all zero"), (lambda: Nudging((0.1, math.inf), (-1.0, 1.0)), "finite"),
    (lambda: Nudging((-0.1, 0.1), (-10.0, 10.0)), r"beta_k\^1 is 2.* expected 1"),
    (lambda: Nudging((0.1,), (10.0,)), r"beta_k\^0 is 10.* expected 0")])
def test_what_is_no_formula_is_refused(make, match):
    """Wrong strengths, and points and weights that do not differentiate, are one sentence."""
    with pytest.raises(EPError, match=match):
        make()
