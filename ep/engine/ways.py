"""How a CPU computes each convolution: the cheapest of Winograd's, im2col and col2im, for either direction of a synapse."""

import math
from typing import NamedTuple

import numpy as np

from .patches import Col2im, Im2col
from .winograd import TILES, Winograd, multiplications, transform_flipped, transform_kernel


class Way(NamedTuple):
    """One direction of a convolution, and what computes it: kind(size, size_in, size_out, padding, N, channels, scratch)."""

    kind: type  # Winograd, Im2col or Col2im
    size: int  # m of Winograd's tile, else k of the kernel
    size_in: tuple
    size_out: tuple
    padding: int
    channels: tuple  # (C_in, C_out)

    def make(self, N, scratch):
        return self.kind(*self[1:5], N, self.channels, scratch)

    def kernel_up(self, W):
        """W as the way up wants it."""
        return transform_kernel(W, self.size) if self.kind is Winograd else W

    def kernel_down(self, W):
        """W as the way down wants it: flipped, with its channels exchanged, but for col2im."""
        if self.kind is Winograd:
            return transform_flipped(W, self.size)
        return W if self.kind is Col2im else np.ascontiguousarray(W[::-1, ::-1].transpose(0, 1, 3, 2))


def way_up(conv, largest_tile):
    """W * pre"""
    k, _, *channels = conv.W.shape
    return cheapest(k, conv.pre_shape[:2], conv.conv_shape, conv.padding, tuple(channels), largest_tile)


def way_down(conv, largest_tile):
    """W^T * y: the convolution with the flipped kernel, or, for few pixels, where that multiplies zeros, col2im."""
    (k, _, C_pre, C_post), pre, post, p = conv.W.shape, conv.pre_shape[:2], conv.conv_shape, conv.padding
    if math.prod(post) < math.prod(pre) and k * k * math.prod(post) <= multiplications(4, pre):
        return Way(Col2im, k, post, pre, p, (C_post, C_pre))
    return cheapest(k, post, pre, k - 1 - p, (C_post, C_pre), largest_tile)


def cheapest(k, size_in, size_out, padding, channels, largest_tile):
    """The convolution that takes the fewest multiplications."""
    cost = {m: multiplications(m, size_out) for m in TILES if m <= largest_tile and k == 3}
    m = min(cost, key=cost.get, default=None)
    if m is None or cost[m] > k * k * math.prod(size_out):
        return Way(Im2col, k, size_in, size_out, padding, channels)
    return Way(Winograd, m, size_in, size_out, padding, channels)
