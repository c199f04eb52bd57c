"""Activation functions: sigma, its derivative, the G of the energy with G' = sigma^-1, and its difference.

The dynamics s <- sigma(dPhi/ds) is stationary where dE/ds = G'(s) - dPhi/ds = 0, so G belongs to sigma: 1/2 ||s||^2 is
right for a clip of slope 1 only, and for the paper's clip(u/2, 0, 1) it is s^2.

`difference(u, d)` is sigma(u + d) - sigma(u), for d so small that subtracting two float32 numbers would leave nothing but
rounding: an addition formula has d as a factor, and so no digits to lose.

They are functions with names of their own, and not lambdas, so that a network can be pickled; a copy of an activation is equal
to it. `bounds`: the values at which a unit is saturated. `holomorphic`: sigma is complex-differentiable, which complex nudging
needs. `slope`: of a sigma that is clip(slope u, low, high), else None.

The two methods are the places where a step of the dynamics applies sigma. They say what it means; ep/engine has others, which
make fewer passes over memory.
"""

from collections.abc import Callable
from typing import NamedTuple

from .backend import Array, array_module
from .errors import EPError

Terms = list[tuple[complex, Array]]  # [(factor, array), ...]: the summands of a drive


class Activation(NamedTuple):
    name: str
    sigma: Callable[[Array], Array]  # s = sigma(u)
    dsigma: Callable[[Array], Array]  # sigma'(u)
    G: Callable[[Array], Array]  # elementwise, G'(s) = sigma^-1(s)
    difference: Callable[[Array, Array], Array]  # (u, d) -> sigma(u + d) - sigma(u)
    bounds: tuple[float, float]
    holomorphic: bool
    slope: float | None = None

    def respond(self, terms: Terms) -> tuple[Array, Array]:
        """(u, s): u the sum of the terms, s = sigma(u)."""
        u = total(terms)
        return u, self.sigma(u)

    def deviate(self, u: Array, s: Array, terms: Terms, w: float) -> Array:
        """delta = w [ sigma(u + d/w) - sigma(u) ], d the sum of the terms; s = sigma(u)."""
        return w * self.difference(u, total(terms) / w)


def total(terms: Terms) -> Array:
    """factor a + factor' a' + ...; a factor of 1 costs no pass over memory."""
    (factor, a), *others = terms
    result = a if factor == 1 else factor * a
    for factor, a in others:
        result = result + (a if factor == 1 else factor * a)
    return result


def _clip01(u):
    return _clip(u, 0.0, 1.0)


def _clip(u, low, high):
    if u.dtype.kind == "c":  # xp.clip would compare real parts and quietly return nonsense
        raise EPError("a clipped activation is not complex-differentiable: use sigmoid or tanh for complex states")
    return array_module(u).clip(u, low, high)


def _logistic(v):
    xp = array_module(v)
    return 0.5 + 0.5 * xp.tanh(0.5 * v)  # = 1 / (1 + exp(-v)), without overflow


def _entropy_term(s):
    """s log s, with 0 log 0 = 0."""
    xp = array_module(s)
    return s * xp.log(xp.where(s == 0, 1.0, s))


def _clip_difference(v, e, high=1.0):
    """clip(v + e, 0, high) - clip(v, 0, high). With c = clip(v), v + e = c + (e + (v - c)), and v - c is 0 inside the bounds."""
    c = _clip(v, 0.0, high)
    return _clip(e + (v - c), -c, high - c)


def _tanh_difference(v, e):
    """tanh(v + e) - tanh(v) = tanh(e) (1 - tanh(v) tanh(v + e)), the addition formula of tanh."""
    xp = array_module(v)
    return xp.tanh(e) * (1.0 - xp.tanh(v) * xp.tanh(v + e))


def _between(u, low, high):
    return ((u > low) & (u < high)).astype(u.dtype)


# s = clip(u/2, 0, 1)        u = 2 s                        G = s^2                  the paper's


def _hard_sigmoid(u):
    return _clip01(0.5 * u)


def _hard_sigmoid_slope(u):
    return 0.5 * _between(u, 0.0, 2.0)


def _hard_sigmoid_G(s):
    return s * s


def _hard_sigmoid_difference(u, d):
    return _clip_difference(0.5 * u, 0.5 * d)


HARD_SIGMOID = Activation("hard-sigmoid", _hard_sigmoid, _hard_sigmoid_slope, _hard_sigmoid_G, _hard_sigmoid_difference,
                          bounds=(0.0, 1.0), holomorphic=False, slope=0.5)

# s = clip(u, 0, 1)          u = s                          G = s^2/2                the familiar 1/2 ||s||^2


def _clip_slope(u):
    return _between(u, 0.0, 1.0)


def _clip_G(s):
    return 0.5 * s * s


CLIP = Activation("clip", _clip01, _clip_slope, _clip_G, _clip_difference, bounds=(0.0, 1.0), holomorphic=False, slope=1.0)

# s = clip(u, 0, 6)          u = s                          G = s^2/2                slope 1 up to 6: for deep networks


def _relu6(u):
    return _clip(u, 0.0, 6.0)


def _relu6_slope(u):
    return _between(u, 0.0, 6.0)


def _relu6_difference(u, d):
    return _clip_difference(u, d, 6.0)


RELU6 = Activation("relu6", _relu6, _relu6_slope, _clip_G, _relu6_difference, bounds=(0.0, 6.0), holomorphic=False, slope=1.0)

# s = 1/(1 + exp(2 - 4u))    u = (log s - log(1-s) + 2)/4   G = (s log s + (1-s) log(1-s) + 2 s)/4


def _sigmoid(u):
    return _logistic(4.0 * u - 2.0)


def _sigmoid_slope(u):
    s = _sigmoid(u)
    return 4.0 * s * (1.0 - s)


def _sigmoid_G(s):
    return 0.25 * (_entropy_term(s) + _entropy_term(1.0 - s) + 2.0 * s)


def _sigmoid_difference(u, d):
    return 0.5 * _tanh_difference(2.0 * u - 1.0, 2.0 * d)  # s = (1 + tanh(2u - 1))/2


SHIFTED_SIGMOID = Activation("sigmoid", _sigmoid, _sigmoid_slope, _sigmoid_G, _sigmoid_difference, bounds=(0.0, 1.0),
                             holomorphic=True)

# s = tanh(u)                u = atanh s                    G = s atanh s + log(1-s^2)/2 = ((1+s) log(1+s) + (1-s) log(1-s))/2


def _tanh(u):
    return array_module(u).tanh(u)


def _tanh_slope(u):
    return 1.0 - _tanh(u) ** 2


def _tanh_G(s):
    return 0.5 * (_entropy_term(1.0 + s) + _entropy_term(1.0 - s))


TANH = Activation("tanh", _tanh, _tanh_slope, _tanh_G, _tanh_difference, bounds=(-1.0, 1.0), holomorphic=True)

ACTIVATIONS = {a.name: a for a in (HARD_SIGMOID, CLIP, RELU6, SHIFTED_SIGMOID, TANH)}
