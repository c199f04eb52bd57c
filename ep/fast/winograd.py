"""3x3 convolution with fewer multiplications: Winograd's F(m x m, 3 x 3), for the fast path.

    y  = A^T [ (G W G^T) * (B^T x B) ] A           one tile: x (m+2, m+2) -> y (m, m); * elementwise       (Winograd 1980)
    dW = G^T [ sum_tiles (B^T x B) * (A y A^T) ] G          its adjoint in W: <y, W x> = <W, dW>

The elementwise product becomes a matrix product over the channels, one for each of the (m+2)^2 positions of a transformed
tile: (m+2)^2 / m^2 multiplications per output and channel pair instead of 9: 4 for m = 2, 2.25 for m = 4. The price is
rounding: B, G, A of m = 4 hold numbers up to 8, and its float32 result is about six times less exact than im2col's
(1.5e-6 of the result's rms against 2.5e-7; docs/performance.md).

Arrays here are (H, W, N, C): the images stand inside, so every pass over rows or columns moves runs of N*C numbers.
patches.py computes the same without tiles, for kernels of any size.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided


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
    """The same for the kernel of the way down, W[::-1, ::-1] with its channels exchanged: -> ((m+2)^2, C_out, C_in), a view."""
    return (_GG(m, W.dtype)[:, ::-1] @ W.reshape(9, -1)).reshape(-1, *W.shape[2:]).transpose(0, 2, 1)


def transform_gradient(dU, m):
    """dW = G^T dU G, the adjoint of transform_kernel: ((m+2)^2, C_in, C_out) -> (3, 3, C_in, C_out)."""
    return (_GG(m, dU.dtype).T @ dU.reshape(len(dU), -1)).reshape(3, 3, *dU.shape[1:])


def _GG(m, dtype):
    G = np.array(TILES[m].G)
    return np.kron(G, G).astype(dtype)  # ((m+2)^2, 9): rows (k, l), columns (a, b)


def multiplications(m, size_out):
    """Per image and pair of channels, for an output (H', W')."""
    return math.prod(-(-size // m) * (m + 2) for size in size_out)


class Winograd:
    """gain times the convolution of N images (H, W), stride 1, with the kernel U = transform_kernel(W, m).

    Write the images into `.input` (H, W, N, C_in), call it, and use the result (H', W', N, C_out) before the next call of
    anything with the same `Scratch`.
    """

    def __init__(self, m, size_in, size_out, padding, N, channels, scratch):
        (C_in, C_out), a = channels, m + 2
        h, w = tiles = tuple(-(-size // m) for size in size_out)  # the last ones reach over the edge, into zeros
        self.m, self.size_in, self.size_out, self.padding, self.scratch, self.made = m, size_in, size_out, padding, scratch, None
        self.x = np.zeros((h * m + 2, w * m + 2, N, C_in), scratch.dtype)
        self.input = self.inside(self.x)
        self.read, self.write = Read(TILES[m].B_T, m, tiles, scratch), Write(TILES[m].A_T, m, tiles, scratch)
        self.V, self.M = (scratch.reserve(slot, a * a, h * w * N, C) for slot, C in ((1, C_in), (0, C_out)))
        self.read.reserve(self.x.shape)
        self.write.reserve((N, C_out))

    def inside(self, x):
        """The images within their border of zeros."""
        return x[self.padding:self.padding + self.size_in[0], self.padding:self.padding + self.size_in[1]]

    def set(self, U, gain=1.0):
        """The kernel, ((m+2)^2, C_in, C_out), and the gain: to be called before the first use and when the weights change."""
        self.U = U
        self.write.set_gain(gain)

    def views(self):
        """Made once, for views cost time too."""
        V, M = self.scratch(*self.V), self.scratch(*self.M)
        self.made = self.scratch.made, V, M, self.read.views(self.x, V), *self.write.views(M, self.x.shape[2])

    def __call__(self):
        if self.made is None or self.made[0] != self.scratch.made:
            self.views()
        _, V, M, read, write, y = self.made
        for left, right, out in read:  # x -> V = B^T x B
            np.matmul(left, right, out=out)
        np.matmul(V, self.U, out=M)  # (m+2)^2 times (h w N, C_in) @ (C_in, C_out)
        for left, right, out in write:  # M -> y = A^T M A
            np.matmul(left, right, out=out)
        return y[:self.size_out[0], :self.size_out[1]]


class WinogradProduct:
    """dW = x_0 y_0 + x_1 y_1, two products of images: <W, dW> = <y_0, W * x_0> + <y_1, W * x_1>.

    x_0 is what stands in `.input` of the convolution `up`, x_1 is written into `.x` (H, W, N, C_in). For i = 0, 1, y_i is
    written into `.y` (H', W', N, C_out) before `add(i)`; `result` has the sum.
    """

    def __init__(self, up):
        (a2, tiles_N, C_in), (_, _, C_out), (h, w), N, m = up.V[1:], up.M[1:], up.read.tiles, up.x.shape[2], up.m
        self.m, self.scratch, self.made, scratch = m, up.scratch, None, up.scratch
        self.x_0, self.x_1, self.y_whole = up.x, np.zeros_like(up.x), np.zeros((h * m, w * m, N, C_out), scratch.dtype)
        self.x, self.y = up.inside(self.x_1), self.y_whole[:up.size_out[0], :up.size_out[1]]
        self.read_x, self.read_y = up.read, Read(np.transpose(TILES[m].A_T), m, (h, w), scratch)
        self.V, self.Z = scratch.reserve(1, a2, 2, tiles_N, C_in), scratch.reserve(0, a2, 2, tiles_N, C_out)
        self.read_y.reserve(self.y_whole.shape)

    def views(self):
        V, Z = self.scratch(*self.V), self.scratch(*self.Z)
        reads = [self.read_x.views(x, V[:, i]) + self.read_y.views(self.y_whole, Z[:, i])
                 for i, x in enumerate((self.x_0, self.x_1))]
        self.made = self.scratch.made, V, Z, reads

    def add(self, i):
        if self.made is None or self.made[0] != self.scratch.made:
            self.views()
        for left, right, out in self.made[3][i]:  # V_i = B^T x_i B, Z_i = A y_i A^T
            np.matmul(left, right, out=out)

    def result(self, first=0, last=1):
        """(3, 3, C_in, C_out): the sum of the products from the first to the last."""
        V, Z = (a[:, first:last + 1].reshape(len(a), -1, a.shape[3]) for a in self.made[1:3])
        return transform_gradient(np.matmul(V.transpose(0, 2, 1), Z), self.m)  # (C_in, p h w N) @ (p h w N, C_out)


class Read:
    """All tiles of an image: T x T^T for a tile x every m rows and columns. T (a, length): B^T or A."""

    def __init__(self, T, m, tiles, scratch):
        self.T, self.m, self.tiles, self.scratch = np.array(T, scratch.dtype), m, tiles, scratch

    def reserve(self, shape):
        _, width, N, C = shape
        self.R = self.scratch.reserve(2, self.tiles[0], len(self.T), width * N * C)

    def views(self, x, V):
        """[(left, right, out)], what to multiply: x (height, width, N, C) -> V (a^2, h w N, C)."""
        (a, length), (h, w), (height, width, N, C) = self.T.shape, self.tiles, x.shape
        R = self.scratch(*self.R)
        rows = overlapping(x.reshape(height, -1), h, self.m, length)  # tiles of B^T share two rows
        columns = overlapping(R.reshape(h, a, width, -1), w, self.m, length)  # (h, a, w, length, N C): and two columns
        V = as_strided(V, (a, a, h, w, N * C), (a * V.strides[0], V.strides[0], *(n * V.itemsize for n in (w * N * C, N * C, 1))))
        return [(self.T, rows, R), (self.T, columns, V.transpose(2, 0, 3, 1, 4))]  # T x, then (T x) T^T


class Write:
    """The tiles M of an image side by side: gain T M T^T with T (m, a), A^T."""

    def __init__(self, T, m, tiles, scratch):
        self.T, self.m, self.tiles, self.scratch = np.array(T, scratch.dtype), m, tiles, scratch
        self.gain_T = self.T.copy()

    def set_gain(self, gain):
        np.multiply(self.T, gain, out=self.gain_T)

    def reserve(self, N_C):
        (m, a), (h, w), run = self.T.shape, self.tiles, math.prod(N_C)
        self.Q, self.y = self.scratch.reserve(2, a, h, w, m, run), self.scratch.reserve(1, h, m, w * m * run)

    def views(self, M, N):
        """([(left, right, out)], y): M (a^2, h w N, C) -> y (h m, w m, N, C)."""
        (m, a), (h, w), Q, y = self.T.shape, self.tiles, self.scratch(*self.Q), self.scratch(*self.y)
        steps = [(self.T, M.reshape(a, a, h, w, -1).transpose(0, 2, 3, 1, 4), Q),  # M T^T
                 (self.gain_T, Q.reshape(a, h, -1).transpose(1, 0, 2), y)]  # gain T (M T^T)
        return steps, y.reshape(h * m, w * m, N, -1)


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
