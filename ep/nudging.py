"""Which nudged phases to run, and how to combine them: equation (4). Pure maths, this file knows no network.

With theta fixed, f(beta) = -dPhi/dtheta (s^beta) is a function of one number, and the gradient is its derivative f'(0).
So an EP estimator *is* a numerical differentiation formula, and a formula is data: points beta_k and weights c_k.

    g = sum_k c_k f(beta_k) = f'(0) + bias,     with  sum_k c_k beta_k^m = [m == 1]  for m = 0, 1              (4)
                                                                         and  = 0    for 2 <= m < M

([m == 1] is 1 for m = 1, and else 0.)

Taylor: g = sum_{m <= M} f^(m)(0)/m! * moment(m) + remainder. The first moment after m = 1 that is not zero, m = M, leaves a
bias O(beta^(M-1)): the `order` of the formula.
"""

import cmath
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.random import Generator

from .checks import whole
from .errors import EPError


@dataclass(frozen=True)
class Nudging:
    """points: the nudging strengths beta_k; weights: c_k; take_real: keep the real part of the sum.

    take_real is for complex points: f is real on the real axis, so f(conj(beta)) = conj(f(beta)), and of each conjugate
    pair of phases only the one with Im > 0 is run, at double weight.
    """

    points: tuple[complex, ...]
    weights: tuple[complex, ...]
    take_real: bool = False

    def __post_init__(self):
        for field in ("points", "weights"):
            object.__setattr__(self, field, _python(getattr(self, field)))
        if len(self.points) != len(self.weights) or not self.points:
            raise EPError(f"a nudging needs one weight per point: got {len(self.points)} points and "
                          f"{len(self.weights)} weights")
        if not all(cmath.isfinite(z) for z in (*self.points, *self.weights)) or not any(self.points):
            raise EPError(f"nudging strengths must be finite and not all zero: got {self.points}")
        wrong = [m for m in (0, 1) if abs(self.moment(m) - (m == 1)) > 1e-9 * self._magnitude(m)]
        if wrong:
            raise EPError(f"these points and weights do not estimate a derivative: sum_k c_k beta_k^{wrong[0]} is "
                          f"{self.moment(wrong[0])}, expected {int(wrong[0] == 1)}")

    def moment(self, m: int) -> complex:
        """sum_k c_k beta_k^m (its real part where only that is used)."""
        total = sum(c * b**m for b, c in zip(self.points, self.weights))
        return total.real if self.take_real else total

    def _magnitude(self, m):
        return sum(abs(c) * abs(b) ** m for b, c in zip(self.points, self.weights))

    @property
    def order(self) -> int:
        """The bias is O(beta^order): order = M - 1, M the first m >= 2 whose moment is not zero."""
        near_1 = _power_of_two(b for b, c in zip(self.points, self.weights) if c)  # b^m of tiny numbers would be 0
        alike = replace(self, points=tuple(b / near_1 for b in self.points), weights=tuple(c * near_1 for c in self.weights))
        later = range(2, 2 * len(self.points) + 3)  # so many moments of so many points, and of their conjugates, cannot all be 0
        return next(m for m in later if abs(alike.moment(m)) > 1e-9 * alike._magnitude(m)) - 1

    @classmethod
    def one_sided(cls, beta: float) -> Self:
        """(f(beta) - f(0)) / beta: the original EP. Bias O(beta); the free phase itself is the point 0."""
        beta = _number(beta)
        return cls((0.0, beta), (-1 / beta, 1 / beta))

    @classmethod
    def random_sign(cls, beta: float, rng: Generator) -> Self:
        """One-sided with a sign drawn from `rng` (numpy Generator), anew for each batch. Unbiased to O(beta^2) on average."""
        beta = _number(beta)
        return cls.one_sided(beta if rng.random() < 0.5 else -beta)

    @classmethod
    def symmetric(cls, beta: float) -> Self:
        """(f(beta) - f(-beta)) / 2 beta: the paper's estimator. Bias O(beta^2)."""
        beta = _number(beta)
        return cls((-beta, beta), (-0.5 / beta, 0.5 / beta))

    @classmethod
    def four_point(cls, beta: float) -> Self:
        """(f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12 h with h = beta/2, so that beta is the largest |beta_k|. Bias O(beta^4)."""
        beta = _number(beta)
        h = beta / 2
        return cls((-2 * h, -h, h, 2 * h), tuple(c / (12 * h) for c in (1, -8, 8, -1)))

    @classmethod
    def holomorphic(cls, beta: float, n: int, shifted: bool = False) -> Self:
        """Cauchy's formula on n points of the circle |beta_k| = beta. Bias O(beta^n), n >= 2.

        Only the phases with Im >= 0 are kept: n//2 + 1 of them; exactly n/2 for even n with the points `shifted` by
        pi/n (n = 2 is then the single point i beta: the complex step).
        """
        beta, n = _number(beta), whole(n, "points of a holomorphic nudging on the circle", 2)
        points, weights = [], []
        for k in range(n):
            turn = (2 * k + shifted) / n  # the angle in units of pi: 0 <= turn < 2
            if turn > 1:
                continue  # the conjugate of a point that is kept
            z = _unit(turn)
            points.append(beta * z)
            weights.append((2 if 0 < turn < 1 else 1) * z.conjugate() / (n * beta))
        return cls(tuple(points), tuple(weights), take_real=True)

    @classmethod
    def from_points(cls, points: Iterable[float]) -> Self:
        """The formula of the highest order on any distinct real points: c_k is the slope at 0 of Lagrange's polynomial l_k."""
        betas = _python(points)
        if len(set(betas)) != len(betas) or len(betas) < 2 or any(isinstance(b, complex) for b in betas):
            raise EPError(f"nudging points must be at least two different real numbers: got {betas}")
        near_1, weights = _power_of_two(betas), []
        alike = [b / near_1 for b in betas]
        for k, b in enumerate(alike):
            others = alike[:k] + alike[k + 1:]
            # l_k(z) = prod_j (z - b_j)/(b_k - b_j), so l_k'(0) = sum_m prod_{j != m} (-b_j) / prod_j (b_k - b_j)
            slope = sum(math.prod(-o for j, o in enumerate(others) if j != m) for m in range(len(others)))
            weights.append(slope / math.prod(b - o for o in others) / near_1)
        return cls(betas, tuple(weights))


NUDGINGS = {  # by name: (beta, rng) -> Nudging
    "symmetric": lambda beta, rng: Nudging.symmetric(beta),
    "one-sided": lambda beta, rng: Nudging.one_sided(beta),
    "random-sign": Nudging.random_sign,
    "four-point": lambda beta, rng: Nudging.four_point(beta),
}


def _number(beta):
    """beta as a Python number, for the constructors."""
    (number,) = _python([beta])
    if isinstance(number, complex) or not math.isfinite(number) or number == 0:
        raise EPError(f"the nudging strength beta must be a finite number other than 0: got {beta}")
    return number


def _python(numbers):
    """As Python numbers, for NumPy's would promote float32 arrays; all complex if one is, for arrays of one type are added up."""
    try:
        array = np.array(list(numbers))
    except (TypeError, ValueError):  # no list, or one of lists
        array = np.array(None)
    if array.ndim != 1 or array.dtype.kind not in "biufc":
        raise EPError(f"expected real or complex numbers: got {numbers!r}")
    return tuple(array.astype(complex if array.dtype.kind == "c" else float).tolist())


def _power_of_two(points):
    """One that is near the largest |beta_k|, by which numbers are divided exactly."""
    return math.ldexp(0.5, math.frexp(max(map(abs, points)))[1])


def _unit(turn):
    """exp(i pi turn), exact on the axes (so that a real point stays exactly real)."""
    exact = {0.0: 1 + 0j, 0.5: 1j, 1.0: -1 + 0j}
    return exact.get(turn, cmath.exp(1j * math.pi * turn))
