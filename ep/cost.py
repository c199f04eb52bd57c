"""Costs C(s, y): s is the last state (N, ...), y the targets (N, classes), one-hot or any numbers (of rows with any sum).

The nudged dynamics need only the force -dC/ds. Both costs have the same five methods:

    value(s, y)       C per example, (N,)
    force(s, y)       -dC/ds, shape of s: where the target pulls the last layer
    output(s)         (N, classes): the larger, the likelier
    parameters()      weights that belong to the cost itself
    gradient(s, y)    dC/d(those), summed over the batch; EP takes it at the free state s*

and a `name`. `readout` says whether a builder has to make the cost of weights W, b that lead from the last layer to the classes,
for each of which b has a number. A cost of one's own is a class with these.
"""

from .backend import Array, Gradient, array_module
from .checks import floats
from .errors import EPError


class SquaredError:
    """C = 1/2 ||s - y||^2. The output layer is part of the system: s_L has one unit per class."""

    name, readout = "squared-error", False

    def value(self, s: Array, y: Array) -> Array:
        return 0.5 * ((s - y) ** 2).sum(1)

    def force(self, s: Array, y: Array) -> Array:
        return y - s  # -dC/ds

    def output(self, s: Array) -> Array:
        return s

    def parameters(self) -> Gradient:
        return {}

    def gradient(self, s: Array, y: Array) -> Gradient:
        return {}


class SoftmaxCrossEntropy:
    """C = - sum_i y_i log o_i with o = softmax(W^T s + b): a readout *outside* the system, which only nudges s_L.

    W (units of s_L, classes), b (classes,). An image-shaped s_L is flattened.
    """

    name, readout = "cross-entropy", True

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = floats(W, "W", 2), floats(b, "b", 1)
        if self.W.shape[1:] != self.b.shape:
            raise EPError(f"a readout needs one bias per class: got W {self.W.shape} and b {self.b.shape}")

    def value(self, s: Array, y: Array) -> Array:
        z = self._logits(s)
        xp = array_module(z)
        return y.sum(1) * xp.log(xp.exp(z).sum(1)) - (y * z).sum(1)  # = - sum_i y_i log o_i

    def force(self, s: Array, y: Array) -> Array:
        return ((y - self.weighted(s, y)) @ self.W.T).reshape(s.shape)  # -dC/ds = W (y - o sum_i y_i)

    def output(self, s: Array) -> Array:
        z = self._logits(s)
        e = array_module(z).exp(z)
        return e / e.sum(1, keepdims=True)  # o = softmax(z)

    def parameters(self) -> Gradient:
        return {"W": self.W, "b": self.b}

    def gradient(self, s: Array, y: Array) -> Gradient:
        error = self.weighted(s, y) - y  # dC/dz = o sum_i y_i - y, (N, classes)
        return {"W": s.reshape(len(s), -1).T @ error, "b": error.sum(0)}

    def weighted(self, s: Array, y: Array) -> Array:
        """o sum_i y_i, (N, classes): the sum is 1 of one-hot targets, but not of two labels for one image."""
        return self.output(s) * y.sum(1, keepdims=True)

    def _logits(self, s):
        """z = W^T s + b, shifted by its largest real part: o is the same, and exp cannot overflow."""
        z = s.reshape(len(s), -1) @ self.W + self.b
        return z - z.real.max(1, keepdims=True)


COSTS = {c.name: c for c in (SquaredError, SoftmaxCrossEntropy)}
