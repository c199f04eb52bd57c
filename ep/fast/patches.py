"""Convolutions and their products without tiles, for kernels of any size and images of few pixels: im2col and col2im.

They are used as those of winograd.py: images (H, W, N, C) go into `.input`, `set` tells the kernel, a call gives the result.
"""

import numpy as np


class Im2col:
    """gain times the convolution with W (k, k, C_in, C_out): k columns side by side, k products with shifted views."""

    def __init__(self, k, size_in, size_out, padding, N, channels, scratch):
        (self.C_in, self.C_out), (H, width) = channels, size_out
        self.k, self.size_in, self.size_out, self.padding, self.scratch = k, size_in, size_out, padding, scratch
        self.x = np.zeros((H + k - 1, width + k - 1, N, self.C_in), scratch.dtype)
        self.input = self.inside(self.x)

    def inside(self, x):
        """The images within their border of zeros."""
        return x[self.padding:self.padding + self.size_in[0], self.padding:self.padding + self.size_in[1]]

    def set(self, W, gain=1.0):
        self.W = (W if gain == 1 else gain * W).reshape(self.k, self.k * self.C_in, self.C_out)

    def __call__(self):
        (H, width), N = self.size_out, self.x.shape[2]
        taps = self.taps(self.x)
        y, product = (self.scratch(slot, H * width * N, self.C_out) for slot in (1, 2))
        for a, W in enumerate(self.W):
            np.matmul(taps[a:a + H].reshape(-1, W.shape[0]), W, out=product if a else y)
            if a:
                y += product
        return y.reshape(H, width, N, self.C_out)

    def taps(self, x):
        """(H' + k - 1, W', N, k, C_in): the k pixels of a row that an output sees."""
        (H, width), k = self.size_out, self.k
        taps = self.scratch(0, H + k - 1, width, x.shape[2], k, self.C_in)
        for b in range(k):
            taps[:, :, :, b] = x[:, b:b + width]
        return taps


class Col2im:
    """gain times the adjoint of a convolution with W (k, k, C_out, C_in), as ops.conv_adjoint_input: for inputs of few pixels."""

    def __init__(self, k, size_in, size_out, padding, N, channels, scratch):
        (C_in, self.C_out), self.k, self.size_out, self.p, self.scratch = channels, k, size_out, padding, scratch
        self.input = np.zeros((*size_in, N, C_in), scratch.dtype)

    def set(self, W, gain=1.0):
        self.W = W if gain == 1 else gain * W

    def __call__(self):
        (h, w, N, C_in), (H, width), p, k, C_out = self.input.shape, self.size_out, self.p, self.k, self.C_out
        cols = self.scratch(0, h * w * N, k * k * C_out)
        np.matmul(self.input.reshape(-1, C_in), self.W.reshape(-1, C_in).T, out=cols)
        cols = cols.reshape(h, w, N, k, k, C_out)
        y = self.scratch(1, max(H + 2 * p, h + k - 1), max(width + 2 * p, w + k - 1), N, C_out)
        y[...] = 0
        for a in range(k):
            for b in range(k):
                y[a:a + h, b:b + w] += cols[:, :, :, a, b]
        return y[p:p + H, p:p + width]


class PatchProduct:
    """dW = x_0 y_0 + x_1 y_1, as WinogradProduct, for the convolution `up`, an `Im2col`."""

    def __init__(self, up):
        self.up, self.xs, self.pairs = up, (up.x, np.zeros_like(up.x)), [None, None]
        self.x, self.y = up.inside(self.xs[1]), np.zeros((*up.size_out, up.x.shape[2], up.C_out), up.x.dtype)

    def add(self, i):
        taps, y, H = self.up.taps(self.xs[i]), self.y.reshape(-1, self.up.C_out), self.up.size_out[0]
        self.pairs[i] = np.stack([taps[a:a + H].reshape(len(y), -1).T @ y for a in range(self.up.k)])

    def result(self, first=0, last=1):
        """(k, k, C_in, C_out): the sum of the products from the first to the last."""
        k = self.up.k
        return sum(self.pairs[first:last + 1]).reshape(k, k, self.up.C_in, self.up.C_out)
