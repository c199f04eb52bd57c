"""3x3 convolution with fewer multiplications: Winograd's F(m x m, 3 x 3), for a CPU.

    y  = A^T [ (G W G^T) * (B^T x B) ] A           one tile: x (m+2, m+2) -> y (m, m); * elementwise       (Winograd 1980)
    dW = G^T [ sum_tiles (B^T x B) * (A y A^T) ] G          its adjoint in W: <y, W x> = <W, dW>

The elementwise product becomes a matrix product over the channels, one for each of the (m+2)^2 positions of a transformed
tile: (m+2)^2 / m^2 multiplications per output and channel pair instead of 9: 4 for m = 2, 2.25 for m = 4. The price is
rounding: B, G, A of m = 4 hold numbers up to 8, and its float32 result is about six times less exact than im2col's
(1.5e-6 of the result's rms against 2.5e-7; docs/performance.md).

Arrays here are (H, W, N, C): the images stand inside, so every pass over rows or columns moves runs of N*C numbers.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

CACHED = 1 << 19  # numbers that are worked on at once: 2 MB, for float32
LARGE = 1 << 19  # numbers of a kernel that is large: 2 MB
REPAID = 16  # uses of a large kernel after which it has been worth exchanging its channels: each is up to 1.3 times slower


class Tile(NamedTuple):
    B_T: list  # (m+2, m+2)  of the input
    G: list  # (m+2, 3)    of the kernel
    A_T: list  # (m, m+2)    of the output


TILES = {
    2: Tile(B_T=[[1, 0, -1, 0],
                 [0, 1, 1, 0],
                 [0, -1, 1, 0],
                 [0, 1, 0, -1]],
            G=[[1, 0, 0],
               [1 / 2, 1 / 2, 1 / 2],
               [1 / 2, -1 / 2, 1 / 2],
               [0, 0, 1]],
            A_T=[[1, 1, 1, 0],
                 [0, 1, -1, -1]]),
    4: Tile(B_T=[[4, 0, -5, 0, 1, 0],
                 [0, -4, -4, 1, 1, 0],
                 [0, 4, -4, -1, 1, 0],
                 [0, -2, -1, 2, 1, 0],
                 [0, 2, -1, -2, 1, 0],
                 [0, 4, 0, -5, 0, 1]],
            G=[[1 / 4, 0, 0],
               [-1 / 6, -1 / 6, -1 / 6],
               [-1 / 6, 1 / 6, -1 / 6],
               [1 / 24, 1 / 12, 1 / 6],
               [1 / 24, -1 / 12, 1 / 6],
               [0, 0, 1]],
            A_T=[[1, 1, 1, 1, 1, 0],
                 [0, 1, -1, 2, -2, 0],
                 [0, 1, 1, 4, 4, 0],
                 [0, 1, -1, 8, -8, 1]]),
}


def transform_kernel(W, m):
    """U = G W G^T for every pair of channels: (3, 3, C_in, C_out) -> ((m+2)^2, C_in, C_out)."""
    return (_GG(m, W.dtype) @ W.reshape(9, -1)).reshape(-1, *W.shape[2:])


def transform_flipped(W, m):
    """The same for the kernel of the way down, W[::-1, ::-1] with its channels exchanged: -> ((m+2)^2, C_out, C_in)."""
    if W.size <= LARGE:  # BLAS is slow with a few rows times a transposed matrix
        return transform_kernel(np.ascontiguousarray(W[::-1, ::-1].transpose(0, 1, 3, 2)), m)
    return transform_kernel(W[::-1, ::-1], m).transpose(0, 2, 1)  # but exchanging the channels of a large one takes longer


def transform_gradient(dU, m):
    """dW = G^T dU G, the adjoint of transform_kernel: ((m+2)^2, C_in, C_out) -> (3, 3, C_in, C_out)."""
    return (_GG(m, dU.dtype).T @ dU.reshape(len(dU), -1)).reshape(3, 3, *dU.shape[1:])


@cache
def _GG(m, dtype):
    G = np.array(TILES[m].G)
    return np.kron(G, G).astype(dtype)  # ((m+2)^2, 9): rows (k, l), columns (a, b)


def multiplications(m, size_out):
    """Per image and pair of channels, for an output (H', W')."""
    return math.prod(-(-size // m) * (m + 2) for size in size_out)


def tile(size_out):
    """The m that takes the fewest."""
    return min(TILES, key=lambda m: multiplications(m, size_out))


class Winograd:
    """The convolution of N images (H, W), stride 1, with the kernel U = transform_kernel(W, m).

    Write the images into `.input` (H, W, N, C_in) while going through `stripes`: slices of rows of the result, and these rows
    (rows, W', N, C_out), to be used before anything else with the same `Scratch` is. A stripe is as many rows of tiles as have
    all their arrays in the cache. `whole` is all of the result.
    """

    def __init__(self, m, size_in, size_out, padding, N, channels, scratch):
        (C_in, C_out), a = channels, m + 2
        self.m, self.size_in, self.size_out, self.padding, self.scratch, self.made = m, size_in, size_out, padding, scratch, None
        self.h, self.w = (-(-size // m) for size in size_out)  # tiles; the last ones reach over the edge, into zeros
        self.x = np.zeros((self.h * m + 2, self.w * m + 2, N, C_in), scratch.dtype)
        self.input, self.channels = self.inside(self.x), channels
        self.B_T, self.A_T = (np.array(T, scratch.dtype) for T in (TILES[m].B_T, TILES[m].A_T))
        self.exchanged = None
        self.stripe = stripes_of(self.h, a * a * self.w * N * (C_in + C_out) + m * self.w * m * N * C_out, a * a * C_in * C_out)
        self.rows = [slice(i * m, min((i + self.stripe) * m, size_out[0])) for i in range(0, self.h, self.stripe)]
        self.tiles_N = self.w * N  # per row of tiles
        scratch.reserve(0, a * a, self.stripe * self.tiles_N, C_out)
        scratch.reserve(1, a * a, self.stripe * self.tiles_N, max(C_in, C_out))
        scratch.reserve(2, self.stripe * a, (self.w * m + 2) * N, max(C_in, C_out))

    def inside(self, x):
        """The images within their border of zeros."""
        return x[self.padding:self.padding + self.size_in[0], self.padding:self.padding + self.size_in[1]]

    def set(self, U):
        """The kernel, ((m+2)^2, C_in, C_out): to be called before the first use and when the weights change."""
        self.U, self.uses = U, 0

    def stripes(self, feed, result=None):
        """feed(rows): write the rows of `.input` before row `rows`, just before they are used.

        result: where the rows are written, if no tile reaches over the edge.
        """
        fits = result is not None and self.size_out == (self.h * self.m, self.w * self.m)
        if self.made is None or self.made[0] != self.scratch.made:
            views = [self.views(i) for i in range(0, self.h, self.stripe)]  # made once, for views cost time too
            self.made = self.scratch.made, views
        self.uses += 1
        if self.uses == REPAID and not self.U.flags.c_contiguous:  # a phase of many steps: see transform_flipped
            self.exchanged = np.empty(self.U.shape, self.U.dtype) if self.exchanged is None else self.exchanged
            self.exchanged[...] = self.U
            self.U = self.exchanged
        for rows, (read, V, M, write, y) in zip(self.rows, self.made[1]):
            feed(min(rows.stop + 2 - self.padding, self.size_in[0]))
            for left, right, out in read:  # x -> V = B^T x B
                np.matmul(left, right, out=out)
            np.matmul(V, self.U, out=M)  # (m+2)^2 times (h w N, C_in) @ (C_in, C_out)
            (A_T, M_tiles, Q), (_, Q_tiles, out) = write  # M -> y = A^T M A
            np.matmul(A_T, M_tiles, out=Q)
            if fits:
                out, y = result[rows].reshape(out.shape), result[rows]
            np.matmul(A_T, Q_tiles, out=out)
            yield rows, y

    def whole(self, feed):
        """The result (H', W', N, C_out), an array of its own."""
        result = np.empty((*self.size_out, self.x.shape[2], self.channels[1]), self.scratch.dtype)
        for rows, y in self.stripes(feed, result):
            if y.base is not result:
                result[rows] = y
        return result

    def views(self, first):
        """(what to multiply, V, M, what to multiply, result) of the stripe whose first row of tiles is `first`."""
        (C_in, C_out), m, a, w, h = self.channels, self.m, self.m + 2, self.w, min(self.stripe, self.h - first)
        V, M = self.scratch(1, a * a, h * self.tiles_N, C_in), self.scratch(0, a * a, h * self.tiles_N, C_out)
        read = read_tiles(self.B_T, self.x[first * m:(first + h) * m + 2], m, V, self.scratch)
        N = self.x.shape[2]
        Q, y = self.scratch(2, a, h, w, m, N * C_out), self.scratch(1, h, m, w * m * N * C_out)
        write = [(self.A_T, M.reshape(a, a, h, w, -1).transpose(0, 2, 3, 1, 4), Q),  # M A
                 (self.A_T, Q.reshape(a, h, -1).transpose(1, 0, 2), y)]  # A^T (M A)
        rows = min(h * m, self.size_out[0] - first * m)
        return read, V, M, write, y.reshape(h * m, w * m, N, C_out)[:rows, :self.size_out[1]]


class WinogradProduct:
    """dW = x_0 y_0 + x_1 y_1, two products of images: <W, dW> = <y_0, W * x_0> + <y_1, W * x_1>.

    x_0 is what stands in `.input` of the convolution `up`; x_1 is written into `.x` (H, W, N, C_in). The y_i come in stripes:
    fill(i, rows, y) has to write these rows of y_i into y (rows, W', N, C_out). The transformed gradient of a small kernel is
    added up piece by piece, as long as a piece stays in the cache; of a large one it is written once.
    """

    def __init__(self, up):
        (C_in, C_out), h, w, N, m, scratch = up.channels, up.h, up.w, up.x.shape[2], up.m, up.scratch
        self.up, self.scratch, self.made, self.A, a2 = up, scratch, None, np.ascontiguousarray(up.A_T.T), (m + 2) ** 2
        large = a2 * C_in * C_out > LARGE
        self.stripe = h if large else stripes_of(h, a2 * w * N * (C_in + C_out), 0)
        self.pairs, p = ([(0, 1)], 2) if large else ([(0,), (1,)], 1)
        self.xs, self.y = (up.x, np.zeros_like(up.x)), np.zeros((self.stripe * m, w * m, N, C_out), scratch.dtype)
        self.x = up.inside(self.xs[1])
        scratch.reserve(0, a2, p, self.stripe * w * N, C_out)
        scratch.reserve(1, a2, p, self.stripe * w * N, C_in)
        scratch.reserve(2, self.stripe * (m + 2), (w * m + 2) * N, max(C_in, C_out))

    def views(self, first, pairs):
        """(rows, pairs, part of .y, what to multiply for each pair, V, Z) of the stripe that starts with this row of tiles."""
        up, (C_in, C_out), m = self.up, self.up.channels, self.up.m
        h = min(self.stripe, up.h - first)
        V, Z = (self.scratch(slot, (m + 2) ** 2, len(pairs), h * up.tiles_N, C) for slot, C in ((1, C_in), (0, C_out)))
        reads = [read_tiles(up.B_T, self.xs[i][first * m:(first + h) * m + 2], m, V[:, k], self.scratch)
                 + read_tiles(self.A, self.y[:h * m], m, Z[:, k], self.scratch) for k, i in enumerate(pairs)]
        rows = slice(first * m, min((first + h) * m, up.size_out[0]))
        return rows, pairs, self.y[:rows.stop - rows.start, :up.size_out[1]], reads, V, Z

    def result(self, fill, wanted=(0, 1)):
        """(3, 3, C_in, C_out): the sum of the wanted products."""
        if self.made is None or self.made[0] != self.scratch.made:
            starts = range(0, self.up.h, self.stripe)
            self.made = self.scratch.made, [self.views(start, pairs) for start in starts for pairs in self.pairs]
        dU = None
        for rows, pairs, y, reads, V, Z in self.made[1]:
            own = [k for k, i in enumerate(pairs) if i in wanted]
            for k in own:
                self.y[len(y):] = 0  # rows of tiles that reach over the edge
                fill(pairs[k], rows, y)
                for left, right, out in reads[k]:  # V_k = B^T x B, Z_k = A y A^T
                    np.matmul(left, right, out=out)
            if own:
                V, Z = (a[:, own[0]:own[-1] + 1].reshape(len(a), -1, a.shape[3]) for a in (V, Z))
                part = np.matmul(V.transpose(0, 2, 1), Z)  # (C_in, p h w N) @ (p h w N, C_out)
                dU = part if dU is None else np.add(dU, part, out=dU)
        return transform_gradient(dU, self.up.m)


def stripes_of(h, size, kernel):
    """How many of h rows of tiles go through at once, if each needs `size` numbers, and each stripe reads the whole kernel."""
    at_once = max(1, min(h, max(CACHED, 4 * kernel) // size))
    return -(-h // -(-h // at_once))  # equal stripes


def read_tiles(T, x, m, V, scratch):
    """T x T^T for a tile x every m rows and columns, as [(left, right, out)], what to multiply. T (a, length): B^T or A.

    x (height, width, N, C) -> V (a^2, h w N, C)
    """
    (a, length), (height, width, N, C) = T.shape, x.shape
    h, w = (height - length) // m + 1, (width - length) // m + 1
    R = scratch(2, h, a, width * N * C)
    rows = overlapping(x.reshape(height, -1), h, m, length)  # tiles of B^T share two rows
    columns = overlapping(R.reshape(h, a, width, -1), w, m, length)  # (h, a, w, length, N C): and two columns
    V = as_strided(V, (a, a, h, w, N * C), (a * V.strides[0], V.strides[0], *(n * V.itemsize for n in (w * N * C, N * C, 1))))
    return [(T, rows, R), (T, columns, V.transpose(2, 0, 3, 1, 4))]  # T x, then (T x) T^T


class Scratch:
    """scratch(i, *shape): an uninitialised array in the i-th of a few buffers that all convolutions of a chain share.

    One set of buffers, used again and again, stays in the cache; buffers of their own for every convolution do not.
    """

    def __init__(self, dtype):
        self.buffers, self.sizes, self.dtype = {}, {}, np.dtype(dtype)
        self.made = 0  # how many buffers have been made: views of earlier ones are then better made anew

    def reserve(self, i, *shape):
        """Announce an array, so that the buffer is made large enough at once. Returns (i, *shape)."""
        self.sizes[i] = max(self.sizes.get(i, 0), math.prod(shape))
        return i, *shape

    def __call__(self, i, *shape):
        self.reserve(i, *shape)
        if i not in self.buffers or self.buffers[i].size < self.sizes[i]:
            self.buffers[i] = np.empty(self.sizes[i], self.dtype)
            self.made += 1
        return self.buffers[i][:math.prod(shape)].reshape(shape)


def overlapping(x, tiles, m, length):
    """View (..., H, run) -> (..., tiles, length, run): `length` rows from every m-th on."""
    *outer, row, item = x.strides
    return as_strided(x, (*x.shape[:-2], tiles, length, x.shape[-1]), (*outer, m * row, row, item), writeable=False)
