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
    """The convolution of N images (H, W), stride 1: write them into `.input` (H, W, N, C_in), and ask for the `result`.

    It is made in stripes, which are as many rows of tiles as have all their arrays in the cache.
    """

    def __init__(self, m, size_in, size_out, padding, N, channels, scratch):
        (C_in, C_out), a = channels, m + 2
        self.m, self.size_in, self.size_out, self.padding, self.scratch, self.made = m, size_in, size_out, padding, scratch, None
        self.h, self.w = (-(-size // m) for size in size_out)  # tiles; the last ones reach over the edge, into zeros
        self.x = np.zeros((self.h * m + 2, self.w * m + 2, N, C_in), scratch.dtype)
        self.input, self.channels = self.inside(self.x), channels
        self.B_T, self.A_T = (np.array(T, scratch.dtype) for T in (TILES[m].B_T, TILES[m].A_T))
        self.stripe = stripes_of(self.h, a * a * self.w * N * (C_in + C_out) + m * self.w * m * N * C_out, a * a * C_in * C_out)
        self.tiles_N = self.w * N  # per row of tiles
        scratch.reserve(0, a * a, self.stripe * self.tiles_N, C_out)
        scratch.reserve(1, a * a, self.stripe * self.tiles_N, C_in)
        scratch.reserve(2, self.stripe * a, (self.w * m + 2) * N, max(C_in, C_out))

    def inside(self, x):
        """The images within their border of zeros."""
        return x[self.padding:self.padding + self.size_in[0], self.padding:self.padding + self.size_in[1]]

    def result(self, U, own=True):
        """(H', W', N, C_out), with the kernel U = transform_kernel(W, m); own=False: in memory that the next call uses again."""
        if self.made is None or self.made[0] != self.scratch.made:
            starts = range(0, self.h, self.stripe)
            self.made = self.scratch.made, [self.views(start) for start in starts]  # made once, for views cost time too
        shape = self.h, self.m, self.w * self.m * self.x.shape[2] * self.channels[1]
        y = np.empty(shape, self.scratch.dtype) if own else self.scratch(3, *shape)
        for tiles, read, V, M, M_tiles, Q, Q_tiles in self.made[1]:
            for left, right, out in read:  # x -> V = B^T x B
                np.matmul(left, right, out=out)
            np.matmul(V, U, out=M)  # (m+2)^2 times (h w N, C_in) @ (C_in, C_out)
            np.matmul(self.A_T, M_tiles, out=Q)  # M -> y = A^T M A
            np.matmul(self.A_T, Q_tiles, out=y[tiles])
        H, W = self.size_out
        return y.reshape(self.h * self.m, self.w * self.m, -1, self.channels[1])[:H, :W]

    def views(self, first):
        """(rows of tiles, what to multiply for V, V, M, M by tiles, Q, Q by tiles) of the stripe that starts with this row."""
        (C_in, C_out), m, a, w, h = self.channels, self.m, self.m + 2, self.w, min(self.stripe, self.h - first)
        V, M = self.scratch(1, a * a, h * self.tiles_N, C_in), self.scratch(0, a * a, h * self.tiles_N, C_out)
        read = read_tiles(self.B_T, self.x[first * m:(first + h) * m + 2], m, V, self.scratch)
        Q = self.scratch(2, a, h, w, m, self.x.shape[2] * C_out)  # A^T M
        return (slice(first, first + h), read, V, M, M.reshape(a, a, h, w, -1).transpose(0, 2, 3, 1, 4), Q,
                Q.reshape(a, h, -1).transpose(1, 0, 2))


class WinogradProduct:
    """dW = x_0 y_0 + x_1 y_1, two products of images: <W, dW> = <y_0, W * x_0> + <y_1, W * x_1>.

    Write the images into `.x[i]` (H, W, N, C_in), of which the first is `.input` of the convolution `up`, and `.y[i]`
    (H', W', N, C_out), and ask for the `result`. The transformed gradient of a small kernel is added up piece by piece, as long
    as a piece stays in the cache; of a large one it is written once.
    """

    def __init__(self, up):
        (C_in, C_out), h, w, N, m, scratch = up.channels, up.h, up.w, up.x.shape[2], up.m, up.scratch
        self.up, self.scratch, self.made, self.A, a2 = up, scratch, None, np.ascontiguousarray(up.A_T.T), (m + 2) ** 2
        large = a2 * C_in * C_out > LARGE
        self.stripe = h if large else stripes_of(h, a2 * w * N * (C_in + C_out), 0)
        self.pairs, p = ([(0, 1)], 2) if large else ([(0,), (1,)], 1)
        self.tiles_of_x, self.tiles_of_y = (up.x, np.zeros_like(up.x)), np.zeros((2, h * m, w * m, N, C_out), scratch.dtype)
        self.x = [up.inside(x) for x in self.tiles_of_x]
        self.y = self.tiles_of_y[:, :up.size_out[0], :up.size_out[1]]  # behind them are zeros
        scratch.reserve(0, a2, p, self.stripe * w * N, C_out)
        scratch.reserve(1, a2, p, self.stripe * w * N, C_in)
        scratch.reserve(2, self.stripe * (m + 2), (w * m + 2) * N, max(C_in, C_out))

    def views(self, first, pairs):
        """(pairs, what to multiply for each of them, V, Z) of the stripe that starts with this row of tiles."""
        up, (C_in, C_out), m, scratch = self.up, self.up.channels, self.up.m, self.scratch
        h = min(self.stripe, up.h - first)
        V, Z = (scratch(slot, (m + 2) ** 2, len(pairs), h * up.tiles_N, C) for slot, C in ((1, C_in), (0, C_out)))
        reads = [read_tiles(up.B_T, self.tiles_of_x[i][first * m:(first + h) * m + 2], m, V[:, k], scratch)
                 + read_tiles(self.A, self.tiles_of_y[i][first * m:(first + h) * m], m, Z[:, k], scratch)
                 for k, i in enumerate(pairs)]
        return pairs, reads, V, Z

    def result(self, products):
        """(3, 3, C_in, C_out): the sum of the first so many products."""
        if self.made is None or self.made[0] != self.scratch.made:
            starts = range(0, self.up.h, self.stripe)
            self.made = self.scratch.made, [self.views(start, pairs) for start in starts for pairs in self.pairs]
        dU = None
        for pairs, reads, V, Z in self.made[1]:
            n = sum(i < products for i in pairs)
            for left, right, out in sum(reads[:n], []):  # V_k = B^T x B, Z_k = A y A^T
                np.matmul(left, right, out=out)
            if n:
                V, Z = (a[:, :n].reshape(len(a), -1, a.shape[3]) for a in (V, Z))
                part = np.matmul(V.transpose(0, 2, 1), Z)  # (C_in, n h w N) @ (n h w N, C_out)
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
        """Announce an array, so that the buffer is made large enough at once."""
        self.sizes[i] = max(self.sizes.get(i, 0), math.prod(shape))

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
