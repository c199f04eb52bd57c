"""Every operation against its definition in loops and scipy, every adjoint by its inner product, in float64 and complex."""

import numpy as np
import pytest
from helpers import complex_step, dot, normal, relative, slope
from hypothesis import given, strategies as st
from scipy import signal

from ep import ops
from ep.backend import to_host

EXACT = 1e-12  # sums of at most a few hundred products of numbers around 1, in float64
GEOMETRIES = [(3, 1, 1), (3, 1, 0), (2, 2, 0), (5, 2, 2), (1, 1, 0), (3, 3, 1)]  # k, stride, padding


def case(xp, k, stride, padding, shape=(7, 6), dtype="float64"):
    """x (2, H, W, 3), W (k, k, 3, 4) and y of the shape of conv(x, W)."""
    x, W = normal(xp, (2, *shape, 3), 0, dtype), normal(xp, (k, k, 3, 4), 1, dtype)
    H, w = (ops.output_size(size, k, stride, padding) for size in shape)
    return x, W, normal(xp, (2, H, w, 4), 2, dtype)


geometry = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(4, 9), st.integers(4, 9))


@given(geometry, st.sampled_from(["float64", "complex128"]))
def test_conv_is_its_loops(xp, numbers, dtype):
    """conv = conv_loops for random kernels, strides, paddings and sizes."""
    k, stride, padding, H, W = numbers
    x, kernel, _ = case(xp, k, stride, padding, (H, W), dtype)
    expected = ops.conv_loops(to_host(x), to_host(kernel), stride, padding)
    assert relative(ops.conv(x, kernel, stride, padding), expected) < EXACT


@pytest.mark.parametrize("k,stride,padding", GEOMETRIES)
def test_conv_is_scipys_cross_correlation(xp, k, stride, padding):
    """conv is the "valid" cross-correlation of the padded image, every `stride`-th value, summed over channels."""
    x, W, _ = case(xp, k, stride, padding)
    padded, kernel = np.pad(to_host(x), ((0, 0), (padding, padding), (padding, padding), (0, 0))), to_host(W)
    expected = [[sum(signal.correlate(image[:, :, c], kernel[:, :, c, o], "valid") for c in range(3))[::stride, ::stride]
                 for o in range(4)] for image in padded]
    assert relative(ops.conv(x, W, stride, padding), np.moveaxis(expected, 1, -1)) < EXACT


@given(geometry)
def test_col2im_is_the_adjoint_of_im2col(xp, numbers):
    """< im2col(x), cols > = < x, col2im(cols) >."""
    k, stride, padding, H, W = numbers
    x = normal(xp, (2, H, W, 3), 0)
    cols = ops.im2col(x, k, stride, padding)
    other = normal(xp, cols.shape, 1)
    assert dot(cols, other) == pytest.approx(dot(x, ops.col2im(other, (H, W), stride, padding)), rel=EXACT, abs=1e-11)


@given(geometry, st.sampled_from(["float64", "complex128"]))
def test_conv_adjoints(xp, numbers, dtype):
    """< conv(x, W), y > = < x, conv_adjoint_input(y, W) > = < W, conv_adjoint_kernel(x, y) >, without conjugation."""
    k, stride, padding, H, W = numbers
    x, kernel, y = case(xp, k, stride, padding, (H, W), dtype)
    value = dot(ops.conv(x, kernel, stride, padding), y)
    assert abs(value - dot(x, ops.conv_adjoint_input(y, kernel, (H, W), stride, padding))) < 1e-10
    assert abs(value - dot(kernel, ops.conv_adjoint_kernel(x, y, k, stride, padding))) < 1e-10


@pytest.mark.parametrize("k,stride,padding", GEOMETRIES)
def test_conv_derivatives(xp, k, stride, padding):
    """The adjoints are the derivatives of < conv(x, W), y > (linear in x and in W: differences are exact)."""
    x, W, y = case(xp, k, stride, padding)
    dx, dW = normal(xp, x.shape, 5), normal(xp, W.shape, 6)
    by_x = slope(lambda t: dot(ops.conv(x + t * dx, W, stride, padding), y), h=0.1)
    by_W = slope(lambda t: dot(ops.conv(x, W + t * dW, stride, padding), y), h=0.1)
    assert by_x == pytest.approx(dot(ops.conv_adjoint_input(y, W, x.shape[1:3], stride, padding), dx), rel=1e-10)
    assert by_W == pytest.approx(dot(ops.conv_adjoint_kernel(x, y, k, stride, padding), dW), rel=1e-10)


# --- pooling ----------------------------------------------------------------------------------------------------------

sizes = st.tuples(st.integers(2, 7), st.integers(2, 7))


@given(sizes)
def test_pooling_is_its_loops(xp, size):
    """max_pool and average_pool = pool_loops, odd sizes included."""
    y = normal(xp, (2, *size, 3), 0)
    assert np.array_equal(to_host(ops.max_pool(y)[0]), ops.pool_loops(to_host(y)))
    assert relative(ops.average_pool(y)[0], ops.pool_loops(to_host(y), np.mean)) < EXACT


@given(sizes)
def test_the_switches_are_the_argmax(xp, size):
    """Pooling at the switches of max_pool gives what max_pool gives."""
    y = normal(xp, (2, *size, 3), 0)
    v, switches = ops.max_pool(y)
    assert np.array_equal(to_host(ops.max_pool_at(y, switches)), to_host(v))


def test_ties_first_wins(xp):
    """Of equal values the first corner, row by row, is the winner: a window of zeros has the switch 0."""
    window = xp.asarray([[0.0, 1.0], [1.0, 1.0]]).reshape(1, 2, 2, 1)
    assert to_host(ops.max_pool(window)[1]).item() == 1
    assert not to_host(ops.max_pool(xp.zeros((2, 4, 4, 3)))[1]).any()


@given(sizes, st.sampled_from(sorted(ops.POOLINGS)), st.sampled_from(["float64", "complex128"]))
def test_unpooling_is_the_adjoint_of_pooling(xp, size, name, dtype):
    """< pool_at(y, switches), v > = < y, unpool(v, switches) >, also at the switches of another array."""
    pool = ops.POOLINGS[name]
    y, shape = normal(xp, (2, *size, 3), 0, dtype), (2, *(pool.output_size(n) for n in size), 3)
    v, switches = normal(xp, shape, 1, dtype), pool.pool(normal(xp, (2, *size, 3), 2))[1]
    assert abs(dot(pool.pool_at(y, switches), v) - dot(y, pool.unpool(v, switches, size))) < 1e-11


@pytest.mark.parametrize("name", sorted(ops.POOLINGS))
def test_pooling_derivative(xp, name):
    """unpool is the derivative of < pool(y), v > at the switches of y."""
    pool = ops.POOLINGS[name]
    y, dy = normal(xp, (2, 6, 5, 3), 0), normal(xp, (2, 6, 5, 3), 1)
    value, switches = pool.pool(y)
    v = normal(xp, value.shape, 2)
    by_y = slope(lambda t: dot(pool.pool(y + t * dy)[0], v))
    assert by_y == pytest.approx(dot(pool.unpool(v, switches, (6, 5)), dy), rel=1e-9)


@pytest.mark.parametrize("name", sorted(ops.POOLINGS))
def test_pooling_is_differentiated_by_the_complex_step(xp, name):
    """An infinitesimal imaginary part passes through every pooling as a derivative does."""
    pool = ops.POOLINGS[name]
    y, dy = normal(xp, (1, 4, 4, 2), 0), normal(xp, (1, 4, 4, 2), 1)
    value, switches = pool.pool(y)
    v = normal(xp, value.shape, 2)
    derivative = complex_step(lambda t: dot(pool.pool(y + t * dy)[0], v))
    assert derivative == pytest.approx(dot(pool.unpool(v, switches, (4, 4)), dy), rel=EXACT)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_precision_is_kept(xp, dtype):
    """Single precision in, single precision out: nothing is promoted on the way."""
    x, W, y = case(xp, 3, 1, 1, dtype=dtype)
    results = [ops.conv(x, W, 1, 1), ops.conv_adjoint_input(y, W, (7, 6), 1, 1), ops.conv_adjoint_kernel(x, y, 3, 1, 1)]
    for pool in ops.POOLINGS.values():
        v, switches = pool.pool(x)
        results += [v, pool.pool_at(x, switches), pool.unpool(v, switches, (7, 6))]
    assert {str(r.dtype) for r in results} == {dtype}
