"""A `Conv` for a CPU: the same numbers as that of ep/synapse.py but for rounding, with less copying and fewer multiplications.

It is Winograd's convolution, or one by patches (winograd.py, patches.py; ways.py says which).

Arrays are (N, H, W, C) outside, as everywhere. In memory those that are made here lie as (H, W, N, C): a row of a layer is
then one run of W*N*C numbers. A convolution goes through its image in stripes of rows, and each stripe is pooled, or unpooled,
while it is in the cache. Buffers belong to a thread, and hold nothing from one call to the next.
"""

import copy
import threading

import numpy as np

from ..synapse import Conv
from .patches import Im2col, PatchProduct
from .ways import way_down, way_up
from .winograd import Scratch, WinogradProduct

KEPT = 8  # numbers of images that a thread keeps buffers for: whole chunks, the rest of a batch, and halves of either
MOST = 64  # buffers of one number of images


def prepared(network, largest_tile=4, map=map):
    """`network` on these synapses, while its weights stay as they are: their kernels are transformed here, once (those of an
    asymmetric one at their first use).

    largest_tile: 4 or 2 for Winograd's F(4x4, 3x3) or F(2x2, 3x3), 1 for im2col. map: of `worker_threads`, to share the work.
    """
    def ready(synapse):
        made = exchanged(synapse, largest_tile)
        if type(made) is TiledConv:
            made.kernel("up"), made.kernel("down")
        return made

    other = copy.copy(network)
    other.synapses = list(map(ready, network.synapses))
    return other


def exchanged(synapse, largest_tile=4):
    """The synapse that takes the place of this one: itself, if there is none."""
    if synapse.parts:
        other = copy.copy(synapse)
        vars(other).update({name: exchanged(getattr(synapse, name), largest_tile) for name in synapse.parts})
        return other
    return synapse if why_not(synapse) else TiledConv(synapse, largest_tile)


def why_not(synapse):
    """Why a synapse stays as it is, in words; None if it need not."""
    if type(synapse) is not Conv:
        return "it is none of this package's convolutions"
    if synapse.W.dtype.kind != "f":
        return "its weights are complex"
    if getattr(synapse.b, "dtype", synapse.W.dtype) != synapse.W.dtype:  # the way down of an asymmetric one has no bias
        return "its parameters have several types"
    if synapse.stride > 1:
        return "it leaves pixels out (its stride)"
    if synapse.pool.window is None:
        return "its pooling does not say which windows it has"
    return "its padding is more than its kernel covers" if synapse.padding >= len(synapse.W) else None


def inside(a):
    """(N, H, W, C) -> (H, W, N, C), a view; vectors (N, units) stay."""
    return a.transpose(1, 2, 0, 3) if a.ndim == 4 else a


def outside(a):
    """(H, W, N, C) -> (N, H, W, C), a view."""
    return a.transpose(2, 0, 1, 3)


# --- buffers ------------------------------------------------------------------------------------------------------------

LOCAL = threading.local()


class Workspace:
    """The buffers of a thread for N images of one dtype: `made(key, make)` returns make() the first time, and the same after."""

    def __init__(self, dtype):
        self.scratch, self.buffers = Scratch(dtype), {}

    def made(self, key, make):
        if key not in self.buffers:
            if len(self.buffers) >= MOST:
                self.buffers.clear()
            self.buffers[key] = make()
        return self.buffers[key]


def workspace(N, dtype):
    """That of this thread; the oldest makes room for a new one."""
    kept = LOCAL.__dict__.setdefault("kept", {})
    if (N, dtype) not in kept:
        for old in list(kept)[:1 - KEPT]:
            del kept[old]
        kept[N, dtype] = Workspace(dtype)
    return kept[N, dtype]


# --- the convolution ---------------------------------------------------------------------------------------------------


class TiledConv(Conv):
    """`Conv` in stripes. Its kernels are transformed when they are first asked for, and stale once W is changed in place."""

    def __init__(self, conv, largest_tile):
        vars(self).update(vars(conv))
        self.way_up, self.way_down = way_up(conv, largest_tile), way_down(conv, largest_tile)
        self.kernels = {}

    def kernel(self, direction):
        """W in the form that the way "up" or "down" wants; made anew if the synapse has got another W."""
        if self.kernels.get(direction, (None,))[0] is not self.W:
            transform = self.way_up.kernel_up if direction == "up" else self.way_down.kernel_down
            self.kernels[direction] = self.W, transform(self.W)
        return self.kernels[direction][1]

    def convolutions(self, N):
        """(way up, way down, product) of this thread: shared by all convolutions of this shape."""
        space = workspace(N, self.W.dtype)

        def make():
            up, down = self.way_up.make(N, space.scratch), self.way_down.make(N, space.scratch)
            patches = type(up) is Im2col or up.h * up.w == 1 and up.m == 2  # not worth transforming dW back
            return up, down, PatchProduct(up, len(self.W)) if patches else WinogradProduct(up)

        return space.made((self.way_up, self.way_down, self.pool.window), make)

    def plain(self, first, *others):
        """Whether this is left to `Conv`: another dtype than that of the weights, or one image.

        One image may stand for all of a batch (dynamics.Messages). Its windows tie then, and Winograd's convolution would break
        ties by rounding; that of `Conv` does not.
        """
        dtype = self.W.dtype
        return len(first) == 1 or first.dtype != dtype or any(a.dtype != dtype for a in others)

    def windows(self, rows):
        """The windows that these rows of the convolution are pooled to."""
        return slice(rows.start // self.pool.window, rows.stop // self.pool.window)

    def pool_stripes(self, stripes, N, switches, b=None):
        """(P(y) + b, switches) of y in stripes (rows, part of y); the largest win, or those that are given."""
        h, w, C = self.post_shape
        v, chosen = np.empty((h, w, N, C), self.W.dtype), switches
        for rows, y in stripes:
            part = self.windows(rows)
            if switches is None:
                pooled, found = self.pool.pool(outside(y))
                if found is not None:
                    chosen = outside(np.empty((h, w, N, C), found.dtype)) if chosen is None else chosen
                    chosen[:, part] = found
            else:
                pooled = self.pool.pool_at(outside(y), switches[:, part])
            if b is None:
                v[part] = inside(pooled)
            else:
                np.add(inside(pooled), b, out=v[part])
        return outside(v), chosen

    def unpool_rows(self, v, switches, windows, y):
        """P^T of these windows of v, into the rows of y (rows, W', N, C) that they cover."""
        self.pool.unpool(v[:, windows], switches if switches is None else switches[:, windows], y.shape[:2], out=outside(y))

    def drive_post(self, pre, switches=None):
        if self.plain(pre):
            return super().drive_post(pre, switches)
        return self.pool_stripes(self.convolved(pre), len(pre), switches, b=rows_of(self.b, len(pre)))

    def linear_post(self, pre, switches):
        if self.plain(pre):
            return super().linear_post(pre, switches)
        return self.pool_stripes(self.convolved(pre), len(pre), switches)[0]

    def winners(self, pre):
        if self.pool.holomorphic or self.plain(pre):
            return super().winners(pre)
        return self.pool_stripes(self.convolved(pre), len(pre), None)[1]

    def convolved(self, pre):
        """W * pre in stripes: (rows, part (rows, W', N, C_post))."""
        up, _, _ = self.convolutions(len(pre))
        up.set(self.kernel("up"))
        x, done = inside(pre), 0

        def feed(rows):  # write the rows before row `rows`, as far as this has not been done
            nonlocal done
            up.input[done:rows] = x[done:rows]
            done = max(done, rows)

        return up.stripes(feed)

    def drive_pre(self, post, switches):
        if self.plain(post):
            return super().drive_pre(post, switches)
        _, down, _ = self.convolutions(len(post))
        down.set(self.kernel("down"))
        return outside(down.whole(self.feed(post, switches, down.input)))

    def feed(self, v, switches, y):
        """feed(rows): unpool v into the rows of y before row `rows`, and one more at most, as far as this has not been done."""
        size, done = self.pool.window, 0

        def until(rows):
            nonlocal done
            windows = slice(done, min(-(-rows // size), v.shape[1]))
            done = max(done, windows.stop)
            if windows.stop > windows.start:
                self.unpool_rows(v, switches, windows, y[size * windows.start:size * windows.stop])

        return until

    def hebbian(self, pre, post, switches):
        if self.plain(pre, post):
            return super().hebbian(pre, post, switches)
        return {"W": self.products(pre, [post], switches), "b": column_sums(post)}

    def hebbian_pair(self, pre, mu_post, mu_pre, post, gain, switches):
        """Both products are one: a sum over the tiles of both, transformed back together."""
        if self.plain(pre, mu_post, mu_pre, post):
            return super().hebbian_pair(pre, mu_post, mu_pre, post, gain, switches)
        _, _, product = self.convolutions(len(pre))
        np.multiply(inside(mu_pre), gain, out=product.x)
        return {"W": self.products(pre, [mu_post, post], switches), "b": column_sums(mu_post)}

    def products(self, pre, posts, switches):
        """pre x P^T(posts[0]), and, if there are two, what stands in product.x, x P^T(posts[1])."""
        up, _, product = self.convolutions(len(pre))
        up.input[...] = inside(pre)

        def fill(i, rows, y):
            windows = self.windows(rows)
            self.unpool_rows(posts[i], switches, windows, y)
            y[self.pool.window * (windows.stop - windows.start):] = 0  # a row that is in no window

        return product.result(fill, (0, 1)[:len(posts)])


def rows_of(b, N):
    """b for N images, (N, C): it is added over runs of N*C numbers, not of C."""
    rows = np.empty((N, *b.shape), b.dtype)
    rows[...] = b
    return rows


def column_sums(a):
    """Sum over all axes but the last."""
    return np.ascontiguousarray(inside(a)).reshape(-1, a.shape[-1]).sum(0)
