"""Activations are triples: sigma' is the derivative of sigma, and G' its inverse."""

import numpy as np
import pytest
from helpers import complex_step, slope

from ep.activations import ACTIVATIONS, CLIP, HARD_SIGMOID, SIGMOID, TANH
from ep.backend import to_host
from ep.errors import EPError

every_activation = pytest.mark.parametrize("name", sorted(ACTIVATIONS))
U = np.linspace(-2.983, 3.017, 41)  # no kink (0, 1, 2) closer than 0.01


@every_activation
def test_dsigma_is_the_derivative_of_sigma(xp, name):
    """By finite differences, and exactly by the complex step where sigma is holomorphic."""
    a, u = ACTIVATIONS[name], xp.asarray(U)
    d = to_host(a.dsigma(u))
    assert np.allclose(d, to_host(slope(lambda t: a.sigma(u + t))), rtol=1e-9, atol=1e-10)
    if a.holomorphic:
        assert np.allclose(d, to_host(complex_step(lambda t: a.sigma(u + t))), rtol=1e-13, atol=1e-15)
    assert d.max() > 0.4


@every_activation
def test_G_is_the_integral_of_the_inverse(xp, name):
    """G'(sigma(u)) = u wherever sigma is not saturated, by finite differences of G."""
    a = ACTIVATIONS[name]
    low, high = a.bounds
    s = to_host(a.sigma(xp.asarray(U)))
    inside = (s > low + 0.01) & (s < high - 0.01)
    s = xp.asarray(s[inside])
    assert len(s) > 5
    assert np.allclose(to_host(slope(lambda t: a.G(s + t), 1e-5)), U[inside], rtol=1e-9, atol=1e-9)


@every_activation
def test_G_is_finite_at_the_bounds(xp, name):
    """0 log 0 = 0: a saturated unit has a finite energy, the limit from inside."""
    a = ACTIVATIONS[name]
    low, high = a.bounds
    at, near = (to_host(a.G(xp.asarray([low + e, high - e]))) for e in (0.0, 1e-9))
    assert np.isfinite(at).all() and np.allclose(at, near, atol=1e-7)


@every_activation
def test_sigma_stays_in_its_bounds(xp, name):
    """Also for arguments that would overflow exp."""
    a = ACTIVATIONS[name]
    s = to_host(a.sigma(xp.asarray([-1e4, -1.0, 0.5, 1e4])))
    assert (s[0], s[3]) == a.bounds and (np.diff(s) >= 0).all()


def test_the_four_activations(xp):
    """clip(u/2, 0, 1), clip(u, 0, 1), 1/(1 + exp(2 - 4u)), tanh(u): their values, and kinks that count as saturated."""
    u = xp.asarray(U)
    for a, expected in ((HARD_SIGMOID, np.clip(U / 2, 0, 1)), (CLIP, np.clip(U, 0, 1)),
                        (SIGMOID, 1 / (1 + np.exp(2 - 4 * U))), (TANH, np.tanh(U))):
        assert np.allclose(to_host(a.sigma(u)), expected, rtol=1e-13, atol=1e-15)
    kinks = xp.asarray([0.0, 2.0])
    assert not to_host(HARD_SIGMOID.dsigma(kinks)).any() and not to_host(CLIP.dsigma(kinks * 0.5)).any()


@every_activation
def test_precision_is_kept(xp, name):
    """float32 in, float32 out, for all three."""
    a, s = ACTIVATIONS[name], xp.asarray([0.25, 0.5], dtype="float32")
    assert {str(f(s).dtype) for f in (a.sigma, a.dsigma, a.G)} == {"float32"}


@pytest.mark.parametrize("a", [HARD_SIGMOID, CLIP], ids=lambda a: a.name)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_clipping_refuses_complex_numbers(xp, a, dtype):
    """NumPy's clip compares real parts and quietly returns nonsense."""
    assert not a.holomorphic
    with pytest.raises(EPError, match="not complex-differentiable"):
        a.sigma(xp.asarray([0.5], dtype=dtype))
