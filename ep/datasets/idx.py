"""MNIST and Fashion-MNIST: the four IDX files, plain or gzipped, read without pickle.

    file = 0, 0, type (8: unsigned bytes), number of dimensions, every size (4 bytes each, big-endian), then the bytes

Both have files of the same names, so the name that is asked for decides which one it is. Where they are looked for: the folder
that is asked for, else the environment variable EP_DATA, else the cache (download.py), in it the folder of that name; for
Fashion-MNIST also where Debian's package dataset-fashion-mnist puts it. Where they are not, they are downloaded to.
"""

import gzip
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import EPError
from . import download as downloads
from .cifar import provenance
from .dataset import Dataset, measured

DEBIAN = "/usr/share/datasets/fashion-mnist"
UNSIGNED_BYTES = 8
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


def load(name=None, folder=None, download=True):
    """The images in `folder` as a Dataset of (N, 28, 28, 1) uint8.

    name  "mnist", "fashion-mnist", or None: Fashion-MNIST if no folder is named or its name says so, else it is taken for MNIST
    Raises EPError if a file is not there, damaged, or if images and labels do not belong together.
    """
    name = name or ("fashion-mnist" if not folder or says_fashion(folder) else "mnist")
    place, kind, splits = obtain(name, folder, download), KINDS[name], []
    for images, labels in (FILES[:2], FILES[2:]):
        x, y = read(find(place, images), 3), read(find(place, labels), 1)
        if len(x) != len(y) or not len(y) or y.max() >= len(kind.classes):
            raise EPError(f"{place} is damaged: {images.split('-')[0]} has {len(x)} images and {len(y)} labels up to "
                          f"{y.max(initial=0)}, expected as many of both and labels from 0 to {len(kind.classes) - 1}")
        splits += [x[..., None], y]
    if splits[0].shape[1:] != splits[2].shape[1:]:
        raise EPError(f"{place}: {FILES[0]} and {FILES[2]} differ: their images are {splits[0].shape[1:3]} and "
                      f"{splits[2].shape[1:3]} pixels")
    named = name == "fashion-mnist" and says_fashion(place)
    source = kind.title if named else f"IDX files, taken for {kind.title}"
    mean, std = measured(splits[0])
    return Dataset(*splits, kind.classes, name, provenance(place) or source, str(place.absolute()), mean=mean, std=std,
                   flip=kind.flip, pad=2)


# --- finding ----------------------------------------------------------------------------------------------------------


def says_fashion(folder):
    """Whether a folder, or the one around it (FashionMNIST/raw), is called after Fashion-MNIST."""
    return "fashion" in "/".join(Path(folder).resolve().parts[-2:]).lower()


def obtain(name, folder=None, download=True):
    """The folder of the four files, downloaded if need be. Raises EPError that says why there is none."""
    place, kind = downloads.place(folder), KINDS[name]
    for candidate in (place, place / name, *([Path(DEBIAN)] if name == "fashion-mnist" and not folder else [])):
        if holds(candidate):
            return candidate
    if place.exists() and not place.is_dir():
        raise EPError(f"{place} is a file: name the folder that holds the four IDX files of {kind.title}")
    if not downloads.allowed(download):
        find(place, FILES[0])  # raises: it says what is missing, and what to do
    with downloads.prepared(place / name, kind.title) as target:
        for file, md5 in zip(FILES, kind.md5):
            downloads.fetch(kind.title, f"{kind.url}/{file}.gz", md5, target)
        (target / "SOURCE.txt").write_text(f"{kind.title}\n", encoding="utf-8")
    return place / name


def holds(place):
    """Whether one of the four files is there."""
    return any(path.is_file() for name in FILES for path in paths(place, name))


def paths(place, name):
    """Where a file may be: plain or with .gz, and with a dot before idx, as many copies have it."""
    return [place / f"{written}{ending}" for written in (name, name.replace("-idx", ".idx")) for ending in ("", ".gz")]


def find(place, name):
    """The file by one of its names. Raises EPError if there is none."""
    for path in paths(place, name):
        if path.is_file():
            return path
    raise EPError(f"no {name} (or .gz, or .idx for -idx) in {place}: install Debian's package dataset-fashion-mnist, or name the "
                  "folder that holds the four IDX files of MNIST or Fashion-MNIST with --data")


# --- reading ----------------------------------------------------------------------------------------------------------


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
