"""Activations: sigma' is the derivative of sigma, G' its inverse, and the difference of sigma has no digits to lose."""

import numpy as np
import pytest
from cases import complex_step, slope

from ep.activations import ACTIVATIONS, CLIP, HARD_SIGMOID, RELU6, SHIFTED_SIGMOID, TANH
from ep.backend import to_host
from ep.errors import EPError

every_activation = pytest.mark.parametrize("name", ACTIVATIONS)
clipped = pytest.mark.parametrize("a", [HARD_SIGMOID, CLIP, RELU6], ids=lambda a: a.name)
U = np.linspace(-2.983, 7.017, 81)  # no kink (0, 1, 2, 6) closer than 0.01
D = np.concatenate([-np.logspace(1, -3, 9), [0.0], np.logspace(-3, 1, 9)])


def test_the_five_activations(xp):
    """clip(u/2, 0, 1), clip(u, 0, 1), clip(u, 0, 6), 1/(1 + exp(2 - 4u)), tanh(u); kinks count as saturated."""
    u = xp.asarray(U)
    for a, expected in ((HARD_SIGMOID, np.clip(U / 2, 0, 1)), (CLIP, np.clip(U, 0, 1)), (RELU6, np.clip(U, 0, 6)),
                        (SHIFTED_SIGMOID, 1 / (1 + np.exp(2 - 4 * U))), (TANH, np.tanh(U))):
        assert np.allclose(to_host(a.sigma(u)), expected, rtol=1e-13, atol=1e-15)
    kinks = xp.asarray([0.0, 2.0])
    for a, factor in ((HARD_SIGMOID, 1.0), (CLIP, 0.5), (RELU6, 3.0)):
        assert not to_host(a.dsigma(kinks * factor)).any()


@every_activation
def test_dsigma_is_the_derivative_of_sigma(xp, name):
    """By finite differences, and by the complex step where sigma is holomorphic. At 0 it is the slope of the difference."""
    a, u = ACTIVATIONS[name], xp.asarray(U)
    d = to_host(a.dsigma(u))
    for f in (lambda t: a.sigma(u + t), lambda t: a.difference(u, t + 0.0 * u)):
        assert np.allclose(d, to_host(slope(f)), rtol=1e-9, atol=1e-10)
        if a.holomorphic:
            assert np.allclose(d, to_host(complex_step(f)), rtol=1e-13, atol=1e-15)
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
def test_at_the_bounds(xp, name):
    """sigma stays inside, for arguments that would overflow exp too; and a saturated unit has a finite energy: 0 log 0 = 0."""
    a = ACTIVATIONS[name]
    low, high = a.bounds
    s = to_host(a.sigma(xp.asarray([-1e4, -1.0, 0.5, 1e4])))
    assert (s[0], s[3]) == a.bounds and (np.diff(s) >= 0).all()
    at, near = (to_host(a.G(xp.asarray([low + e, high - e]))) for e in (0.0, 1e-9))
    assert np.isfinite(at).all() and np.allclose(at, near, atol=1e-7)


@every_activation
def test_precision_is_kept(xp, name):
    """float32 in, float32 out."""
    a, s = ACTIVATIONS[name], xp.asarray([0.25, 0.5], dtype="float32")
    assert {str(f.dtype) for f in (a.sigma(s), a.dsigma(s), a.G(s), a.difference(s, s))} == {"float32"}


@clipped
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_clipping_refuses_complex_numbers(xp, a, dtype):
    """NumPy's clip compares real parts and quietly returns nonsense. A complex step at a real u is refused as well."""
    assert not a.holomorphic
    for call in (lambda: a.sigma(xp.asarray([0.5], dtype=dtype)), lambda: a.difference(xp.asarray([0.5]), xp.asarray([0.1j]))):
        with pytest.raises(EPError, match="not complex-differentiable"):
            call()


# --- the difference of sigma ------------------------------------------------------------------------------------------


@every_activation
def test_the_difference_for_large_steps(xp, name):
    """difference(u, d) = sigma(u + d) - sigma(u), steps of 0.001 to 10 in both directions, bounds reached and left; two steps
    are one; and in float32 a state and its difference stay inside the bounds."""
    a, u, d = ACTIVATIONS[name], xp.asarray(U[:, None]), xp.asarray(D[None, :])
    assert np.allclose(to_host(a.difference(u, d)), to_host(a.sigma(u + d) - a.sigma(u)), rtol=1e-12, atol=1e-15)
    both = a.difference(u, d) + a.difference(u + d, 0.7 * d)
    assert np.allclose(to_host(both), to_host(a.difference(u, 1.7 * d)), rtol=1e-12, atol=1e-14)
    u, d = u.astype("float32"), d.astype("float32")
    s = to_host(a.sigma(u) + a.difference(u, d))
    assert (s >= a.bounds[0] - 1e-6).all() and (s <= a.bounds[1] + 1e-6).all()


@pytest.mark.parametrize("dtype,tiny", [("float32", 1e-30), ("float64", 1e-200)])
@every_activation
def test_the_difference_for_tiny_steps(xp, name, dtype, tiny):
    """= sigma'(u) d to the rounding of one product, where sigma(u + d) - sigma(u) is 0; and 0 for d = 0."""
    a, u = ACTIVATIONS[name], xp.asarray(U, dtype=dtype)
    eps, slopes = np.finfo(dtype).eps, to_host(a.dsigma(xp.asarray(U.astype(dtype), dtype="float64")))
    for sign in (1.0, -1.0):
        found = a.difference(u, xp.full(u.shape, sign * tiny, dtype=dtype))
        assert str(found.dtype) == dtype
        relative_to_d = to_host(found).astype("float64") / float(np.asarray(sign * tiny, dtype=dtype))
        # 1 - tanh^2 has the absolute rounding of 1, as sigma' itself has
        assert np.allclose(relative_to_d, slopes, rtol=4 * eps, atol=4 * eps)
        assert not to_host(a.sigma(u + sign * tiny) - a.sigma(u))[np.abs(U) > 0.1].any()
    assert not to_host(a.difference(u, 0.0 * u)).any()


@pytest.mark.parametrize("dtype,tiny", [("complex64", 1e-20), ("complex128", 1e-150)])
@pytest.mark.parametrize("name", [name for name, a in ACTIVATIONS.items() if a.holomorphic])
def test_complex_differences(xp, name, dtype, tiny):
    """Large complex steps, and tiny ones of any phase at real and at complex u."""
    a, real = ACTIVATIONS[name], "float32" if dtype == "complex64" else "float64"
    eps = np.finfo(real).eps
    for u in (xp.asarray(U, dtype=real), xp.asarray(U + 0.2j, dtype=dtype)):
        for phase in (1j, 0.6 - 0.8j):
            large, small = (xp.full(u.shape, size * phase, dtype=dtype) for size in (0.3, tiny))
            found, expected = to_host(a.difference(u, large)), to_host(a.sigma(u + large) - a.sigma(u))
            assert str(found.dtype) == dtype and np.allclose(found, expected, rtol=0, atol=20 * eps)
            ratio = to_host(a.difference(u, small)).astype("complex128") / tiny / phase
            assert np.allclose(ratio, to_host(a.dsigma(u)), rtol=0, atol=20 * eps)
