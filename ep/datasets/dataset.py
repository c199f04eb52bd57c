"""What every data set is once it has been read: the record `Dataset`, whichever file of this folder made it."""

from typing import NamedTuple

import numpy as np

from ..backend import Array
from ..checks import whole
from ..errors import EPError
from .augment import CIFAR10_MEAN, CIFAR10_STD, normalise


class Dataset(NamedTuple):
    """Labelled images, and everything that training and prediction have to know about them.

    mean, std  per channel, of images from 0 to 1: a network is given (image - mean) / std. See `measured`.
    flip, pad  the augmentation that suits these images: mirror images of them are still of their class, and so are crops of
               them that are moved by up to `pad` pixels
    """

    train_images: np.ndarray  # (N, H, W, C), channels-last, uint8 from 0 to 255 or float32 from 0 to 1
    train_labels: np.ndarray  # (N,) of an unsigned integer type
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]  # of names; the label is the position
    name: str  # what `load` calls it: "cifar10", "synthetic", "folder" ...
    source: str  # provenance, one line
    folder: str | None = None  # the folder or file that it was read from, an absolute path
    note: str = ""  # what the reader of a log should know: files left out, why another data set was not taken
    mean: tuple[float, ...] = CIFAR10_MEAN
    std: tuple[float, ...] = CIFAR10_STD
    flip: bool = False
    pad: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of one image."""
        return tuple(self.train_images.shape[1:])

    def normalise(self, images: Array) -> Array:
        """Images of this data set, or others like them -> float32 (image - mean) / std, NumPy or CuPy."""
        return normalise(images, self.mean, self.std)

    def about(self) -> dict:
        """What a trained network has to carry (`Network.about`), so that predict.py is right about it. JSON-able."""
        return dict(dataset=self.name, source=self.source, classes=list(self.classes), image_shape=list(self.shape),
                    mean=list(self.mean), std=list(self.std))


def measured(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) per channel of uint8 images from 0 to 255 or float images from 0 to 1, as `Dataset` keeps them:

        mean = <v>,   std = 3 sqrt( <v^2> - <v>^2 ),   v from 0 to 1, over all images, rows and columns

    The factor 3 is the paper's, which divides CIFAR-10 by three standard deviations: inputs then lie in about -1 to 1. Both are
    rounded to four decimals, so that they are the same on every machine. A constant channel is divided by 1.
    """
    count, total, squares = images.size // images.shape[-1], 0.0, 0.0
    for start in range(0, len(images), 1000):  # blocks bound the memory
        v = images[start : start + 1000].astype(np.float64) / (255.0 if images.dtype == np.uint8 else 1.0)
        total, squares = total + v.sum((0, 1, 2)), squares + (v * v).sum((0, 1, 2))
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0)).round(4)
    return (tuple(mean.round(4).tolist()), tuple(float(3 * d) if d > 0 else 1.0 for d in deviation.tolist()))


def hold_out(dataset: Dataset, images: int) -> Dataset:
    """`dataset` with its last `images` training images in the place of the test images, which stay unseen (0: as it is).

    Settings are chosen on these. Mean and std stay those of the whole data set. Where the images are sorted by class, the note
    says which are on which side. Raises EPError if that leaves no training image.
    """
    if whole(images, "validation images") >= len(dataset.train_labels):
        raise EPError(f"validation images: {images} asked for, but {dataset.source} has {len(dataset.train_labels)} training "
                      "images")
    if images == 0:
        return dataset
    x, y = dataset.train_images, dataset.train_labels
    left, held = (short([dataset.classes[label] for label in np.unique(part)]) for part in (y[:-images], y[-images:]))
    by_class = len(np.setdiff1d(y[-images:], y[:-images])) or (y[1:] >= y[:-1]).all()
    note = f"held out are images of {held}, trained on are images of {left}: shuffle what is sorted by class" if by_class else ""
    return dataset._replace(train_images=x[:-images], train_labels=y[:-images], test_images=x[-images:], test_labels=y[-images:],
                            source=f"{dataset.source}, its last {images} training images held out as test images",
                            note="; ".join(filter(None, (dataset.note, note))))


def check_seen(dataset: Dataset, about: dict | None) -> None:
    """Raise EPError if a network that carries `about`, as far as it does, was trained on other classes, or another shape."""
    own = dict(classes=list(dataset.classes), image_shape=list(dataset.shape))
    if any(value != own.get(key, value) for key, value in (about or {}).items()):
        raise EPError(f"{dataset.source} has other classes or another shape than the images this network was trained on: name "
                       "these with --data")


def banner(dataset: Dataset) -> str:
    """What to print before using `dataset`: a line, its classes and its note, or a loud box if it is synthetic."""
    sizes = f"{len(dataset.train_images):,} training and {len(dataset.test_images):,} test images"
    if dataset.name != "synthetic":
        lines = [f"data: {dataset.source}, {sizes}, from {dataset.folder}", counted(dataset),
                 *([f"note: {dataset.note}"] if dataset.note else [])]
        return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)  # names may be any bytes
    lines = ["SYNTHETIC DATA - THIS IS NOT CIFAR-10",
             f"{dataset.source}: {sizes}, {len(dataset.classes)} classes of shapes and patterns",
             *([f"why: {dataset.note}"] if dataset.note else []), "accuracies on it say nothing about CIFAR-10"]
    return "\n".join(["*" * 80, *(f"*  {line}" for line in lines), "*" * 80])


def counted(dataset):
    """The classes and how many training and test images each has, as a line."""
    counts = [np.bincount(labels, minlength=len(dataset.classes)) for labels in (dataset.train_labels, dataset.test_labels)]
    pairs = [f"{a:,} + {b:,}" for a, b in zip(*counts)]
    same = len(set(pairs)) == 1
    names = dataset.classes if same else [f"{name} {pair}" for name, pair in zip(dataset.classes, pairs)]
    return f"classes (training + test): {short(names)}{f', each {pairs[0]}' if same else ''}"


def short(names, most=20):
    """At most so many names, then how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
