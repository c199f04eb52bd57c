"""A `Conv` for a CPU: the same numbers as that of ep/synapse.py but for rounding, with less copying and fewer multiplications.

It is Winograd's convolution (winograd.py), for 3x3 kernels without a stride; other synapses stay as they are.

Arrays are (N, H, W, C) outside, as everywhere. In memory those that are made here lie as (H, W, N, C): a row of a layer is
then one run of W*N*C numbers. Buffers belong to a thread, and hold nothing from one call to the next.
"""

import copy
import math
import threading

import numpy as np

from .. import ops
from ..errors import EPError
from ..synapse import Conv
from .winograd import Scratch, Winograd, WinogradProduct, multiplications, tile, transform_flipped, transform_kernel

POOLINGS = ops.MAX_POOL, ops.AVERAGE_POOL, ops.NO_POOL  # another one need not know `out`, and may return a view
MOST = 8  # numbers of images that a thread keeps buffers for: whole chunks, the rest of a batch, and halves of either
LOCAL = threading.local()


def prepared(network, map=map):
    """`network` on these synapses, while its weights stay as they are: their kernels are transformed here, once (those of an
    asymmetric one at their first use).

    map: of `worker_threads`, to share the work.
    """
    def ready(synapse):
        made = exchanged(synapse)
        if type(made) is TiledConv:
            made.kernel("up")
            if not made.few:
                made.kernel("down")
        return made

    other = copy.copy(network)
    other.synapses = list(map(ready, network.synapses))
    return other


def exchanged(synapse):
    """The synapse that takes the place of this one: itself, if there is none."""
    if synapse.parts:
        other = copy.copy(synapse)
        vars(other).update({name: exchanged(getattr(synapse, name)) for name in synapse.parts})
        return other
    return TiledConv(synapse) if fits(synapse) else synapse


def fits(synapse):
    """Whether `TiledConv` can take the place of this synapse."""
    if type(synapse) is not Conv or synapse.W.dtype.kind != "f":
        return False
    one_type = getattr(synapse.b, "dtype", synapse.W.dtype) == synapse.W.dtype  # the way down of an asymmetric one has no bias
    return (one_type and len(synapse.W) == 3 and synapse.stride == 1 and synapse.padding < 3
            and synapse.pool in POOLINGS)


class Exchanged:
    """What the engine's synapses have in common: a file holds those that they stand for."""

    def arguments(self):
        raise EPError("a network that was prepared by ep.engine is for relaxing, not for a file: save the one it was made of")


class TiledConv(Exchanged, Conv):
    """`Conv` with another convolution. Its kernels are transformed at their first use, and stale once W is changed in place."""

    def __init__(self, conv):
        vars(self).update(vars(conv))
        image, outputs = self.pre_shape[:2], math.prod(self.conv_shape)
        self.m_up, self.m_down = tile(self.conv_shape), tile(image)
        # from few pixels to more Winograd's convolution would multiply zeros: patches are cheaper on the way down
        self.few = outputs < math.prod(image) and 9 * outputs <= multiplications(4, image)
        self.kernels = {}

    def kernel(self, direction):
        """W transformed for the way "up" or "down"; made anew if the synapse has got another W."""
        if self.kernels.get(direction, (None,))[0] is not self.W:
            self.kernels[direction] = self.W, (transform_kernel(self.W, self.m_up) if direction == "up"
                                               else transform_flipped(self.W, self.m_down))
        return self.kernels[direction][1]

    def convolutions(self, N):
        """(way up, way down, product) of this thread for N images; None where patches are cheaper."""
        kept, scratches = (vars(LOCAL).setdefault(name, {}) for name in ("kept", "scratches"))
        key = N, self.W.dtype, self.pre_shape, self.W.shape, self.padding, self.pool  # synapses of one shape share them
        if key not in kept:
            if len({N, *(images for images, *_ in kept)}) > MOST:
                kept.clear()
            scratch = scratches.setdefault(self.W.dtype, Scratch(self.W.dtype))
            (C_pre, C_post), image, p = self.W.shape[2:], self.pre_shape[:2], self.padding
            up = Winograd(self.m_up, image, self.conv_shape, p, N, (C_pre, C_post), scratch)
            down = None if self.few else Winograd(self.m_down, self.conv_shape, image, 2 - p, N, (C_post, C_pre), scratch)
            single = up.h * up.w == 1 and up.m == 2  # one tile: dW is not worth transforming back
            kept[key] = up, down, None if single else WinogradProduct(up)
        return kept[key]

    def plain(self, first, *others):
        """Whether this is left to `Conv`: another dtype than that of the weights, or one image.

        One image may stand for all of a batch (dynamics.Messages). Its windows tie then, and Winograd's convolution would break
        ties by rounding; that of `Conv` does not.
        """
        dtype = self.W.dtype
        return len(first) == 1 or first.dtype != dtype or any(a.dtype != dtype for a in others)

    def _conv(self, pre):
        if self.plain(pre):
            return super()._conv(pre)
        up, _, _ = self.convolutions(len(pre))
        up.input[...] = inside(pre)
        return outside(up.result(self.kernel("up"), own=self.pool == ops.NO_POOL))  # the others do not hand on what they get

    def drive_pre(self, post, switches):
        if self.plain(post):
            return super().drive_pre(post, switches)
        _, down, _ = self.convolutions(len(post))
        if down is None:
            y = inside(self.pool.unpool(post, switches, self.conv_shape))
            cols = y.reshape(-1, y.shape[3]) @ self.W.reshape(-1, y.shape[3]).T  # (H' W' N, 9 C_pre)
            return ops.col2im(outside(cols.reshape(*y.shape[:3], *self.W.shape[:3])), self.pre_shape[:2], 1, self.padding)
        self.pool.unpool(post, switches, self.conv_shape, out=outside(down.input))
        return outside(down.result(self.kernel("down")))

    def hebbian(self, pre, post, switches):
        if self.plain(pre, post):
            return super().hebbian(pre, post, switches)
        return {"W": self.products([(1.0, pre, post)], switches), "b": column_sums(post)}

    def hebbian_pair(self, pre, mu_post, mu_pre, post, gain, switches):
        """Both products are one: a sum over the tiles of both, transformed back together."""
        if self.plain(pre, mu_post, mu_pre, post):
            return super().hebbian_pair(pre, mu_post, mu_pre, post, gain, switches)
        return {"W": self.products([(1.0, pre, mu_post), (gain, mu_pre, post)], switches), "b": column_sums(mu_post)}

    def products(self, terms, switches):
        """The sum of factor pre x P^T(post) over the terms (factor, pre, post), one or two."""
        _, _, product = self.convolutions(len(terms[0][1]))
        if product is None:
            patches = [ops.im2col(factor * pre, 3, 1, self.padding) for factor, pre, _ in terms]
            y = [self.pool.unpool(post, switches, self.conv_shape) for _, _, post in terms]
            patches, y = (np.concatenate([inside(a).reshape(-1, columns) for a in arrays])  # (terms H' W' N, columns)
                          for arrays, columns in ((patches, 9 * self.W.shape[2]), (y, self.W.shape[3])))
            return (patches.T @ y).reshape(self.W.shape)
        for x, y, (factor, pre, post) in zip(product.x, product.y, terms):
            np.multiply(inside(pre), factor, out=x)
            self.pool.unpool(post, switches, self.conv_shape, out=outside(y))
        return product.result(len(terms))


def inside(a):
    """(N, H, W, ...) -> (H, W, N, ...), a view; vectors (N, units) stay."""
    return a.transpose(1, 2, 0, *range(3, a.ndim)) if a.ndim > 2 else a


def outside(a):
    """(H, W, N, ...) -> (N, H, W, ...), a view."""
    return a.transpose(2, 0, 1, *range(3, a.ndim))


def column_sums(a):
    """Sum over all axes but the last."""
    return np.ascontiguousarray(inside(a)).reshape(-1, a.shape[-1]).sum(0)
