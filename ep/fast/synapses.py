"""The synapses of the fast path: drives and products between buffers. Images are (H, W, N, C), inside a border of zeros.

    FirstConv     from the input: its drive is computed once, its kernel is the only thing that learns from x
    FirstDrive    from the input, whatever it is
    FastConv      between two layers: the way up, the way down, and the product
    FastDense     `Dense` as it is
    FastIdentity  `Identity`, whose drives are copies
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .. import ops
from ..synapse import Conv, Identity
from .patches import Im2col, PatchProduct
from .plan import plain
from .pooling import POOLS, Feed, NoPool, inside, outside
from .winograd import WinogradProduct

FEW = 128  # numbers of a patch, k k C_in: as many columns side by side are no burden for the input
BLOCK = 1 << 17  # numbers of a convolution that still lie in the cache when they are pooled


class FirstDrive:
    """A synapse from the input of any kind, by its own readable methods."""

    def __init__(self, synapse, N, dtype):
        self.drive = np.zeros((*synapse.post_shape[:-1], N, synapse.post_shape[-1]), dtype)

    def start(self, synapse, x, given):
        """Fill `.drive`. given: (drive, switches) if they are known already."""
        self.synapse, self.x = synapse, x
        drive, self.switches = given or synapse.drive_post(x)
        self.drive[...] = inside(drive)

    def set_switches(self, switches):
        self.switches = switches

    def product(self, synapse, x, mu):
        """{"W": hebbian(x, mu)} for mu (H, W, N, C)"""
        return {name: g for name, g in synapse.hebbian(x, outside(mu), self.switches).items() if name != "b"}


class FirstConv:
    """A convolution of images of few channels, by patches (C_in k k, rows W' N): runs of W' N numbers.

    It goes block by block of rows: their patches are made, multiplied and pooled while they are in the cache.
    """

    def __init__(self, conv, N, dtype):
        (k, _, C_in, C_out), (H, width), (h, w) = conv.W.shape, conv.conv_shape, conv.post_shape[:2]
        self.x, self.padding, self.size_in = None, conv.padding, conv.pre_shape[:2]
        self.padded = np.zeros((C_in, H + k - 1, width + k - 1, N), dtype)
        self.drive = np.zeros((h, w, N, C_out), dtype)
        self.pool, size = POOLS[conv.pool.name](self.drive.shape), 1 if conv.pool == ops.NO_POOL else ops.SIZE
        at_once = max(1, min(h, BLOCK // (size * width * N * C_out)))
        self.patches = np.empty((C_in, k, k, size * at_once, width * N), dtype)
        self.y, self.covered = np.zeros((size * at_once, width, N, C_out), dtype), size * w  # columns that windows cover
        channel, row, column, item = self.padded.strides
        self.blocks = []
        for first in range(0, h, at_once):
            rows = min(at_once, h - first)
            source = as_strided(self.padded[:, size * first:], (C_in, k, k, size * rows, width * N),
                                (channel, row, column, row, item), writeable=False)
            self.blocks.append((slice(first, first + rows), source, self.pool.part((slice(first, first + rows),))))

    def start(self, synapse, x, given):
        """Fill `.drive`. given: (drive, switches) if they are known already."""
        self.x = None
        if given:
            self.drive[...] = inside(given[0])
            self.pool.set_switches(given[1])
            return
        self.read(x)
        W = synapse.W.transpose(2, 0, 1, 3).reshape(-1, synapse.W.shape[3])  # (C_in k k, C_out)
        for part, source, pool in self.blocks:
            patches, y = self.block(source)
            np.matmul(patches.T, W, out=y.reshape(-1, y.shape[3]))
            pool.pool(y, self.drive[part])
            self.drive[part] += synapse.b

    def read(self, x):
        """Put x (N, H, W, C) inside the border of zeros."""
        p, (height, width) = self.padding, self.size_in
        self.padded[:, p:p + height, p:p + width] = x.transpose(3, 1, 2, 0)
        self.x = x

    def block(self, source):
        """(patches (C_in k k, rows W' N), y (rows, W', N, C_out)) of a block."""
        rows = source.shape[3]
        patches = self.patches[:, :, :, :rows]
        np.copyto(patches, source)
        return patches.reshape(-1, rows * source.shape[4]), self.y[:rows]

    @property
    def switches(self):
        return self.pool.switches()

    def set_switches(self, switches):
        self.x = None
        self.pool.set_switches(switches)

    def product(self, synapse, x, mu):
        """{"W": hebbian(x, mu)} for mu (H, W, N, C)"""
        if self.x is not x:
            self.read(x)
        dW, (k, _, C_in, C_out) = 0.0, synapse.W.shape
        for part, source, pool in self.blocks:
            patches, y = self.block(source)
            y[:, self.covered:] = 0
            pool.unpool(mu[part], y)
            dW = dW + patches @ y.reshape(-1, C_out)
        return {"W": dW.reshape(C_in, k, k, C_out).transpose(1, 2, 0, 3)}


def first(synapse, N, dtype):
    """The buffers of the synapse from the input."""
    suits = type(synapse) is Conv and synapse.stride == 1 and synapse.W[..., 0].size <= FEW
    return (FirstConv if suits else FirstDrive)(synapse, N, dtype)


def between(synapse, pair, N, scratch):
    """The buffers of a synapse between two layers."""
    kind = FastConv if pair else FastIdentity if type(synapse) is Identity else FastDense
    return kind(synapse, pair, N, scratch)


class FastIdentity:
    """`Identity`. Its `pre` is the state itself: chain.py sets it."""

    def __init__(self, synapse, pair, N, scratch):
        self.drive = np.zeros((*synapse.post_shape[:-1], N, synapse.post_shape[-1]), scratch.dtype)

    def start(self, synapse, pair, gain):
        self.gain = gain

    def drive_post(self, frozen):
        np.copyto(self.drive, self.pre)

    def drive_of_zero(self, frozen):
        self.drive[...] = 0

    def drive_pre(self, post):
        yield slice(None), self.gain * post

    def switches(self):
        return None

    def set_switches(self, switches):
        pass

    def start_response(self, transposed, scale):
        self.scale = scale

    def response_pre(self, delta):
        yield slice(None), self.scale * delta

    def response_post(self, delta):
        return self.scale * self.gain * delta

    def products(self, mu_pre, mu_post, s_post):
        return {}


class FastDense:
    """`Dense`; a pre layer that is an image lies in (H, W, N, C) and is flattened as (H, W, C)."""

    def __init__(self, synapse, pair, N, scratch):
        *size, channels = synapse.pre_shape
        self.pre = np.zeros((*size, N, channels), scratch.dtype)
        self.drive = np.zeros((N, *synapse.post_shape), scratch.dtype)

    def start(self, synapse, pair, gain):
        (self.up, self.down), self.gain = plain(synapse), gain

    def drive_post(self, frozen):
        self.drive[...] = self.up.drive_post(outside(self.pre))[0]

    def drive_of_zero(self, frozen):
        self.drive[...] = self.up.b

    def drive_pre(self, post):
        yield slice(None), self.gain * inside(self.down.drive_pre(post))

    def switches(self):
        return None if self.up is self.down else (None, None)

    def set_switches(self, switches):
        pass

    def start_response(self, transposed, scale):
        self.scale, (self.back_up, self.back_down) = scale, (self.down, self.up) if transposed else (self.up, self.down)

    def response_pre(self, delta):
        yield slice(None), self.scale * inside(self.back_down.drive_pre(delta))

    def response_post(self, delta):
        return self.scale * self.gain * self.back_up.linear_post(outside(delta))

    def products(self, mu_pre, mu_post, s_post):
        """{"W": dW} or {"W": dW, "B": dB}: hebbian(s_pre, mu_post) and gain hebbian(mu_pre, s_post)."""
        dW = self.up.linear_hebbian(outside(self.pre), mu_post)["W"]
        dB = self.gain * self.down.linear_hebbian(outside(mu_pre), s_post)["W"]
        return {"W": dW + dB} if self.up is self.down else {"W": dW, "B": dB}


class FastConv:
    """`Conv`, its two convolutions in buffers of their own; a third one where it is asymmetric."""

    def __init__(self, synapse, pair, N, scratch):
        of_W, of_B = pair
        self.N, self.scratch = N, scratch
        self.up, self.down = of_W.way_up.make(N, scratch), of_B.way_down.make(N, scratch)
        self.pre = self.up.input  # (H, W, N, C_pre), inside its border of zeros
        self.drive = np.zeros((*synapse.post_shape[:2], N, synapse.post_shape[2]), scratch.dtype)
        self.b = np.empty(self.drive.shape[2:], scratch.dtype)  # as long as a run: adding it is one pass
        self.symmetric, self.product, self.up_again, self.winners = of_W is of_B, None, None, []
        make = POOLS[synapse.pool.name]
        self.pool_up = self.pool_down = make(self.drive.shape)
        if not self.symmetric:
            self.pool_down = make(self.drive.shape)
        if not self.symmetric and synapse.pool == ops.MAX_POOL:
            self.winners = [of_B.way_up.make(N, scratch)]  # B * pre, for the switches of the way down
            self.winners[0].x = self.up.x
        size = 1 if synapse.pool == ops.NO_POOL else ops.SIZE
        self.parts = [(slice(rows.start // size, rows.stop // size),) for rows in self.up.rows]  # what a stripe is pooled to

    def start(self, synapse, pair, gain):
        """Take the present weights."""
        (self.of_W, self.of_B), self.gain = pair, gain
        self.b[...] = synapse.b
        self.up.set(self.of_W.up)
        self.down.set(self.of_B.down, gain)
        for conv in self.winners:
            conv.set(self.of_B.up)

    def drive_post(self, frozen):
        """drive <- P(W * pre) + b, stripe by stripe"""
        for part, (_, y) in zip(self.parts, self.up.stripes()):
            pool, drive = self.pool_up.part(part), self.drive[part]
            (pool.at_switches if frozen else pool.pool)(y, drive)
            drive += self.b
        for conv in () if frozen else self.winners:
            for part, (_, y) in zip(self.parts, conv.stripes()):
                self.pool_down.part(part).pool(y, np.empty_like(self.drive[part]))

    def drive_of_zero(self, frozen):
        self.drive[...] = self.b
        for pool in () if frozen else (self.pool_up, self.pool_down):
            pool.first_wins()

    def drive_pre(self, post):
        """gain W^T * P^T(post), in stripes of (H, W, N, C_pre): yields (rows, drive)"""
        return self.down.stripes(Feed(self.pool_down, post, self.down.input))

    def switches(self):
        return self.pool_up.switches() if self.symmetric else (self.pool_up.switches(), self.pool_down.switches())

    def set_switches(self, switches):
        for pool, sw in zip((self.pool_up, self.pool_down), (switches,) if self.symmetric else switches):
            pool.set_switches(sw)

    def start_response(self, transposed, scale):
        """The ways of deviations, times `scale`, at the present switches. transposed: down through W, up through B."""
        down, self.back_up = (self.of_W, self.of_B) if transposed else (self.of_B, self.of_W)
        pools = self.pool_up, self.pool_down
        self.back_pool_down, self.back_pool_up = pools if transposed else pools[::-1]
        self.down.set(down.down, scale)
        self.scale = scale
        if self.up_again is not None:
            self.up_again.set(self.back_up.up, scale * self.gain)

    def response_pre(self, delta):
        """scale W^T * P^T(delta), in stripes"""
        return self.down.stripes(Feed(self.back_pool_down, delta, self.down.input))

    def response_post(self, delta):
        """scale gain P(B * delta)"""
        if self.up_again is None:  # `up` itself keeps the free state, which the products need
            self.up_again, self.response = self.of_W.way_up.make(self.N, self.scratch), np.empty_like(self.drive)
            self.up_again.set(self.back_up.up, self.scale * self.gain)
        self.up_again.input[...] = delta
        for part, (_, y) in zip(self.parts, self.up_again.stripes()):
            self.back_pool_up.part(part).at_switches(y, self.response[part])
        return self.response

    def products(self, mu_pre, mu_post, s_post):
        """{"W": dW} or {"W": dW, "B": dB}: hebbian(s_pre, mu_post) and gain hebbian(mu_pre, s_post)."""
        if self.product is None:
            single = type(self.up) is Im2col or self.up.h * self.up.w == 1 and self.up.m == 2  # not worth transforming dW back
            self.product = PatchProduct(self.up, len(self.of_W.W)) if single else WinogradProduct(self.up)
        np.multiply(mu_pre, self.gain, out=self.product.x)
        feeds = (self.pool_up, mu_post), (self.pool_down, s_post)

        def fill(i, rows, y):
            (pool, v), size = feeds[i], 1 if type(self.pool_up) is NoPool else ops.SIZE
            part = slice(rows.start // size, rows.stop // size)
            pool.part((part,)).unpool(v[part], y)
            y[size * (part.stop - part.start):] = 0  # a row that is in no window

        result = self.product.result
        return {"W": result(fill)} if self.symmetric else {"W": result(fill, (0,)), "B": result(fill, (1,))}
