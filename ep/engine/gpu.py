"""Synapses, an activation and a readout for a CUDA GPU: each pass over memory in one launch (kernels.py), products by blas.py.

They do what those of the core do, with the same numbers but for the order of additions in products of matrices, and everything in
them can be recorded as a CUDA graph (graph.py). A patch matrix takes at most MEMORY bytes: larger batches go through in pieces.
"""

import copy

from .. import ops
from ..activations import ACTIVATIONS, Activation, total
from ..backend import array_module
from ..cost import SoftmaxCrossEntropy, SquaredError
from ..synapse import Conv, Dense, Identity
from ..vectorfield import plain
from . import blas, kernels
from .blas import matmul
from .cpu import Exchanged

MEMORY = 1 << 28  # bytes
MAX_POOL = ops.MAX_POOL._replace(pool=kernels.max_pool, pool_at=kernels.max_pool_at, unpool=kernels.max_unpool)
POOLINGS, SIGMAS = (MAX_POOL, ops.AVERAGE_POOL, ops.NO_POOL), tuple(ACTIVATIONS.values())  # those of this package


def prepared(network):
    """`network` of these parts. It owns the same parameter arrays, which an optimizer may go on changing in place."""
    other = copy.copy(network)
    other.synapses = [exchanged(synapse) for synapse in network.synapses]
    if type(network.activation) is Activation:
        other.activation = Fused(*network.activation)
    if type(network.cost) is SoftmaxCrossEntropy:
        other.cost = GpuReadout(network.cost)
    return other


def exchanged(synapse):
    """The synapse that takes the place of this one: itself, if there is none."""
    if synapse.parts:
        synapse = copy.copy(synapse)
        vars(synapse).update({name: exchanged(getattr(synapse, name)) for name in synapse.parts})
        return synapse
    replaced = {Conv: GpuConv, Dense: GpuDense}.get(type(synapse))
    return replaced(synapse) if replaced else synapse


def recordable(network):
    """Whether all parts of a network are this package's: those multiply by `blas.matmul`, and never look at a number."""
    return (str(network.any_parameter.dtype) in blas.FLOATS and type(network.cost) in (GpuReadout, SquaredError)
            and network.activation in SIGMAS
            and all(type(one) in (GpuConv, GpuDense, Identity) for one in plain(network))
            and all(one.pool in POOLINGS for one in plain(network) if type(one) is GpuConv))


class GpuConv(Exchanged, Conv):
    def __init__(self, conv):
        vars(self).update(vars(conv), pool=MAX_POOL if conv.pool == ops.MAX_POOL else conv.pool)

    def drive_post(self, pre, switches=None):
        if switches is not None or self.pool != MAX_POOL:
            return super().drive_post(pre, switches)
        return kernels.max_pool_and_add(self._conv(pre), self.b)

    def _conv(self, pre):
        """(N, H, W, C_pre) -> (N, H', W', C_post)"""
        return self._joined(lambda pre: matmul(self._patches(pre), self._matrix()).reshape(len(pre), *self.conv_shape, -1), pre)

    def drive_pre(self, post, switches):
        def adjoint(y):
            cols = matmul(y.reshape(-1, y.shape[3]), self._matrix().T)
            return kernels.col2im(cols.reshape(*y.shape[:3], *self.W.shape[:3]), self.pre_shape[:2], self.stride, self.padding)
        return self._joined(adjoint, self.pool.unpool(post, switches, self.conv_shape))

    def hebbian(self, pre, post, switches):
        return {**self.hebbian_down(pre, post, switches), "b": kernels.column_sums(post)}

    def hebbian_down(self, pre, post, switches):
        y = self.pool.unpool(post, switches, self.conv_shape)
        products = [matmul(self._patches(pre[piece]).T, y[piece].reshape(-1, y.shape[3])) for piece in self._pieces(pre)]
        return {"W": (products[0] if len(products) == 1 else sum(products)).reshape(self.W.shape)}

    def _patches(self, pre):
        return kernels.im2col(pre, len(self.W), self.stride, self.padding).reshape(-1, self._matrix().shape[0])

    def _matrix(self):
        return self.W.reshape(-1, self.W.shape[3])  # (k k C_pre, C_post)

    def _pieces(self, a):
        """Slices of images whose patch matrix fits into MEMORY."""
        bytes_per_image = self.conv_shape[0] * self.conv_shape[1] * self._matrix().shape[0] * a.dtype.itemsize
        n = max(1, MEMORY // bytes_per_image)
        return [slice(start, start + n) for start in range(0, len(a), n)]

    def _joined(self, f, a):
        parts = [f(a[piece]) for piece in self._pieces(a)]
        return parts[0] if len(parts) == 1 else array_module(a).concatenate(parts)


class GpuDense(Exchanged, Dense):
    def __init__(self, dense):
        vars(self).update(vars(dense))

    def linear_post(self, pre, switches=None):
        return matmul(pre.reshape(len(pre), -1), self.W)

    def drive_pre(self, post, switches=None):
        return matmul(post, self.W.T).reshape(len(post), *self.pre_shape)

    def hebbian(self, pre, post, switches=None):
        return {"W": matmul(pre.reshape(len(pre), -1).T, post), "b": post.sum(0)}

    def hebbian_down(self, pre, post, switches=None):
        return {"W": matmul(pre.reshape(len(pre), -1).T, post)}


class GpuReadout(SoftmaxCrossEntropy):
    def __init__(self, cost):
        vars(self).update(vars(cost))

    def force(self, s, y):
        return matmul(y - self.weighted(s, y), self.W.T).reshape(s.shape)

    def gradient(self, s, y):
        error = self.weighted(s, y) - y
        return {"W": matmul(s.reshape(len(s), -1).T, error), "b": error.sum(0)}

    def _logits(self, s):
        z = matmul(s.reshape(len(s), -1), self.W) + self.b
        return z - z.real.max(1, keepdims=True)


class Fused(Activation):
    """`Activation`: where sigma is clip(slope u, low, high), one launch updates a layer, after those that add up its terms."""

    def respond(self, terms):
        *others, (gain, last) = sorted(terms, key=lambda term: term[0] != 1)  # the last one has a factor, if any has
        if self.slope is None or not all(kernels.runs_on(a) for _, a in terms) or not others and gain != 1:
            return super().respond(terms)
        numbers = self.numbers(last)
        if not others:
            return last, kernels.launch("sigma", last.shape, last, *numbers)
        first = total(others)
        shape = max(first.shape, last.shape)  # (N, ...); one of them may be (1, ...)
        return kernels.launch("update", shape, first, last, last.dtype.type(gain), *numbers, dtypes=[last.dtype] * 2)

    def deviate(self, u, s, terms, w):
        d = total(terms)
        if self.slope is None or not kernels.runs_on(d):
            return super().deviate(u, s, [(1.0, d)], w)
        return kernels.launch("deviation", d.shape, u, s, d, d.dtype.type(w), *self.numbers(d))

    def numbers(self, a):
        """slope, low, high as the kernels take them."""
        return [a.dtype.type(number) for number in (self.slope, *self.bounds)]
