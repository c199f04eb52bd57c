"""3x3 convolution with fewer multiplications: Winograd's F(m x m, 3 x 3), for the fast relaxation (fast.py).

    y = A^T [ (G W G^T) * (B^T x B) ] A          one tile: x (m+2, m+2) -> y (m, m); * elementwise          (Winograd 1980)

The elementwise product becomes a matrix product over the channels, one for each of the (m+2)^2 positions of a transformed
tile: (m+2)^2 / m^2 multiplications per output and channel pair instead of 9: 4 for m = 2, 2.25 for m = 4. The price is
rounding: B, G, A of m = 4 hold numbers up to 8, and its float32 result is about six times less exact than im2col's
(1.5e-6 of the result's rms against 2.5e-7; docs/performance.md).

Arrays here are (H, W, N, C): the images stand inside, so every pass over rows or columns moves runs of N*C numbers.
`Im2col` and `Col2im` compute the same without tiles, for kernels of any size.
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
    G = np.array(TILES[m].G)
    GG = np.kron(G, G).astype(W.dtype)  # ((m+2)^2, 9): rows (k, l), columns (a, b)
    return (GG @ W.reshape(9, -1)).reshape(-1, *W.shape[2:])


def multiplications(m, size_out):
    """Per image and pair of channels, for an output (H', W')."""
    return math.prod(-(-size // m) * (m + 2) for size in size_out)


class Winograd:
    """Convolution of N images (H, W), stride 1, with U = transform_kernel(W, m).

    Write the images into `.input` (H, W, N, C_in), call it, and use the result (H', W', N, C_out) before the next call of any
    convolution with the same `Scratch`.
    """

    def __init__(self, U, m, size_in, size_out, padding, N, scratch):
        a, (_, C_in, C_out), p = m + 2, U.shape, padding
        h, w = (-(-size // m) for size in size_out)  # tiles; the last ones reach over the edge, into zeros
        height, width = h * m + 2, w * m + 2
        self.U, self.m, self.size_out, self.scratch, self.steps = U, m, size_out, scratch, None
        self.B_T, self.A_T = np.array(TILES[m].B_T, U.dtype), np.array(TILES[m].A_T, U.dtype)
        self.x = np.zeros((height, width, N, C_in), U.dtype)
        self.input = self.x[p:p + size_in[0], p:p + size_in[1]]
        self.shapes = [scratch.reserve(i, *shape) for i, shape in (
            (0, (h, a, width * N * C_in)), (1, (a, a, h, w, N * C_in)), (0, (a * a, h * w * N, C_out)),
            (1, (a, h, w, m, N * C_out)), (2, (h, m, w * m * N * C_out)))]

    def views(self):
        """([(left, right, out)], y): what __call__ multiplies, and where the result is. Made once, for views cost time too."""
        R, V, M, Q, y = (self.scratch(i, *shape) for i, shape in self.shapes)
        (h, a, _), (_, _, _, w, _), m, (height, width, _, C_in) = R.shape, V.shape, y.shape[1], self.x.shape
        rows = overlapping(self.x.reshape(height, -1), h, m, a)  # tiles share two rows
        columns = overlapping(R.reshape(h, a, width, -1), w, m, a)  # (h, a, w, a, N C_in): and two columns
        M_tiles = M.reshape(a, a, h, w, -1).transpose(0, 2, 3, 1, 4)
        products = [
            (self.B_T, rows, R),  # x -> B^T x
            (self.B_T, columns, V.transpose(2, 0, 3, 1, 4)),  # -> B^T x B
            (V.reshape(a * a, -1, C_in), self.U, M),  # a^2 times (h w N, C_in) @ (C_in, C_out)
            (self.A_T, M_tiles, Q),  # M -> M A
            (self.A_T, Q.reshape(a, h, -1).transpose(1, 0, 2), y),  # -> A^T M A
        ]
        image = y.reshape(h * m, w * m, self.x.shape[2], -1)
        return products, image[:self.size_out[0], :self.size_out[1]]

    def __call__(self):
        self.steps = self.steps or self.views()
        products, result = self.steps
        for left, right, out in products:
            np.matmul(left, right, out=out)
        return result


class Im2col:
    """The same with W (k, k, C_in, C_out) itself: k columns side by side, then k products with shifted views of them."""

    def __init__(self, W, size_in, size_out, padding, N, scratch):
        (k, _, C_in, C_out), (H, width), p = W.shape, size_out, padding
        self.W, self.size_out, self.scratch = W.reshape(k, k * C_in, C_out), size_out, scratch
        self.x = np.zeros((H + k - 1, width + k - 1, N, C_in), W.dtype)
        self.input = self.x[p:p + size_in[0], p:p + size_in[1]]

    def __call__(self):
        (k, k_C_in, C_out), (H, width), N = self.W.shape, self.size_out, self.x.shape[2]
        taps = self.scratch(0, H + k - 1, width, N, k, k_C_in // k)
        for b in range(k):
            taps[:, :, :, b] = self.x[:, b:b + width]
        y, product = self.scratch(1, H * width * N, C_out), self.scratch(2, H * width * N, C_out)
        for a, W in enumerate(self.W):
            np.matmul(taps[a:a + H].reshape(-1, k_C_in), W, out=product if a else y)
            if a:
                y += product
        return y.reshape(H, width, N, C_out)


class Col2im:
    """The adjoint of a convolution with W (k, k, C_out, C_in), as ops.conv_adjoint_input: for inputs of few pixels."""

    def __init__(self, W, size_in, size_out, padding, N, scratch):
        self.W, self.size_out, self.p, self.scratch = W, size_out, padding, scratch
        self.input = np.zeros((*size_in, N, W.shape[3]), W.dtype)

    def __call__(self):
        (k, _, C_out, C_in), (h, w, N, _), (H, width), p = self.W.shape, self.input.shape, self.size_out, self.p
        cols = self.scratch(0, h * w * N, k * k * C_out)
        np.matmul(self.input.reshape(-1, C_in), self.W.reshape(-1, C_in).T, out=cols)
        cols = cols.reshape(h, w, N, k, k, C_out)
        y = self.scratch(1, max(H + 2 * p, h + k - 1), max(width + 2 * p, w + k - 1), N, C_out)
        y[...] = 0
        for a in range(k):
            for b in range(k):
                y[a:a + h, b:b + w] += cols[:, :, :, a, b]
        return y[p:p + H, p:p + width]


class Scratch:
    """scratch(i, *shape): an uninitialised array in the i-th of a few buffers that all convolutions of a chain share.

    One set of buffers, used again and again, stays in the cache; buffers of their own for every convolution do not.
    """

    def __init__(self, dtype):
        self.buffers, self.sizes, self.dtype = {}, {}, dtype

    def reserve(self, i, *shape):
        """Announce an array, so that the buffer is made large enough at once. Returns (i, shape)."""
        self.sizes[i] = max(self.sizes.get(i, 0), math.prod(shape))
        return i, shape

    def __call__(self, i, *shape):
        self.reserve(i, *shape)
        if i not in self.buffers or self.buffers[i].size < self.sizes[i]:
            self.buffers[i] = np.empty(self.sizes[i], self.dtype)
        return self.buffers[i][:math.prod(shape)].reshape(shape)


def overlapping(x, tiles, m, a):
    """View (..., H, run) -> (..., tiles, a, run): a rows from every m-th on."""
    *outer, row, item = x.strides
    return as_strided(x, (*x.shape[:-2], tiles, a, x.shape[-1]), (*outer, m * row, row, item), writeable=False)
