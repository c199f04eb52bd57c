"""Synapses: each one is a number Phi_n(pre, post), and its three derivatives are all that EP and BPTT need.

    Phi_n(pre, post) = < post, P(W * pre) + b >           per example; * convolution or product, P pooling

    drive_post  = dPhi_n/dpost  = P(W * pre) + b           bottom-up: the forward pass of a layer
    drive_pre   = dPhi_n/dpre   = W^T * P^T(post)          top-down: unpool, then transposed convolution
    hebbian     = dPhi_n/dtheta = (pre x P^T(post), post)  a product of what the two layers of the synapse know

Three faces of one number: < drive_post(pre), post > = < pre, drive_pre(post) > + < b, post > = < theta, hebbian >.
This identity is the contract of a synapse; `tests/test_identities.py` holds every synapse to it.

P of max-pooling depends on pre through its `switches` (which corner of each window won). They are passed explicitly:
given the switches P is linear, and `linear_post(pre, switches)` is drive_post without the bias, the adjoint of drive_pre.

Both drives are derivatives of one number, so each is the adjoint of the other, its transpose as a linear map. This holds only
where there is a Phi: the two drives of an asymmetric synapse (vectorfield.py) have different weights. Code that needs the
transpose of a drive, such as BPTT and the response to nudging, therefore asks for it by name, drive_post_adjoint or
drive_pre_adjoint. In the synapses of this file it gets the other drive.

    pre  (N, *pre_shape)    post  (N, *post_shape)    shapes are tuples: (units,) or (H, W, C)
"""

import math
from collections.abc import Sequence
from typing import Any

from . import ops
from .backend import Array, Gradient, array_module
from .checks import floats, named, whole, wholes
from .errors import EPError


class Dense:
    """All-to-all synapse. W (units_pre, units_post), b (units_post,); an image as `pre` is flattened.

    Raises EPError if the shapes do not fit together.
    """

    holomorphic = True

    def __init__(self, W: Array, b: Array, pre_shape: Sequence[int]) -> None:
        self.W, self.b = floats(W, "W", 2), floats(b, "b", 1)
        self.pre_shape, self.post_shape = tuple(wholes(pre_shape, "pre_shape", 1)), self.b.shape
        if self.W.shape != (math.prod(self.pre_shape), *self.post_shape):
            raise EPError(f"a dense synapse from {self.pre_shape} to {len(self.b)} units needs W of shape "
                          f"{(math.prod(self.pre_shape), len(self.b))}: got {self.W.shape}")

    def parameters(self) -> Gradient:
        return {"W": self.W, "b": self.b}

    def phi(self, pre: Array, post: Array) -> Array:
        return inner(self.drive_post(pre)[0], post)

    def drive_post(self, pre: Array, switches: Any = None) -> tuple[Array, Any]:
        return self.linear_post(pre) + self.b, None

    def linear_post(self, pre: Array, switches: Any = None) -> Array:
        return _flat(pre) @ self.W  # (N, pre) @ (pre, post)

    def drive_pre(self, post: Array, switches: Any = None) -> Array:
        return (post @ self.W.T).reshape(len(post), *self.pre_shape)  # (N, post) @ (post, pre)

    def hebbian(self, pre: Array, post: Array, switches: Any = None) -> Gradient:
        return {**self.linear_hebbian(pre, post), "b": post.sum(0)}

    def linear_hebbian(self, pre: Array, post: Array, switches: Any = None) -> Gradient:
        return {"W": _flat(pre).T @ post}  # (pre, N) @ (N, post)

    def drive_post_adjoint(self, post: Array, switches: Any = None) -> Array:
        return self.drive_pre(post, switches)

    def drive_pre_adjoint(self, pre: Array, switches: Any = None) -> Array:
        return self.linear_post(pre, switches)

    def winners(self, pre: Array) -> Any:
        return None


class Conv:
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
                          f"nothing of a {pre_shape[0]}x{pre_shape[1]} image: use fewer layers or a larger padding")

    def parameters(self) -> Gradient:
        return {"W": self.W, "b": self.b}

    def phi(self, pre: Array, post: Array) -> Array:
        return inner(self.drive_post(pre)[0], post)

    def drive_post(self, pre: Array, switches: Any = None) -> tuple[Array, Any]:
        """(drive, switches). Given switches are kept ("frozen"); without, the largest of each window wins."""
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
        return {**self.linear_hebbian(pre, post, switches), "b": post.sum((0, 1, 2))}

    def linear_hebbian(self, pre: Array, post: Array, switches: Any) -> Gradient:
        y = self.pool.unpool(post, switches, self.conv_shape)
        return {"W": ops.conv_adjoint_kernel(pre, y, self.W.shape[0], self.stride, self.padding)}

    def drive_post_adjoint(self, post: Array, switches: Any) -> Array:
        return self.drive_pre(post, switches)

    def drive_pre_adjoint(self, pre: Array, switches: Any) -> Array:
        return self.linear_post(pre, switches)

    def winners(self, pre: Array) -> Any:
        """The switches alone. Holomorphic pooling chooses no corner, so it has none."""
        return None if self.pool.holomorphic else self.pool.pool(self._conv(pre))[1]

    def _conv(self, pre):
        return ops.conv(pre, self.W, self.stride, self.padding)


class Identity:
    """A skip connection without weights: Phi_n(pre, post) = < pre, post >, for two layers of the same shape.

        drive_post = pre        drive_pre = post        hebbian = {}, for there is no theta

    The contract holds with nothing in the place of theta: < drive_post(pre), post > = < pre, drive_pre(post) >. It has no bias
    either: the upper layer gets its own from the synapses that the skip goes around. Raises EPError for a shape that is none.
    """

    holomorphic = True

    def __init__(self, shape: Sequence[int]) -> None:
        self.pre_shape = self.post_shape = tuple(wholes(shape, "shape", 1))

    def parameters(self) -> Gradient:
        return {}

    def phi(self, pre: Array, post: Array) -> Array:
        return inner(pre, post)

    def drive_post(self, pre: Array, switches: Any = None) -> tuple[Array, Any]:
        return pre, None

    def linear_post(self, pre: Array, switches: Any = None) -> Array:
        return pre

    def drive_pre(self, post: Array, switches: Any = None) -> Array:
        return post

    def hebbian(self, pre: Array, post: Array, switches: Any = None) -> Gradient:
        return {}

    def linear_hebbian(self, pre: Array, post: Array, switches: Any = None) -> Gradient:
        return {}

    def drive_post_adjoint(self, post: Array, switches: Any = None) -> Array:
        return post

    def drive_pre_adjoint(self, pre: Array, switches: Any = None) -> Array:
        return pre

    def winners(self, pre: Array) -> Any:
        return None


def inner(a, b):
    """< a, b > per example: (N, ...) and (N, ...) -> (N,). No complex conjugation."""
    return array_module(a).sum(_flat(a) * _flat(b), axis=1)


def _flat(a):
    return a.reshape(len(a), -1)
