"""Which networks the fast path takes, how it computes each convolution, and the kernels in the form that this needs.

A `Way` is one direction of a synapse, up or down: the cheapest of Winograd's convolutions, im2col and col2im. `transformed`
makes all the kernels of a network ready for their ways; they are right until the weights change.
"""

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .. import ops
from ..activations import CLIP, HARD_SIGMOID, RELU6
from ..network import Network
from ..synapse import Conv, Dense, Identity
from ..vectorfield import Asymmetric
from .patches import Col2im, Im2col
from .winograd import TILES, Winograd, multiplications, transform_flipped, transform_kernel

SLOPES = {HARD_SIGMOID: 0.5, CLIP: 1.0, RELU6: 1.0}  # activations clip(slope u, 0, upper bound)


def plain(synapse):
    """The plain synapse whose W leads up, and the one whose W leads down: the same unless the synapse is asymmetric."""
    return (synapse.forward, synapse.feedback) if type(synapse) is Asymmetric else (synapse, synapse)


def unsuitable(network):
    """Why this network takes the readable path, in words; None if it need not.

    (Complex nudging also does; inputs of another dtype than the weights are converted.)
    """
    if type(network) is not Network:
        return f"it is a network of another kind, {type(network).__name__}"
    if {j for _, j in network.wiring} != set(range(1, len(network.shapes))):
        return "it has a layer that no synapse leads to"
    for synapse in [one for pair in map(plain, network.synapses) for one in pair]:
        if type(synapse) not in (Conv, Dense, Identity):
            return f"it has a synapse of another kind, {type(synapse).__name__}"
        if type(synapse) is not Identity and type(synapse.W) is not np.ndarray:
            return "its weights are not NumPy arrays"
        if type(synapse) is Conv and synapse.pool not in ops.POOLINGS.values():
            return f"it has a pooling of another kind, {synapse.pool.name}"
    if len(types := {str(w.dtype) for w in network.parameters().values()}) != 1:
        return f"its parameters have several types, or there are none: {' and '.join(sorted(types)) or 'none'}"
    for (synapse, _), (i, _) in zip(map(plain, network.synapses), network.wiring):
        if i > 0 and type(synapse) is Conv and synapse.padding >= synapse.W.shape[0]:
            return "it has a convolution with more padding than its kernel covers"
    return None


def dtype_of(network):
    """Of the weights."""
    return next(iter(network.parameters().values())).dtype


def path(network):
    """One line for people: which path `prepared(network)` takes, and why."""
    why = unsuitable(network)
    return f"relaxing by ep.dynamics.relax, the readable path: {why}" if why else "relaxing by ep.fast.relax (Winograd)"


class Way(NamedTuple):
    """One direction of a convolution, and what computes it: kind(size, size_in, size_out, padding, N, channels, scratch).

    A stride, where there is one, is an argument more; Winograd's has none.
    """

    kind: type  # Winograd, Im2col or Col2im
    size: int  # m of Winograd's tile, else k of the kernel
    size_in: tuple
    size_out: tuple
    padding: int
    channels: tuple  # (C_in, C_out)
    stride: int = 1

    def make(self, N, scratch):
        return self.kind(*self[1:5], N, self.channels, scratch, *([self.stride] if self.stride > 1 else []))


def way_up(conv, largest_tile):
    """W * pre"""
    k, _, *channels = conv.W.shape
    if conv.stride > 1:
        return Way(Im2col, k, conv.pre_shape[:2], conv.conv_shape, conv.padding, tuple(channels), conv.stride)
    return _cheapest(k, conv.pre_shape[:2], conv.conv_shape, conv.padding, tuple(channels), largest_tile)


def way_down(conv, largest_tile):
    """W^T * y: the convolution with the flipped kernel, or, for few pixels, where that multiplies zeros, col2im."""
    (k, _, C_pre, C_post), pre, post, p = conv.W.shape, conv.pre_shape[:2], conv.conv_shape, conv.padding
    if conv.stride > 1:
        return Way(Col2im, k, post, pre, p, (C_post, C_pre), conv.stride)
    if math.prod(post) < math.prod(pre) and k * k * math.prod(post) <= multiplications(4, pre):
        return Way(Col2im, k, post, pre, p, (C_post, C_pre))
    return _cheapest(k, post, pre, k - 1 - p, (C_post, C_pre), largest_tile)


def _cheapest(k, size_in, size_out, padding, channels, largest_tile):
    """The convolution that takes the fewest multiplications."""
    cost = {m: multiplications(m, size_out) for m in TILES if m <= largest_tile and k == 3}
    m = min(cost, key=cost.get, default=None)
    if m is None or cost[m] > k * k * math.prod(size_out):
        return Way(Im2col, k, size_in, size_out, padding, channels)
    return Way(Winograd, m, size_in, size_out, padding, channels)


class Kernel:
    """The weights of one plain convolution, as its two ways want them: each is made when it is first asked for."""

    def __init__(self, conv, largest_tile):
        self.W, self.way_up, self.way_down = conv.W, way_up(conv, largest_tile), way_down(conv, largest_tile)

    @cached_property
    def up(self):
        return transform_kernel(self.W, self.way_up.size) if self.way_up.kind is Winograd else self.W

    @cached_property
    def down(self):
        if self.way_down.kind is Winograd:
            return transform_flipped(self.W, self.way_down.size)
        if self.way_down.kind is Col2im:
            return self.W
        return np.ascontiguousarray(self.W[::-1, ::-1].transpose(0, 1, 3, 2))


class Kernels(NamedTuple):
    network: Network  # that they were made from
    pairs: list  # for every synapse, (Kernel of W, Kernel of B), the same one if it is symmetric; None if it is no convolution
    # between two layers


def transformed(network, largest_tile=4, map=map):
    """The network's `Kernels`, valid until its weights change.

    largest_tile: 4 or 2 for Winograd's F(4x4, 3x3) or F(2x2, 3x3), 1 for im2col.
    map: of `worker_threads`, to share the work.
    """
    def pair(synapse, ends):
        W, B = plain(synapse)
        if type(W) is not Conv or ends[0] == 0:
            return None
        of_W = Kernel(W, largest_tile)
        of_B = of_W if B is W else Kernel(B, largest_tile)
        return of_W.up, of_B.down, (of_W, of_B)  # the two that every relaxation needs are made here

    return Kernels(network, [made and made[2] for made in map(pair, network.synapses, network.wiring)])
