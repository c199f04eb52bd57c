"""Every operation against its definition in loops, every adjoint by its inner product, in float64 and complex."""

import itertools

import numpy as np
import pytest
from cases import complex_step, dot
from helpers import conv_loops, normal, relative

from ep import ops
from ep.backend import to_host

EXACT = 1e-12  # sums of at most a few hundred products of numbers around 1, in float64
GEOMETRIES = [(k, stride, padding, H, W) for (k, stride, padding), (H, W) in zip(  # H x W images that nothing need divide
    itertools.product((1, 2, 3, 4, 5), (1, 2, 3), (0, 1, 2)), itertools.cycle([(7, 6), (5, 5), (9, 8), (6, 9)]))
    if k <= 4 or padding == 2]
every_geometry = pytest.mark.parametrize("k,stride,padding,H,W", GEOMETRIES)
every_size = pytest.mark.parametrize("size", [(2, 2), (2, 3), (7, 2), (4, 5), (6, 6), (7, 7)])
every_pooling = pytest.mark.parametrize("name", ops.POOLINGS)
real_and_complex = pytest.mark.parametrize("dtype", ["float64", "complex128"])


def case(xp, k, stride, padding, H, W, dtype="float64"):
    """x (2, H, W, 3), kernel (k, k, 3, 4) and y of the shape of conv(x, kernel)."""
    x, kernel = normal(xp, (2, H, W, 3), 0, dtype), normal(xp, (k, k, 3, 4), 1, dtype)
    shape = (2, *(ops.output_size(size, k, stride, padding) for size in (H, W)), 4)
    return x, kernel, normal(xp, shape, 2, dtype)


def pool_loops(y, reduce=np.max):
    """`ops.max_pool` or, with reduce=np.mean, `ops.average_pool` by their definition; values only."""
    N, H, W, C = y.shape
    v = np.zeros((N, H // ops.SIZE, W // ops.SIZE, C), y.dtype)
    for n, i, j, c in np.ndindex(v.shape):
        v[n, i, j, c] = reduce(y[n, ops.SIZE * i:ops.SIZE * i + ops.SIZE, ops.SIZE * j:ops.SIZE * j + ops.SIZE, c])
    return v


@real_and_complex
@every_geometry
def test_conv_is_its_loops(xp, k, stride, padding, H, W, dtype):
    """conv = conv_loops."""
    x, kernel, _ = case(xp, k, stride, padding, H, W, dtype)
    expected = conv_loops(to_host(x), to_host(kernel), stride, padding)
    assert relative(ops.conv(x, kernel, stride, padding), expected) < EXACT


@pytest.mark.parametrize("k,stride,padding", [(3, 1, 1), (3, 2, 0), (5, 1, 2), (1, 1, 0)])
def test_conv_is_scipys_cross_correlation(xp, k, stride, padding):
    """conv is the "valid" cross-correlation of the padded image, every `stride`-th value, summed over channels."""
    signal = pytest.importorskip("scipy.signal")
    x, W, _ = case(xp, k, stride, padding, 7, 6)
    padded, kernel = np.pad(to_host(x), ((0, 0), (padding, padding), (padding, padding), (0, 0))), to_host(W)
    expected = [[sum(signal.correlate(image[:, :, c], kernel[:, :, c, o], "valid") for c in range(3))[::stride, ::stride]
                 for o in range(4)] for image in padded]
    assert relative(ops.conv(x, W, stride, padding), np.moveaxis(expected, 1, -1)) < EXACT


@every_geometry
def test_col2im_is_the_adjoint_of_im2col(xp, k, stride, padding, H, W):
    """< im2col(x), cols > = < x, col2im(cols) >."""
    x = normal(xp, (2, H, W, 3), 0)
    cols = ops.im2col(x, k, stride, padding)
    other = normal(xp, cols.shape, 1)
    assert dot(cols, other) == pytest.approx(dot(x, ops.col2im(other, (H, W), stride, padding)), rel=EXACT, abs=1e-11)


@real_and_complex
@every_geometry
def test_conv_adjoints(xp, k, stride, padding, H, W, dtype):
    """< conv(x, W), y > = < x, conv_adjoint_input(y, W) > = < W, conv_adjoint_kernel(x, y) >, without conjugation. conv is linear
    in x and in W, so these are its derivatives."""
    x, kernel, y = case(xp, k, stride, padding, H, W, dtype)
    value = dot(ops.conv(x, kernel, stride, padding), y)
    assert abs(value - dot(x, ops.conv_adjoint_input(y, kernel, (H, W), stride, padding))) < 1e-10
    assert abs(value - dot(kernel, ops.conv_adjoint_kernel(x, y, k, stride, padding))) < 1e-10


@every_size
def test_pooling_is_its_loops(xp, size):
    """max_pool and average_pool = pool_loops, odd sizes included; pooling at the switches of max_pool gives the same."""
    y = normal(xp, (2, *size, 3), 0)
    v, switches = ops.max_pool(y)
    assert np.array_equal(to_host(v), pool_loops(to_host(y)))
    assert np.array_equal(to_host(ops.max_pool_at(y, switches)), to_host(v))
    assert relative(ops.average_pool(y)[0], pool_loops(to_host(y), np.mean)) < EXACT


def test_ties_first_wins(xp):
    """Of equal values the first corner, row by row, is the winner: a window of zeros has the switch 0."""
    window = xp.asarray([[0.0, 1.0], [1.0, 1.0]]).reshape(1, 2, 2, 1)
    assert to_host(ops.max_pool(window)[1]).item() == 1
    assert not to_host(ops.max_pool(xp.zeros((2, 4, 4, 3)))[1]).any()


@real_and_complex
@every_pooling
@every_size
def test_unpooling_is_the_adjoint_of_pooling(xp, size, name, dtype):
    """< pool_at(y, switches), v > = < y, unpool(v, switches) >, also at the switches of another array."""
    pool = ops.POOLINGS[name]
    y, shape = normal(xp, (2, *size, 3), 0, dtype), (2, *(pool.output_size(n) for n in size), 3)
    v, switches = normal(xp, shape, 1, dtype), pool.pool(normal(xp, (2, *size, 3), 2))[1]
    assert abs(dot(pool.pool_at(y, switches), v) - dot(y, pool.unpool(v, switches, size))) < 1e-11


@every_pooling
def test_unpooling_is_the_derivative_of_pooling(xp, name):
    """Of < pool(y), v > at the switches of y; and an infinitesimal imaginary part passes through every pooling as it should."""
    pool = ops.POOLINGS[name]
    y, dy = normal(xp, (2, 6, 5, 3), 0), normal(xp, (2, 6, 5, 3), 1)
    value, switches = pool.pool(y)
    v = normal(xp, value.shape, 2)
    derivative = dot(pool.unpool(v, switches, (6, 5)), dy)
    assert complex_step(lambda t: dot(pool.pool(y + t * dy)[0], v)) == pytest.approx(derivative, rel=EXACT)
    assert dot(pool.pool(y + 1e-6 * dy)[0] - value, v) / 1e-6 == pytest.approx(derivative, rel=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_precision_is_kept(xp, dtype):
    """Single precision in, single precision out: nothing is promoted on the way."""
    x, W, y = case(xp, 3, 1, 1, 7, 6, dtype)
    results = [ops.conv(x, W, 1, 1), ops.conv_adjoint_input(y, W, (7, 6), 1, 1), ops.conv_adjoint_kernel(x, y, 3, 1, 1)]
    for pool in ops.POOLINGS.values():
        v, switches = pool.pool(x)
        results += [v, pool.pool_at(x, switches), pool.unpool(v, switches, (7, 6))]
    assert {str(r.dtype) for r in results} == {dtype}
