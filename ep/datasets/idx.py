"""MNIST and Fashion-MNIST: the four IDX files, plain or gzipped, read without pickle.

    file = 0, 0, type (8: unsigned bytes), number of dimensions, every size (4 bytes each, big-endian), then the bytes

Where they are looked for: the folder that is asked for, else the one of Debian's package dataset-fashion-mnist.
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import EPError
from .cifar import Dataset

DEBIAN = "/usr/share/datasets/fashion-mnist"
FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DIGITS = tuple("0123456789")
UNSIGNED_BYTES = 8


def load(folder=None):
    """The images in `folder` as a `Dataset` of (N, 28, 28, 1) uint8; it is called Fashion-MNIST if the folder's name says so.

    Raises EPError if a file is not there, damaged, or if images and labels do not belong together.
    """
    place = Path(folder or DEBIAN)
    splits = []
    for split in ("train", "t10k"):
        images, labels = read(find(place, f"{split}-images-idx3-ubyte"), 3), read(find(place, f"{split}-labels-idx1-ubyte"), 1)
        if len(images) != len(labels) or not len(labels) or labels.max() > 9:
            raise EPError(f"{place} is damaged: {split} has {len(images)} images and {len(labels)} labels up to "
                          f"{labels.max(initial=0)}, expected as many of both and labels from 0 to 9")
        splits += [images[..., None], labels]
    fashion = "fashion" in str(place.resolve()).lower()
    return Dataset(*splits, FASHION if fashion else DIGITS, "fashion-mnist" if fashion else "mnist",
                   "Fashion-MNIST" if fashion else "IDX files, taken for MNIST", str(place))


def find(place, name):
    """The file, plain or with .gz. Raises EPError if there is neither."""
    for path in (place / name, place / f"{name}.gz"):
        if path.is_file():
            return path
    raise EPError(f"no {name} (or .gz) in {place}: install Debian's package dataset-fashion-mnist, or name the folder that holds "
                  "the four IDX files of MNIST or Fashion-MNIST with --data")


def read(path, dimensions):
    """The array in an IDX file of unsigned bytes. Raises EPError if it is none, is cut short or has bytes left over."""
    try:
        content = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
    except (OSError, EOFError, zlib.error) as error:
        raise EPError(f"cannot read {path}: {error}") from None
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes([0, 0, UNSIGNED_BYTES, dimensions]):
        raise EPError(f"{path} is no IDX file of unsigned bytes in {dimensions} dimension(s)")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise EPError(f"{path} is damaged: {len(content):,} bytes, expected {expected:,} for the sizes {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
