"""Convolution and pooling, written by hand: plain functions on channels-last arrays, NumPy or CuPy, real or complex.

    x   (N, H, W, C_in)          images or states
    W   (k, k, C_in, C_out)      kernel
    y   (N, H', W', C_out)       H' = (H + 2 padding - k) // stride + 1
    cols (N, H', W', k, k, C_in) the patch of x under each output position

Every linear map stands beside its adjoint: <A x, y> = <x, A^T y> with the sum over all elements and *no* complex
conjugation (states are complex only as a tool for differentiation).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .backend import array_module

# --- patches ----------------------------------------------------------------------------------------------------------


def im2col(x, k, stride=1, padding=0):
    """x (N, H, W, C) -> cols (N, H', W', k, k, C):  cols[n, i, j, a, b] = x[n, stride i + a - p, stride j + b - p]."""
    xp = array_module(x)
    N, H, W, C = x.shape
    if padding:
        x_inner, x = x, xp.zeros((N, H + 2 * padding, W + 2 * padding, C), dtype=x.dtype)
        x[:, padding:padding + H, padding:padding + W] = x_inner
    H_out, W_out = output_size(H, k, stride, padding), output_size(W, k, stride, padding)
    n, h, w, c = x.strides
    patches = xp.lib.stride_tricks.as_strided(  # a view; channels-last makes each patch k runs of k*C numbers
        x, (N, H_out, W_out, k, k, C), (n, stride * h, stride * w, h, w, c))
    return xp.ascontiguousarray(patches)


def col2im(cols, shape, stride=1, padding=0):
    """Adjoint of im2col: add every patch back to where it was read. cols (N, H', W', k, k, C) -> x (N, *shape, C)."""
    xp = array_module(cols)
    N, H_out, W_out, k, _, C = cols.shape
    H, W = shape
    x = xp.zeros((N, H + 2 * padding, W + 2 * padding, C), dtype=cols.dtype)
    for a in range(k):
        for b in range(k):
            x[:, a:a + stride * H_out:stride, b:b + stride * W_out:stride] += cols[:, :, :, a, b]
    return x[:, padding:padding + H, padding:padding + W]


def output_size(size, k, stride, padding):
    """Number of output positions along one axis (0 or less: the kernel does not fit)."""
    return (size + 2 * padding - k) // stride + 1


# --- convolution and its two adjoints ---------------------------------------------------------------------------------


def conv(x, W, stride=1, padding=0):
    """y[n, i, j] = sum_ab x[n, stride i + a - p, stride j + b - p] @ W[a, b]     (cross-correlation, as in every framework)."""
    k, _, C_in, C_out = W.shape
    cols = im2col(x, k, stride, padding)
    y = cols.reshape(-1, k * k * C_in) @ W.reshape(-1, C_out)  # (N H' W', k k C_in) @ (k k C_in, C_out)
    return y.reshape(*cols.shape[:3], C_out)


def conv_adjoint_input(y, W, shape, stride=1, padding=0):
    """<conv(x, W), y> = <x, conv_adjoint_input(y, W)>: the transposed convolution. shape = (H, W) of x."""
    C_out = W.shape[3]
    cols = y.reshape(-1, C_out) @ W.reshape(-1, C_out).T  # (N H' W', C_out) @ (C_out, k k C_in)
    return col2im(cols.reshape(*y.shape[:3], *W.shape[:3]), shape, stride, padding)


def conv_adjoint_kernel(x, y, k, stride=1, padding=0):
    """<conv(x, W), y> = <W, conv_adjoint_kernel(x, y)>, summed over the N images. Returns (k, k, C_in, C_out)."""
    C_in, C_out = x.shape[3], y.shape[3]
    cols = im2col(x, k, stride, padding)
    W = cols.reshape(-1, k * k * C_in).T @ y.reshape(-1, C_out)  # (k k C_in, N H' W') @ (N H' W', C_out)
    return W.reshape(k, k, C_in, C_out)


# --- pooling: (pool, pool_at, unpool), windows of 2x2 that do not overlap; an odd last row or column is dropped ---------

SIZE = 2


def _corners(y):
    """The SIZE*SIZE views (N, H//2, W//2, C) of y that hold the 1st, 2nd, ... element of every window, row by row."""
    H, W = y.shape[1] // SIZE * SIZE, y.shape[2] // SIZE * SIZE
    return [y[:, a:H:SIZE, b:W:SIZE] for a in range(SIZE) for b in range(SIZE)]


def max_pool(y):
    """Largest value of each window, and its `switches`: which corner won (uint8; the first of equals)."""
    xp = array_module(y)
    y_0, y_1, y_2, y_3 = _corners(y)
    top, bottom = xp.maximum(y_0, y_1), xp.maximum(y_2, y_3)
    lower, right_top, right_bottom = bottom > top, y_1 > y_0, y_3 > y_2  # >: where they are equal, the first wins
    right = right_top ^ (lower & (right_top ^ right_bottom))  # right_bottom where lower, else right_top
    return xp.maximum(top, bottom), 2 * lower.view(np.uint8) + right.view(np.uint8)


def max_pool_at(y, switches):
    """The value at the given switches: linear in y."""
    return sum(corner * (switches == c) for c, corner in enumerate(_corners(y)))


def max_unpool(v, switches, shape, out=None):
    """Adjoint of max_pool_at: each value goes back to its switch, zeros elsewhere. shape = (H, W) of y; `out` is for reuse."""
    xp = array_module(v)
    y = xp.zeros((len(v), *shape, v.shape[3]), dtype=v.dtype) if out is None else out
    for c, corner in enumerate(_corners(y)):
        xp.multiply(v, switches == c, out=corner)
    return y


def average_pool(y):
    """Mean of each window; there are no switches (None)."""
    return sum(_corners(y)) * (1 / SIZE**2), None


def average_pool_at(y, switches):
    """The same: the mean is linear, and has no switches."""
    return average_pool(y)[0]


def average_unpool(v, switches, shape, out=None):
    """Adjoint of average_pool: a quarter of each value to every corner."""
    y = array_module(v).zeros((len(v), *shape, v.shape[3]), dtype=v.dtype) if out is None else out
    quarter = v * (1 / SIZE**2)
    for corner in _corners(y):
        corner[...] = quarter
    return y


def windows(size):
    """H -> H': how many windows there are along one axis."""
    return size // SIZE


def no_pool(y):
    return y, None


def no_pool_at(y, switches):
    return y


def no_unpool(v, switches, shape, out=None):
    if out is None:
        return v
    out[...] = v
    return out


def unchanged(size):
    return size


class Pooling(NamedTuple):
    """Pooling: three functions, and how an image shrinks. A pooling of one's own needs no more than this."""

    name: str
    pool: Callable  # y -> (v, switches); switches None, or an array whose first axis is the images
    pool_at: Callable  # (y, switches) -> v, linear in y
    unpool: Callable  # (v, switches, (H, W)) -> y, the adjoint of pool_at
    output_size: Callable  # H -> H'
    holomorphic: bool


MAX_POOL = Pooling("max", max_pool, max_pool_at, max_unpool, windows, holomorphic=False)
AVERAGE_POOL = Pooling("average", average_pool, average_pool_at, average_unpool, windows, holomorphic=True)
NO_POOL = Pooling("none", no_pool, no_pool_at, no_unpool, unchanged, holomorphic=True)
POOLINGS = {p.name: p for p in (MAX_POOL, AVERAGE_POOL, NO_POOL)}
