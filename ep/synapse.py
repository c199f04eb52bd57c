"""Synapses: each one is a number Phi_n(pre, post), and its three derivatives are all that EP and BPTT need.

    Phi_n(pre, post) = < post, P(W * pre) + b >           per example: how well two layers agree; P is pooling, or nothing

    drive_post  = dPhi_n/dpost  = P(W * pre) + b           what goes up: the forward pass of a layer
    drive_pre   = dPhi_n/dpre   = W^T * P^T(post)          what comes down: unpool, then transposed convolution
    hebbian     = dPhi_n/dtheta = (pre o P^T(post), post)  of W and of b; summed over the images

pre (N, *pre_shape) and post (N, *post_shape) are the states of two layers; a shape is (units,) or (H, W, C). W * pre is a matrix
product or a convolution, W^T * its transpose. pre o post has an entry for every weight: the product of the two states that it
joins, summed over the places of a convolution. An image is a row, so in arrays these are pre @ W, post @ W.T and pre.T @ post.

A drive is named after the layer that it acts on. Phi_n is linear in post, in theta and, but for the bias and at given switches
of max-pooling (below), in pre. So each derivative times its variable is Phi_n again: three faces of one number. This is the
contract of a synapse, to which `tests/test_identities.py` holds every one (< , > adds up the products):

    Phi_n = < post, drive_post(pre) > = < pre, drive_pre(post) > + < b, post > = < theta, hebbian(pre, post) >    of one image

Max-pooling sends on the largest number of each window. The *switch* of a window is the corner where that was. Switches depend on
pre; once they are given, P is linear. So drive_post returns them beside the drive, and the other methods take them.
"""

import copy
import inspect
import math
from collections.abc import Sequence
from typing import Any

from . import ops
from .backend import Array, Gradient, array_module, to_host
from .checks import floats, named, whole, wholes
from .errors import EPError


class Synapse:
    """The contract of a synapse, and what follows from it. A synapse of one's own inherits from this class.

    It has `pre_shape` and `post_shape`, `drive_post` and `drive_pre`; if it has parameters, also `parameters` and `hebbian`; and
    if it has a bias, `linear_post`. The bias is the parameter "b", and "b" is no weight. Everything else follows, and may be
    replaced by something faster. Switches are None, an array whose first axis is that of the images, or a tuple of such.
    """

    pre_shape: tuple
    post_shape: tuple
    holomorphic = True  # complex-differentiable: complex nudging needs it
    has_phi = True  # the drives are the derivatives of one number
    bilinear = True  # each drive depends on one end, and but for the bias it is linear; False: `Nonlinear`
    parts: tuple = ()  # names of its attributes that are synapses themselves: ep/engine exchanges those

    def parameters(self) -> Gradient:
        """{"W": array, ...}, the arrays themselves."""
        return {}

    def drive_post(self, pre: Array, switches: Any = None) -> tuple[Array, Any]:
        """(dPhi_n/dpost, switches). Given switches are kept; without, the largest of each window wins."""
        raise NotImplementedError

    def drive_pre(self, post: Array, switches: Any = None) -> Array:
        """dPhi_n/dpre at these switches."""
        raise NotImplementedError

    def hebbian(self, pre: Array, post: Array, switches: Any = None) -> Gradient:
        """dPhi_n/dtheta at these switches, summed over the images: {"W": ..., "b": ...}."""
        return {}

    # --- what follows ----------------------------------------------------------------------------------------------------

    def arguments(self) -> dict[str, Any]:
        """What its constructor takes, for `Network.save`: here, attributes of the same names. Arrays, synapses, or JSON."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def __copy__(self):
        """One of its own parts, which shares arrays with this one."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), **{name: copy.copy(getattr(self, name)) for name in self.parts})
        return other

    def phi(self, pre: Array, post: Array) -> Array:
        """Phi_n per example, (N,)."""
        return inner(self.drive_post(pre)[0], post)

    def linear_post(self, pre: Array, switches: Any = None) -> Array:
        """drive_post at given switches, without the bias: linear in pre, and the adjoint of drive_pre."""
        return self.drive_post(pre, switches)[0]

    def hebbian_down(self, pre: Array, post: Array, switches: Any = None) -> Gradient:
        """d < pre, drive_pre(post) > / dtheta: `hebbian` without the bias, because the way down has none."""
        return {name: g for name, g in self.hebbian(pre, post, switches).items() if name != "b"}

    def hebbian_pair(self, pre: Array, mu_post: Array, mu_pre: Array, post: Array, gain: float, switches: Any) -> Gradient:
        """hebbian(pre, mu_post) + gain hebbian_down(mu_pre, post), the two products of equation (12)."""
        g = self.hebbian(pre, mu_post, switches)
        for name, dW in self.hebbian_down(mu_pre, post, switches).items():
            g[name] = g[name] + gain * dW if name in g else gain * dW
        return g

    def winners(self, pre: Array) -> Any:
        """The switches alone."""
        return self.drive_post(pre)[1]

    # The adjoint (the transpose, as a linear map) of each drive is the other drive, for both are derivatives of one number. Only
    # the two drives of an asymmetric synapse (vectorfield.py) have different weights. So whoever needs a transpose asks by name.

    def drive_post_adjoint(self, post: Array, switches: Any = None) -> Array:
        return self.drive_pre(post, switches)

    def drive_pre_adjoint(self, pre: Array, switches: Any = None) -> Array:
        return self.linear_post(pre, switches)


class Nonlinear(Synapse):
    """Any differentiable number Phi_n(pre, post). Its drives see both ends, and there are no switches:

        phi(pre, post), (N,)        drive_post(pre, post) = dPhi_n/dpost        drive_pre(pre, post) = dPhi_n/dpre

    It has these and the two shapes; with parameters, also `parameters` and `hebbian`. Instead of the three faces it holds that
    drives and `hebbian` are the derivatives of `phi`: `ep.check_derivatives`. It learns by (4), from states.
    """

    bilinear = holomorphic = False

    def winners(self, pre: Array) -> Any:
        return None


class Dense(Synapse):
    """All-to-all synapse. W (units_pre, units_post), b (units_post,); an image as `pre` is flattened.

    Raises EPError if the shapes do not fit together.
    """

    def __init__(self, W: Array, b: Array, pre_shape: Sequence[int]) -> None:
        self.W, self.b = floats(W, "W", 2), floats(b, "b", 1)
        self.pre_shape, self.post_shape = tuple(wholes(pre_shape, "pre_shape", 1)), self.b.shape
        if self.W.shape != (math.prod(self.pre_shape), *self.post_shape):
            raise EPError(f"a dense synapse from {self.pre_shape} to {len(self.b)} units needs W of shape "
                          f"{(math.prod(self.pre_shape), len(self.b))}: got {self.W.shape}")

    def parameters(self) -> Gradient:
        return {"W": self.W, "b": self.b}

    def drive_post(self, pre: Array, switches: Any = None) -> tuple[Array, Any]:
        return self.linear_post(pre) + self.b, None

    def linear_post(self, pre: Array, switches: Any = None) -> Array:
        return _flat(pre) @ self.W  # (N, pre) @ (pre, post)

    def drive_pre(self, post: Array, switches: Any = None) -> Array:
        return (post @ self.W.T).reshape(len(post), *self.pre_shape)  # (N, post) @ (post, pre)

    def hebbian(self, pre: Array, post: Array, switches: Any = None) -> Gradient:
        return {"W": _flat(pre).T @ post, "b": post.sum(0)}  # (pre, N) @ (N, post)


class Conv(Synapse):
    """Convolution, then pooling. W (k, k, C_pre, C_post), b (C_post,), pre_shape (H, W, C_pre).

    pool: a `Pooling`, or its name. Raises EPError if the shapes do not fit together, or the kernel or the pooling window does
    not fit into the image.
    """

    def __init__(self, W: Array, b: Array, pre_shape: Sequence[int], stride: int = 1, padding: int = 1,
                 pool: ops.Pooling | str = ops.MAX_POOL) -> None:
        self.W, self.b = W, b = floats(W, "W", 4), floats(b, "b", 1)
        self.stride, self.padding = whole(stride, "stride", 1), whole(padding, "padding")
        pre_shape = wholes(pre_shape, "pre_shape", 1)
        self.pool = pool = named(pool, ops.POOLINGS, "pooling")
        if len(pre_shape) != 3 or W.shape != (len(W), len(W), pre_shape[2], len(b)):
            raise EPError(f"a convolution of an image (H, W, C) needs W of shape (k, k, C, C_post) and b of shape (C_post,): got "
                          f"an image {tuple(pre_shape)}, W {W.shape} and b {b.shape}")
        self.conv_shape = tuple(ops.output_size(size, len(W), self.stride, self.padding) for size in pre_shape[:2])
        self.pre_shape = tuple(pre_shape)
        self.post_shape = (*(pool.output_size(size) for size in self.conv_shape), W.shape[3])
        self.holomorphic = pool.holomorphic
        if min(self.post_shape) < 1:
            raise EPError(f"a {W.shape[0]}x{W.shape[0]} convolution with padding {padding} and {pool.name} pooling leaves "
                          f"nothing of a {pre_shape[0]}x{pre_shape[1]} image: use fewer layers (channels) or a larger padding")

    def parameters(self) -> Gradient:
        return {"W": self.W, "b": self.b}

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | ({"pool": self.pool.name} if ops.POOLINGS.get(self.pool.name) == self.pool else {})

    def drive_post(self, pre: Array, switches: Any = None) -> tuple[Array, Any]:
        if switches is not None:
            return self.linear_post(pre, switches) + self.b, switches
        v, switches = self.pool.pool(self._conv(pre))
        return v + self.b, switches  # the bias is one number per channel, so it may be added after pooling

    def linear_post(self, pre: Array, switches: Any) -> Array:
        return self.pool.pool_at(self._conv(pre), switches)

    def drive_pre(self, post: Array, switches: Any) -> Array:
        y = self.pool.unpool(post, switches, self.conv_shape)
        return ops.conv_adjoint_input(y, self.W, self.pre_shape[:2], self.stride, self.padding)

    def hebbian(self, pre: Array, post: Array, switches: Any) -> Gradient:
        y = self.pool.unpool(post, switches, self.conv_shape)
        dW = ops.conv_adjoint_kernel(pre, y, self.W.shape[0], self.stride, self.padding)
        return {"W": dW, "b": post.sum((0, 1, 2))}

    def winners(self, pre: Array) -> Any:
        """The switches alone. Holomorphic pooling chooses no corner, so it has none."""
        return None if self.pool.holomorphic else self.pool.pool(self._conv(pre))[1]

    def _conv(self, pre):
        return ops.conv(pre, self.W, self.stride, self.padding)


class Identity(Synapse):
    """A skip connection without weights: Phi_n(pre, post) = < pre, post >, for two layers of the same shape.

        drive_post = pre        drive_pre = post        hebbian = {}, for there is no theta

    It has no bias: the synapses that it goes around bring that of the upper layer. Raises EPError for a shape that is none.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = self.pre_shape = self.post_shape = tuple(wholes(shape, "shape", 1))

    def drive_post(self, pre: Array, switches: Any = None) -> tuple[Array, Any]:
        return pre, None

    def drive_pre(self, post: Array, switches: Any = None) -> Array:
        return post


class Filtered(Synapse):
    """A convolution that sees the input through fixed filters F: Phi_n(x, post) = < post, P(W * f(x)) + b >.

        f(x) = max(0, (F * x, -F * x))          every filter and its negative, (N, H, W, C) -> (N, H', W', 2 filters)

    The filters do not learn, and x is held fixed, so to equilibrium propagation this is a `Conv` of another image. Nothing comes
    down to an input: it has no drive_pre, and leads from layer 0. filters: the `Conv` of F, not pooled; conv: the one that
    learns. Raises EPError if the two do not fit together.
    """

    parts = ("filters", "conv")

    def __init__(self, filters: Conv, conv: Conv) -> None:
        self.filters, self.conv = filters, conv
        self.pre_shape, self.post_shape, self.holomorphic = filters.pre_shape, conv.post_shape, conv.holomorphic
        if conv.pre_shape != (*filters.post_shape[:2], 2 * filters.post_shape[2]) or filters.pool != ops.NO_POOL:
            raise EPError(f"the filters and their negatives give an image (H, W, 2 * {filters.post_shape[2]}), not pooled: got "
                          f"filters to {filters.post_shape}, and a convolution from {conv.pre_shape}")

    pool = property(lambda self: self.conv.pool)
    b = property(lambda self: self.conv.b, lambda self, b: setattr(self.conv, "b", b))

    @property
    def W(self) -> Array:
        return self.conv.W

    @W.setter
    def W(self, W: Array) -> None:
        self.conv.W, xp = W, array_module(W)
        for name, F in self.filters.parameters().items():  # they follow W to its device, and to its type
            F = (F if array_module(F) is xp else to_host(F)).real
            setattr(self.filters, name, xp.asarray(F, dtype=W.dtype))

    def parameters(self) -> Gradient:
        return self.conv.parameters()

    def seen(self, x: Array) -> Array:
        """f(x)"""
        y, xp = self.filters.drive_post(x)[0], array_module(x)
        f = xp.empty((*y.shape[:3], 2 * y.shape[3]), dtype=y.dtype)
        xp.maximum(y, 0, out=f[..., :y.shape[3]])
        xp.maximum(-y, 0, out=f[..., y.shape[3]:])
        return f

    def drive_post(self, pre: Array, switches: Any = None) -> tuple[Array, Any]:
        return self.conv.drive_post(self.seen(pre), switches)

    def drive_pre(self, post: Array, switches: Any = None) -> Array:
        raise EPError("fixed filters stand behind the input, and nothing comes down to it: let this synapse lead from layer 0")

    def hebbian(self, pre: Array, post: Array, switches: Any = None) -> Gradient:
        return self.conv.hebbian(self.seen(pre), post, switches)


def inner(a, b):
    """< a, b > per example: (N, ...) and (N, ...) -> (N,). No complex conjugation."""
    return array_module(a).sum(_flat(a) * _flat(b), axis=1)


def _flat(a):
    return a.reshape(len(a), -1)
