"""From stored images to what a network is given: normalisation, and augmentation of training images. NumPy or CuPy."""

from collections.abc import Sequence

import numpy as np

from ..backend import Array, array_module
from ..checks import whole
from ..errors import EPError

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)  # per channel, of images from 0 to 1
CIFAR10_STD = (3 * 0.2023, 3 * 0.1994, 3 * 0.2010)  # the paper divides by three standard deviations


def normalise(images: Array, mean: Sequence[float] = CIFAR10_MEAN, std: Sequence[float] = CIFAR10_STD) -> Array:
    """Images (N, H, W, C), uint8 from 0 to 255 or float from 0 to 1 -> float32 (image - mean) / std of the same shape.

    Without mean and std they are CIFAR-10's, which the embedded images share; `Dataset.normalise` takes the data set's own.
    """
    xp = array_module(images)
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise EPError(f"expected images of uint8 from 0 to 255, or of floats from 0 to 1: got {images.dtype}")
    if images.ndim != 4 or images.shape[-1] != len(mean):
        raise EPError(f"expected images (N, H, W, C) of {len(mean)} channels, channels last: got shape {tuple(images.shape)}")
    mean, std = xp.asarray(mean, dtype=xp.float32), xp.asarray(std, dtype=xp.float32)
    x = images.astype(xp.float32)
    return ((x / 255.0 if images.dtype == np.uint8 else x) - mean) / std


def augment(images: Array, rng: np.random.Generator, pad: int = 4, flip: bool = True) -> Array:
    """Each image (N, H, W, C) flipped left-right with probability 1/2, padded by repeating its edge, cropped at random.

    rng: a NumPy generator, from which the numbers of the whole batch are drawn in order of the images, on the host.
    Padding and cropping are one gather: output pixel i is input pixel clip(i + offset - pad, 0, H - 1).
    """
    xp, pad = array_module(images), whole(pad, "pad")
    if images.ndim != 4:
        raise EPError(f"expected images (N, H, W, C): got shape {tuple(images.shape)}")
    N, H, W, _ = images.shape
    offsets = rng.integers(0, 2 * pad + 1, size=(N, 2)) - pad  # (down, right)
    rows = np.clip(np.arange(H) + offsets[:, :1], 0, H - 1)  # (N, H)
    columns = np.clip(np.arange(W) + offsets[:, 1:], 0, W - 1)  # (N, W)
    if flip:
        columns = np.where(rng.random((N, 1)) < 0.5, W - 1 - columns, columns)
    n, rows, columns = xp.arange(N)[:, None, None], xp.asarray(rows)[:, :, None], xp.asarray(columns)[:, None, :]
    return images[n, rows, columns]
