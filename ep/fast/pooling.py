"""The poolings of the fast path: `pool`, `at_switches` and `unpool` write into buffers instead of making arrays.

Images are (H, W, N, C) here. Their twins are the functions of the same names in ep/ops.py.
"""

import numpy as np

from .. import ops


def inside(a):
    """(N, H, W, C) -> (H, W, N, C), a view; vectors (N, units) stay."""
    return a.transpose(1, 2, 0, 3) if a.ndim == 4 else a


def outside(a):
    """(H, W, N, C) -> (N, H, W, C), a view; vectors (N, units) stay."""
    return a.transpose(2, 0, 1, 3) if a.ndim == 4 else a


class MaxPool:
    """Which corner of a window won, in four booleans, one of them true: `won` (4, H, W, N, C)."""

    def __init__(self, shape):
        self.won = np.zeros((4, *shape), bool)

    def part(self, index):
        """The same windows' pooling for a part of them, or with a new axis: `index` of the arrays (H, W, N, C)."""
        part = object.__new__(MaxPool)
        part.won = self.won[(slice(None), *index)]
        return part

    def pool(self, y, v):
        (y_0, y_1, y_2, y_3), (won_0, won_1, won_2, won_3) = corners(y, v), self.won
        right_top, right_bottom = y_1 > y_0, y_3 > y_2  # the first of equals wins, as in ops.max_pool
        top, low = np.maximum(y_0, y_1, out=v), np.maximum(y_2, y_3)
        bottom = low > top
        np.maximum(top, low, out=v)
        np.bitwise_and(bottom, right_bottom, out=won_3)
        np.bitwise_xor(bottom, won_3, out=won_2)
        np.greater(right_top, bottom, out=won_1)  # and not bottom
        np.bitwise_or(bottom, right_top, out=won_0)
        np.logical_not(won_0, out=won_0)

    def first_wins(self):
        """What `pool` finds where all corners are equal."""
        self.won[...] = False
        self.won[0] = True

    def at_switches(self, y, v):
        y_0, y_1, y_2, y_3 = corners(y, v)
        np.multiply(y_0, self.won[0], out=v)
        for corner, won in zip((y_1, y_2, y_3), self.won[1:]):
            v += corner * won

    def unpool(self, v, y):
        for corner, won in zip(corners(y, v), self.won):
            np.multiply(v, won, out=corner)

    def switches(self):
        won = self.won.view(np.uint8)
        return outside(won[1] + 2 * won[2] + 3 * won[3]).copy()

    def set_switches(self, switches):
        for corner, won in enumerate(self.won):
            won[...] = inside(switches) == corner


class AveragePool:
    def __init__(self, shape):
        pass

    def part(self, index):
        return self

    def first_wins(self):
        pass

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


class Feed:
    """feed(rows): unpool v into the rows of y before row `rows`, and one more at most, as far as this has not been done."""

    def __init__(self, pool, v, y):
        self.pool, self.v, self.y, self.done = pool, v, y, 0
        self.size = 1 if type(pool) is NoPool else ops.SIZE

    def __call__(self, rows):
        until = min(-(-rows // self.size), len(self.v))
        if until > self.done:
            part = slice(self.done, until)
            self.pool.part((part,)).unpool(self.v[part], self.y[self.size * self.done:self.size * until])
            self.done = until


def corners(y, v):
    """The four views of y, (H, W, N, C), that hold the corners of the windows that v has the values of."""
    h, w = v.shape[0] * ops.SIZE, v.shape[1] * ops.SIZE
    return y[:h:2, :w:2], y[:h:2, 1:w:2], y[1:h:2, :w:2], y[1:h:2, 1:w:2]
