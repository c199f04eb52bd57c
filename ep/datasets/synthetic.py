"""The embedded data set: 32x32 colour images of shapes and patterns in ten classes, drawn from a seed. NumPy only.

The class is *what* is drawn. Where, how large, how much turned, in which two colours (the shape is the lighter one), on
what gradient and under how much noise is random, so that no single pixel and no colour says much about the class: a
network has to find edges and how they are arranged.

Every shape is a signed distance d(u, v), negative inside, in coordinates that are centred, turned and divided by its
size; the mask clip(1/2 - d, 0, 1), d in pixels, is its smooth picture.
"""

import numpy as np

from .dataset import Dataset

SOURCE = "embedded synthetic images (not CIFAR-10)"
TRAIN, TEST = 4000, 1000
SIDE = 32
LIGHTNESS = np.array([0.3, 0.4, 0.3])  # of red, green, blue


def _disc(u, v):
    return np.hypot(u, v) - 1


def _box(u, v):
    return np.maximum(abs(u), abs(v)) - 1


def _triangle(u, v):
    return np.maximum(0.5 * v + 0.866 * abs(u), -v) - 0.6  # equilateral, two edges and the base


def _bar(u, v):
    return np.maximum(abs(u) - 1.1, abs(v) - 0.3)


def _plus(u, v):
    return np.minimum(_bar(u, v), _bar(v, u))


def _cross(u, v):
    return _plus(0.707 * (u + v), 0.707 * (u - v))


def _waves(u):
    return 0.5 - abs((u / 0.5) % 2 - 1)  # stripes of period 1, as a triangle wave


SHAPES = {  # name -> d(u, v); the label is the position
    "disc": _disc,
    "ring": lambda u, v: abs(_disc(u, v) + 0.2) - 0.2,
    "square": _box,
    "frame": lambda u, v: abs(_box(u, v) + 0.2) - 0.2,
    "triangle": _triangle,
    "plus": _plus,
    "cross": _cross,
    "horizontal stripes": lambda u, v: 0.5 * _waves(v),
    "vertical stripes": lambda u, v: 0.5 * _waves(u),
    "checkerboard": lambda u, v: 1.4 * _waves(u) * _waves(v),
}
CLASSES = tuple(SHAPES)
PATTERNS = ("horizontal stripes", "vertical stripes", "checkerboard")  # they fill the image


def load(note=""):
    """The embedded images as a Dataset; they are normalised as CIFAR-10 is. note: why another data set was not taken."""
    return Dataset(*synthetic_images(), CLASSES, "synthetic", SOURCE, note=note)


def synthetic_images(train=TRAIN, test=TEST, seed=0):
    """(train_images (train, 32, 32, 3), train_labels (train,), test_images, test_labels), all uint8.

    Classes are balanced (up to one image) and in random order. Training and test images come from two streams of
    the seed, so changing one size does not change the other set.
    """
    return (*_split(train, [seed, 0]), *_split(test, [seed, 1]))


def _split(N, seed, block=500):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(N) % len(CLASSES)).astype(np.uint8)
    images = np.empty((N, SIDE, SIDE, 3), dtype=np.uint8)
    for start in range(0, N, block):  # blocks bound the memory
        images[start : start + block] = _draw(labels[start : start + block], rng)
    return images, labels


def _draw(labels, rng):
    """One image per label, (N, 32, 32, 3) uint8."""
    N = len(labels)
    masks = _masks(labels, rng)[..., None]
    back, front = _colours(N, rng)
    gradient = rng.uniform(-0.2, 0.2, (N, 2, 1, 1, 1)) * (np.mgrid[:SIDE, :SIDE][None, ..., None] / (SIDE - 1) - 0.5)
    image = back + masks * (front - back) + gradient.sum(1)
    noise = rng.uniform(0.01, 0.06, (N, 1, 1, 1)) * rng.standard_normal((N, SIDE, SIDE, 3))
    return np.round(255 * np.clip(image + noise, 0, 1)).astype(np.uint8)


def _masks(labels, rng):
    """Coverage of every pixel by the shape, (N, 32, 32) from 0 to 1."""
    N = len(labels)
    pattern = np.isin(labels, [CLASSES.index(name) for name in PATTERNS])
    size = rng.uniform(7, 11, N)  # pixels: the period of a pattern, half the width of a shape
    free = np.where(pattern, size, SIDE / 2 - 1.05 * size)  # how far the centre may move
    centre = SIDE / 2 - 0.5 + free[:, None] * rng.uniform(-1, 1, (N, 2))
    turn = np.deg2rad(rng.uniform(-15, 15, N))
    v, u = (np.mgrid[:SIDE, :SIDE][None] - centre[:, :, None, None]).swapaxes(0, 1) / size[:, None, None]
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    u, v = cos * u + sin * v, cos * v - sin * u
    d = np.empty((N, SIDE, SIDE))
    for label, shape in enumerate(SHAPES.values()):
        chosen = labels == label
        d[chosen] = shape(u[chosen], v[chosen])
    return np.clip(0.5 - d * size[:, None, None], 0, 1)


def _colours(N, rng):
    """(background, shape) colours, (N, 1, 1, 3) each, from 0 to 1: the shape is lighter, by at least 0.3."""
    one, other = rng.uniform(0, 1, (2, N, 3))
    while (close := abs((one - other) @ LIGHTNESS) < 0.3).any():
        one[close], other[close] = rng.uniform(0, 1, (2, int(close.sum()), 3))
    swap = ((one - other) @ LIGHTNESS > 0)[:, None]
    return np.where(swap, other, one)[:, None, None], np.where(swap, one, other)[:, None, None]
