"""3x3 convolution with fewer multiplications: Winograd's F(m x m, 3 x 3), for the fast relaxation (fast.py).

    y = A^T [ (G W G^T) * (B^T x B) ] A          one tile: x (m+2, m+2) -> y (m, m); * elementwise          (Winograd 1980)

The elementwise product becomes a matrix product over the channels, one for each of the (m+2)^2 positions of a transformed
tile: (m+2)^2 / m^2 multiplications per output and channel pair instead of 9: 4 for m = 2, 2.25 for m = 4. The price is
rounding: B, G, A of m = 4 hold numbers up to 8, and its float32 result is about six times less exact than im2col's
(1.5e-6 of the result's rms against 2.5e-7; docs/performance.md).

Arrays here are (H, W, N, C): the images stand inside, so every pass over rows or columns moves runs of N*C numbers.
`Im2col` computes the same by im2col, for every kernel size: `convolution` chooses.
"""

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


def tile_size(kernel, size_out, largest=4):
    """m for a kernel (k, k, ...) and an output (H', W'): the largest tile that the output fills, 1 for im2col."""
    fitting = [m for m in TILES if kernel.shape[0] == 3 and m <= min(*size_out, largest)]
    return max(fitting, default=1)


def transform_kernel(W, m):
    """U = G W G^T for every pair of channels: (3, 3, C_in, C_out) -> ((m+2)^2, C_in, C_out); m = 1: W as it is."""
    if m == 1:
        return W
    G = np.array(TILES[m].G)
    GG = np.kron(G, G).astype(W.dtype)  # ((m+2)^2, 9): rows (k, l), columns (a, b)
    return (GG @ W.reshape(9, -1)).reshape(-1, *W.shape[2:])


def convolution(U, m, size_in, size_out, padding, N):
    """The convolution of N images (H, W) with a kernel from `transform_kernel`; stride 1.

    Write the images into `.input` (H, W, N, C_in), call it, and read the result (H', W', N, C_out) before the next call.
    """
    return (Im2col if m == 1 else Winograd)(U, m, size_in, size_out, padding, N)


class Winograd:
    def __init__(self, U, m, size_in, size_out, padding, N):
        a, (C_in, C_out) = m + 2, U.shape[1:]
        h, w = (-(-size // m) for size in size_out)  # tiles, the last ones padded with zeros
        H, W, p = h * m + 2, w * m + 2, padding

        def empty(*shape):
            return np.empty(shape, U.dtype)

        self.U, self.B_T, self.A_T = U, np.array(TILES[m].B_T, U.dtype), np.array(TILES[m].A_T, U.dtype)
        x = np.zeros((H, W, N, C_in), U.dtype)
        self.input = x[p:p + size_in[0], p:p + size_in[1]]
        self.rows = _overlapping(x.reshape(H, W * N * C_in), h, m, a)  # (h, a, W N C): tiles share two rows
        self.R = empty(h, a, W * N * C_in)  # B^T x
        self.columns = _overlapping(self.R.reshape(h, a, W, N * C_in), w, m, a)  # (h, a, w, a, N C)
        self.V = empty(a, a, h, w, N * C_in)  # B^T x B
        self.M = empty(a * a, h * w * N, C_out)  # U * (B^T x B), summed over C_in
        self.Q = empty(a, h, w, m, N * C_out)  # M A
        self.y = empty(h, m, w * m * N * C_out)  # A^T M A
        self.output = self.y.reshape(h * m, w * m, N, C_out)[:size_out[0], :size_out[1]]

    def __call__(self):
        a, _, h, w, _ = self.V.shape
        np.matmul(self.B_T, self.rows, out=self.R)
        np.matmul(self.B_T, self.columns, out=self.V.transpose(2, 0, 3, 1, 4))
        np.matmul(self.V.reshape(a * a, -1, self.U.shape[1]), self.U, out=self.M)  # a^2 times (h w N, C_in) @ (C_in, C_out)
        M = self.M.reshape(a, a, h, w, -1).transpose(0, 2, 3, 1, 4)
        np.matmul(self.A_T, M, out=self.Q)
        np.matmul(self.A_T, self.Q.reshape(a, h, -1).transpose(1, 0, 2), out=self.y)
        return self.output


class Im2col:
    """The columns are gathered once, (k, C_in) side by side; the k rows of the kernel are k products of shifted views."""

    def __init__(self, W, m, size_in, size_out, padding, N):
        k, _, C_in, C_out = W.shape
        (H, width), p = size_out, padding
        self.W = W.reshape(k, k * C_in, C_out)
        self.x = np.zeros((H + k - 1, width + k - 1, N, C_in), W.dtype)
        self.input = self.x[p:p + size_in[0], p:p + size_in[1]]
        self.taps = np.empty((H + k - 1, width, N, k, C_in), W.dtype)
        self.output, self.product = np.empty((2, H, width, N, C_out), W.dtype)

    def __call__(self):
        H, width, _, C_out = self.output.shape
        for b in range(len(self.W)):
            self.taps[:, :, :, b] = self.x[:, b:b + width]
        for a, W in enumerate(self.W):
            rows = self.taps[a:a + H].reshape(-1, len(W))
            np.matmul(rows, W, out=(self.product if a else self.output).reshape(-1, C_out))
            if a:
                self.output += self.product
        return self.output


def _overlapping(x, tiles, m, a):
    """View (..., H, run) -> (..., tiles, a, run): a rows from every m-th on."""
    *outer, row, item = x.strides
    return as_strided(x, (*x.shape[:-2], tiles, a, x.shape[-1]), (*outer, m * row, row, item), writeable=False)
