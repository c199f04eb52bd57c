"""CIFAR-10 and CIFAR-100 in the official *binary* layout, as a folder of .bin files or as the official archive of it:

    CIFAR-10     record = label (1 byte), red plane, green plane, blue plane (32 x 32 bytes each, row by row)
    CIFAR-100    record = coarse label, fine label (1 byte each), the three planes; the fine label, one of 100, is the class

so nothing is ever unpickled. Files that are there but wrong are always an error.
"""

import hashlib
import tarfile
import zlib
from typing import NamedTuple

import numpy as np

from ..errors import EPError
from . import download as downloads
from .augment import CIFAR10_MEAN, CIFAR10_STD
from .dataset import Dataset, measured

PIXELS = 3 * 32 * 32  # bytes of one image
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINE = tuple("""apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox
girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split())


class Layout(NamedTuple):
    """How one of them is stored, and where it comes from."""

    name: str  # what `datasets.load` calls it
    title: str
    folder: str  # the official name of the unpacked folder
    train: dict  # {file: number of records}
    test: dict
    labels: int  # bytes in front of the image; the last of them is the label
    classes: tuple
    url: str
    md5: str
    mean: tuple | None = None  # None: measured on the training images
    std: tuple | None = None
    sets: tuple | None = None  # `set_digest` of the official training and test images

    @property
    def archive(self):
        return self.url.rsplit("/", 1)[1]

    @property
    def recognised(self):
        """`Dataset.source` of official images that were found under any name."""
        return f"{self.title} (official images and labels, recognised as sets)"

    @property
    def files(self):
        return self.train | self.test


CIFAR10 = Layout(
    "cifar10", "CIFAR-10", "cifar-10-batches-bin",
    {f"data_batch_{n}.bin": 10_000 for n in range(1, 6)}, {"test_batch.bin": 10_000}, 1, CLASSES,
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530",
    mean=CIFAR10_MEAN, std=CIFAR10_STD, sets=(
        # of a lossless copy in another order: 5,000 + 1,000 different images of each class, whose training images have the
        # published mean (125.307, 122.950, 113.865) and standard deviation (62.993, 62.089, 66.705); not of the archive itself
        "d59acf989e068e709ce686cda292672c7b212c08d29d3d3e6d8c3aa99eba6a85",
        "899683d46c3a8c66fd56e1af12202e69fe5a4517be10b0f68e04c78fe585c57c"))
CIFAR100 = Layout(
    "cifar100", "CIFAR-100", "cifar-100-binary", {"train.bin": 50_000}, {"test.bin": 10_000}, 2, FINE,
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", sets=(
        # of a lossless copy, a folder of pictures for each class: 500 + 100 images of each, whose training images have the
        # published mean (129.304, 124.070, 112.434) and standard deviation (68.170, 65.392, 70.418); not of the archive itself
        "36ce7a701fbea47796e570c34382aad50f2539687cfcbc6ae96e2f56530d29b6",
        "d3cd5d87a1b9317a0982c8ef5535fe3b86da8da90b13ce5e9b23ea06400dd5eb"))
LAYOUTS = {layout.name: layout for layout in (CIFAR10, CIFAR100)}


def load(name, folder=None, download=True):
    """CIFAR-10 or CIFAR-100, "cifar10" or "cifar100", as a Dataset: 50,000 training and 10,000 test images.

    folder, download: see `choose.load`. Raises EPError if it is neither there nor downloaded, and for files that are not whole.
    """
    layout, place = LAYOUTS[name], downloads.place(folder)
    if not (found := find(layout, place)):
        downloads.fetch(layout.title, {layout.url: layout.md5}, place, download)
        found = place / layout.archive
    return read(found, layout)


def find(layout, place):
    """The folder with the .bin files, or the archive of it, which is `place` or lies in it; or None.

    Raises EPError if only some of the files are there.
    """
    for folder in (place, place / layout.folder):
        missing = [file for file in layout.files if not (folder / file).is_file()]
        if not missing:
            return folder
        if len(missing) < len(layout.files):
            raise EPError(f"incomplete {layout.title} in {folder}: {', '.join(missing)} missing (complete or remove the folder)")
    archives = (place, place / layout.archive)
    return next((path for path in archives if path.name == layout.archive and path.is_file()), None)


def read(place, layout):
    """The Dataset in a folder or archive that `find` has found. Raises EPError for what is damaged."""
    try:
        content = files_in(place, layout)
        verified = place.is_file() and hashlib.md5(place.read_bytes()).hexdigest() == layout.md5
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:  # gzip's BadGzipFile is an OSError
        raise EPError(f"cannot read {place}: {error}") from None
    splits = []
    for files in (layout.train, layout.test):
        records = np.concatenate([records_of(f"{place}/{file}", content[file], layout, count) for file, count in files.items()])
        planes = records[:, layout.labels:].reshape(-1, 3, 32, 32)
        splits += [np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, layout.labels - 1].copy()]
    mean, std = (layout.mean, layout.std) if layout.mean else measured(splits[0])
    origin = f"{layout.title} (official archive, MD5 verified)" if verified else f"{layout.title} layout, origin unverified"
    dataset = Dataset(*splits, layout.classes, layout.name, origin, str(place.absolute()), mean=mean, std=std, flip=True, pad=4)
    return dataset if verified else recognised(dataset)


def files_in(place, layout):
    """{file: its bytes}, of a folder or an archive. Names in an archive are compared, and never used as paths."""
    if place.is_dir():
        return {file: (place / file).read_bytes() for file in layout.files}
    wanted = {f"{layout.folder}/{file}": file for file in layout.files}
    with tarfile.open(place, "r:gz") as tar:
        found = {wanted[one.name]: tar.extractfile(one).read() for one in tar if one.isreg() and one.name in wanted}
    return dict.fromkeys(layout.files, b"") | found


def records_of(name, content, layout, count):
    """(count, 3073 or 3074) bytes. Raises EPError for a wrong size or a label above the last class."""
    size, last = layout.labels + PIXELS, len(layout.classes) - 1
    if len(content) != count * size:
        raise EPError(f"{name} is damaged: {len(content):,} bytes, expected {count * size:,}")
    records = np.frombuffer(content, np.uint8).reshape(count, size)
    labels = records[:, layout.labels - 1]
    if labels.max() > last:
        wrong = (labels > last).argmax()
        raise EPError(f"{name} is damaged: record {wrong} (counted from 0) has label {labels[wrong]}, expected 0 to {last}")
    return records


def recognised(dataset):
    """The data set; one whose images and labels are all those of CIFAR-10 or CIFAR-100, in whatever order, is known as that."""
    for layout in LAYOUTS.values():
        counts = sum(layout.train.values()), sum(layout.test.values())
        if (len(dataset.classes), len(dataset.train_labels), len(dataset.test_labels)) == (len(layout.classes), *counts) and (
                layout.sets == (set_digest(*dataset[:2]), set_digest(*dataset[2:4]))):
            return dataset._replace(source=layout.recognised, classes=layout.classes, flip=True, pad=4,
                                    mean=layout.mean or dataset.mean, std=layout.std or dataset.std)
    return dataset


def set_digest(images, labels):
    """SHA-256 of the sorted SHA-256 of all images, each with its label in front: their order does not matter."""
    one_by_one = sorted(hashlib.sha256(bytes([label]) + image.tobytes()).digest() for image, label in zip(images, labels))
    return hashlib.sha256(b"".join(one_by_one)).hexdigest()
