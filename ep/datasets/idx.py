"""MNIST and Fashion-MNIST: the four IDX files, plain or gzipped, read without pickle.

    file = 0, 0, type (8: unsigned bytes), number of dimensions, every size (4 bytes each, big-endian), then the bytes

Both have files of the same names, so the name that is asked for decides which one it is. Of a place the folder of that name will
do, too; Fashion-MNIST is also looked for where Debian's package dataset-fashion-mnist puts it.
"""

import gzip
import re
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import EPError
from . import download as downloads
from .dataset import Dataset, measured

DEBIAN = "/usr/share/datasets/fashion-mnist"
FILES = tuple(f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


class Kind(NamedTuple):
    """What the files do not say themselves."""

    title: str
    classes: tuple
    url: str  # of the folder that holds the four files, gzipped
    md5: tuple  # of them, in the order of FILES
    flip: bool  # a mirrored sneaker is a sneaker, a mirrored 3 is no digit


KINDS = {
    "fashion-mnist": Kind("Fashion-MNIST", ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker",
                                            "bag", "ankle boot"),
                          "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
                          ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
                           "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"), True),
    "mnist": Kind("MNIST", tuple("0123456789"), "https://ossci-datasets.s3.amazonaws.com/mnist",
                  ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
                   "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"), False)}


def load(name, folder=None, download=True):
    """MNIST or Fashion-MNIST, "mnist" or "fashion-mnist", as a Dataset of (N, 28, 28, 1) uint8.

    folder, download: see `choose.load`. Raises EPError if a file is neither there nor downloaded, for damaged ones, and if images
    and labels do not belong together.
    """
    place, kind, splits = downloads.place(folder), KINDS[name], []
    places = (place, place / name, *([Path(DEBIAN)] if name == "fashion-mnist" and not folder else []))
    found = next(filter(find, places), None)
    if not found:
        found = place / name
        downloads.fetch(kind.title, {f"{kind.url}/{file}.gz": md5 for file, md5 in zip(FILES, kind.md5)}, found, download)
    paths = find(found)
    for images, labels in (paths[:2], paths[2:]):
        x, y = read(images, 3), read(labels, 1)
        if len(x) != len(y) or not len(y) or y.max() >= len(kind.classes):
            raise EPError(f"{found} is damaged: {images.name} has {len(x)} images and {labels.name} {len(y)} labels up to "
                          f"{y.max(initial=0)}, expected as many of both and labels from 0 to {len(kind.classes) - 1}")
        splits += [x[..., None], y]
    if splits[0].shape[1:] != splits[2].shape[1:]:
        raise EPError(f"{found}: {FILES[0]} and {FILES[2]} differ: their images are {splits[0].shape[1:3]} and "
                      f"{splits[2].shape[1:3]} pixels")
    source = kind.title if called(found) == name else f"IDX files, taken for {kind.title}"
    mean, std = measured(splits[0])
    return Dataset(*splits, kind.classes, name, source, str(found.absolute()), mean=mean, std=std,
                   flip=kind.flip, pad=2)


def called(folder):
    """The data set that a folder, else the one around it (FashionMNIST/raw), is called after; or None."""
    for name in (folder.name.lower(), folder.parent.name.lower()):
        if "fashion" in name:
            return "fashion-mnist"
        if re.search("(?<![a-z])mnist", name):  # and not KMNIST
            return "mnist"
    return None


def find(place):
    """The four files in a folder, plain or with .gz, and with a dot before idx, as many copies have it; None if it lacks one."""
    found = [[path for written in (name, name.replace("-idx", ".idx")) for ending in ("", ".gz")
              if (path := place / f"{written}{ending}").is_file()] for name in FILES]
    return [paths[0] for paths in found] if all(found) else None


def read(path, dimensions):
    """The array in an IDX file of unsigned bytes. Raises EPError if it is none, is cut short or has bytes left over."""
    try:
        content = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
    except (OSError, EOFError, zlib.error) as error:
        raise EPError(f"cannot read {path}: {error}") from None
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes([0, 0, 8, dimensions]):
        raise EPError(f"{path} is no IDX file of unsigned bytes in {dimensions} dimension(s)")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise EPError(f"{path} is damaged: {len(content):,} bytes, expected {expected:,} for the sizes {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
