"""Convolutions and their products without tiles, for kernels of any size, and images of few pixels: im2col and col2im.

They are used as those of winograd.py: images (H, W, N, C) go into `.input`, `set` tells the kernel, `stripes` has the result, all
of it at once.
"""

import numpy as np

PATCHES = 1 << 18  # numbers of patches that are made at once: 1 MB, for float32


class Im2col:
    """The convolution with W (k, k, C_in, C_out): k columns side by side, k products with shifted views."""

    def __init__(self, k, size_in, size_out, padding, N, channels, scratch):
        (self.C_in, self.C_out), self.channels = channels, channels
        self.k, self.size_in, self.size_out, self.padding, self.scratch = k, size_in, size_out, padding, scratch
        self.x = np.zeros((*(size + 2 * padding for size in size_in), N, self.C_in), scratch.dtype)
        self.input, self.rows = self.inside(self.x), [slice(0, size_out[0])]

    def inside(self, x):
        """The images within their border of zeros."""
        return x[self.padding:self.padding + self.size_in[0], self.padding:self.padding + self.size_in[1]]

    def set(self, W):
        self.W = W.reshape(self.k, self.k * self.C_in, self.C_out)

    def stripes(self, feed=None):
        if feed:
            feed(self.size_in[0])
        (H, width), N = self.size_out, self.x.shape[2]
        taps = self.taps(self.x)
        y, product = (self.scratch(slot, H * width * N, self.C_out) for slot in (1, 2))
        for a, W in enumerate(self.W):
            np.matmul(taps[a:a + H].reshape(-1, W.shape[0]), W, out=product if a else y)
            if a:
                y += product
        yield self.rows[0], y.reshape(H, width, N, self.C_out)

    def whole(self, feed=None):
        """The result, an array of its own."""
        return next(self.stripes(feed))[1].copy()

    def taps(self, x):
        """(rows of x, W', N, k, C_in): the k pixels of a row that an output sees."""
        taps = self.scratch(0, len(x), self.size_out[1], x.shape[2], self.k, self.C_in)
        for b in range(self.k):
            taps[:, :, :, b] = x[:, b:b + self.size_out[1]]
        return taps


class Col2im:
    """The adjoint of a convolution with W (k, k, C_out, C_in), as ops.conv_adjoint_input: for inputs of few pixels."""

    def __init__(self, k, size_in, size_out, padding, N, channels, scratch):
        (C_in, self.C_out), self.k, self.size_out, self.p, self.scratch = channels, k, size_out, padding, scratch
        self.input, self.rows = np.zeros((*size_in, N, C_in), scratch.dtype), [slice(0, size_out[0])]

    def set(self, W):
        self.W = W.reshape(-1, W.shape[3])

    def stripes(self, feed=None):
        if feed:
            feed(len(self.input))
        (h, w, N, C_in), (H, width), p, k, C_out = self.input.shape, self.size_out, self.p, self.k, self.C_out
        cols = self.scratch(0, h * w * N, k * k * C_out)
        np.matmul(self.input.reshape(-1, C_in), self.W.T, out=cols)
        cols = cols.reshape(h, w, N, k, k, C_out)
        y = self.scratch(1, H + 2 * p, width + 2 * p, N, C_out)
        y[...] = 0
        for a in range(k):
            for b in range(k):
                y[a:a + h, b:b + w] += cols[:, :, :, a, b]
        yield self.rows[0], y[p:p + H, p:p + width]

    def whole(self, feed=None):
        """The result, an array of its own."""
        return next(self.stripes(feed))[1].copy()


class PatchProduct:
    """dW = x_0 y_0 + x_1 y_1, as WinogradProduct, but by im2col for any convolution `up`: patches, a stripe of rows at a time."""

    def __init__(self, up, k):
        (H, width), N, (C_in, C_out) = up.size_out, up.x.shape[2], up.channels
        self.up, self.xs = up, (up.x, np.zeros_like(up.x))
        self.x = up.inside(self.xs[1])
        at_once = max(2, min(H, PATCHES // (2 * width * N * k * k * C_in)) // 2 * 2)  # no window is cut
        self.rows = [slice(first, min(first + at_once, H)) for first in range(0, H, at_once)]
        self.y = np.zeros((2, at_once, width, N, C_out), up.x.dtype)
        self.patches = np.zeros((2, at_once, width, N, k, k, C_in), up.x.dtype)

    def result(self, fill, wanted=(0, 1)):
        """(k, k, C_in, C_out): the sum of the wanted products."""
        (_, _, width, _, k, _, C_in), pairs, dW = self.patches.shape, slice(wanted[0], wanted[-1] + 1), 0.0
        for rows in self.rows:
            n = rows.stop - rows.start
            for i in wanted:
                fill(i, rows, self.y[i, :n])
                self.y[i, n:], self.patches[i, n:] = 0, 0
                for a in range(k):
                    for b in range(k):
                        self.patches[i, :n, :, :, a, b] = self.xs[i][rows.start + a:rows.stop + a, b:b + width]
            patches = self.patches[pairs].reshape(-1, k * k * C_in)
            dW = dW + patches.T @ self.y[pairs].reshape(len(patches), -1)
        return dW.reshape(k, k, C_in, -1)
