"""The poolings of the fast path: `pool`, `at_switches` and `unpool` write into buffers instead of making arrays.

Images are (H, W, N, C) here. Their twins are the functions of the same names in ep/ops.py.
"""

import copy

import numpy as np

from .. import ops


def inside(a):
    """(N, H, W, C) -> (H, W, N, C), a view; vectors (N, units) stay."""
    return a.transpose(1, 2, 0, 3) if a.ndim == 4 else a


def outside(a):
    """(H, W, N, C) -> (N, H, W, C), a view; vectors (N, units) stay."""
    return a.transpose(2, 0, 1, 3) if a.ndim == 4 else a


class MaxPool:
    """Which corner of a window won, in three booleans: g bottom row; g_top, g_bottom right column of either row."""

    def __init__(self, shape):
        self.g, self.g_top, self.g_bottom = np.zeros((3, *shape), bool)

    def part(self, index):
        """The same windows' pooling for a part of them, or with a new axis: `index` of the arrays (H, W, N, C)."""
        part = copy.copy(self)
        part.g, part.g_top, part.g_bottom = self.g[index], self.g_top[index], self.g_bottom[index]
        return part

    def pool(self, y, v):
        y_0, y_1, y_2, y_3 = corners(y, v)
        np.greater(y_1, y_0, out=self.g_top)  # the first of equals wins, as in ops.max_pool
        np.greater(y_3, y_2, out=self.g_bottom)
        top, bottom = np.maximum(y_0, y_1, out=v), np.maximum(y_2, y_3)
        np.greater(bottom, top, out=self.g)
        np.maximum(top, bottom, out=v)

    def at_switches(self, y, v):
        y_0, y_1, y_2, y_3 = corners(y, v)
        top, bottom = y_0 * ~self.g_top + y_1 * self.g_top, y_2 * ~self.g_bottom + y_3 * self.g_bottom
        np.add(top * ~self.g, bottom * self.g, out=v)

    def unpool(self, v, y):
        y_0, y_1, y_2, y_3 = corners(y, v)
        bottom = v * self.g
        top = v - bottom  # v or 0, exactly
        np.multiply(bottom, self.g_bottom, out=y_3)
        np.subtract(bottom, y_3, out=y_2)
        np.multiply(top, self.g_top, out=y_1)
        np.subtract(top, y_1, out=y_0)

    def switches(self):
        right = self.g & self.g_bottom | ~self.g & self.g_top
        return outside(2 * self.g.view(np.uint8) + right.view(np.uint8)).copy()

    def set_switches(self, switches):
        corner = inside(switches)
        self.g[...], self.g_top[...], self.g_bottom[...] = corner >= 2, corner == 1, corner == 3


class AveragePool:
    def __init__(self, shape):
        pass

    def part(self, index):
        return self

    def pool(self, y, v):
        y_0, y_1, y_2, y_3 = corners(y, v)
        np.add(y_0, y_1, out=v)
        np.add(v, y_2, out=v)
        np.add(v, y_3, out=v)
        v *= 1 / ops.SIZE**2

    def at_switches(self, y, v):
        self.pool(y, v)

    def unpool(self, v, y):
        quarter = v * (1 / ops.SIZE**2)
        for corner in corners(y, v):
            corner[...] = quarter

    def switches(self):
        return None

    def set_switches(self, switches):
        pass


class NoPool(AveragePool):
    def pool(self, y, v):
        v[...] = y

    def unpool(self, v, y):
        y[...] = v


POOLS = {"max": MaxPool, "average": AveragePool, "none": NoPool}


def corners(y, v):
    """The four views of y, (H, W, N, C), that hold the corners of the windows that v has the values of."""
    h, w = v.shape[0] * ops.SIZE, v.shape[1] * ops.SIZE
    return y[:h:2, :w:2], y[:h:2, 1:w:2], y[1:h:2, :w:2], y[1:h:2, 1:w:2]
