"""CIFAR-10 and CIFAR-100, from disk or from their official address, in the official *binary* layout:

    CIFAR-10     record = label (1 byte), red plane, green plane, blue plane (32 x 32 bytes each, row by row)
    CIFAR-100    record = coarse label, fine label (1 byte each), the three planes; the fine label, one of 100, is the class

so nothing is ever unpickled. Where they are looked for: the folder that is asked for, else the environment variable EP_DATA,
else the cache (download.py); in it the .bin files themselves, the official folder, or the official archive, which is then
unpacked. A folder that holds none of it is where they are downloaded to. Files that are there but wrong are always an error.
"""

import hashlib
import shutil
import tarfile
import zlib
from typing import NamedTuple

import numpy as np

from ..errors import EPError
from . import download as downloads
from .augment import CIFAR10_MEAN, CIFAR10_STD
from .dataset import Dataset, measured
from .download import reason

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
    pickled: tuple  # names by which the Python version is recognised
    mean: tuple | None = None  # None: measured on the training images
    std: tuple | None = None
    sets: tuple | None = None  # `set_digest` of the official training and test images

    @property
    def archive(self):
        return self.url.rsplit("/", 1)[1]

    @property
    def files(self):
        return self.train | self.test

    @property
    def verified(self):
        return f"{self.title} (official archive, MD5 verified)"

    @property
    def recognised(self):
        return f"{self.title} (official images and labels, recognised as sets)"

    @property
    def unverified(self):
        return f"{self.title} layout, origin unverified"


CIFAR10 = Layout(
    "cifar10", "CIFAR-10", "cifar-10-batches-bin",
    {f"data_batch_{n}.bin": 10_000 for n in range(1, 6)}, {"test_batch.bin": 10_000}, 1, CLASSES,
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530",
    ("cifar-10-batches-py", "data_batch_1", "cifar-10-python.tar.gz"), mean=CIFAR10_MEAN, std=CIFAR10_STD, sets=(
        # of a lossless copy in another order: 5,000 + 1,000 different images of each class, whose training images have the
        # published mean (125.307, 122.950, 113.865) and standard deviation (62.993, 62.089, 66.705); not of the archive itself
        "d59acf989e068e709ce686cda292672c7b212c08d29d3d3e6d8c3aa99eba6a85",
        "899683d46c3a8c66fd56e1af12202e69fe5a4517be10b0f68e04c78fe585c57c"))
CIFAR100 = Layout(
    "cifar100", "CIFAR-100", "cifar-100-binary", {"train.bin": 50_000}, {"test.bin": 10_000}, 2, FINE,
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8",
    ("cifar-100-python", "cifar-100-python.tar.gz"), sets=(
        # of a lossless copy, a folder of pictures for each class: 500 + 100 images of each, whose training images have the
        # published mean (129.304, 124.070, 112.434) and standard deviation (68.170, 65.392, 70.418); not of the archive itself
        "36ce7a701fbea47796e570c34382aad50f2539687cfcbc6ae96e2f56530d29b6",
        "d3cd5d87a1b9317a0982c8ef5535fe3b86da8da90b13ce5e9b23ea06400dd5eb"))
LAYOUTS = {layout.name: layout for layout in (CIFAR10, CIFAR100)}


def load(name, folder=None, download=True):
    """CIFAR-10 or CIFAR-100, "cifar10" or "cifar100", as a Dataset: 50,000 training and 10,000 test images.

    folder    holds the .bin files, the official folder or the official archive, or is the archive; without any of it, it is
              downloaded into it
    download  False, or the environment variable EP_OFFLINE=1, never touches the network
    Raises EPError if it is not there and not downloaded, and for incomplete or damaged files.
    """
    layout = LAYOUTS[name]
    found, why = obtain(layout, downloads.place(folder), download)
    if not found:
        raise EPError(why)
    return read(found, layout)


# --- finding ----------------------------------------------------------------------------------------------------------


def obtain(layout, place, download):
    """(folder of the .bin files, unpacked or downloaded if need be, "") or (None, why there is none).

    Raises EPError for files that are there but wrong.
    """
    if found := find(layout, place):
        return found, ""
    absent = f"no {layout.title} in {place} (expected {layout.folder}/{next(iter(layout.train))} and so on)"
    if place.exists() and not place.is_dir():
        return None, f"{absent}: it is a file, and not the official archive {layout.archive}"
    if not downloads.allowed(download):
        return None, (f"{absent} and downloading is switched off: put {layout.url} there, name its folder with --data or "
                      "EP_DATA, or allow the download")
    try:
        with downloads.prepared(place / layout.folder, layout.title) as folder:
            archive = downloads.fetch(layout.title, layout.url, layout.md5, folder.parent)
            unpack(layout, archive, folder)
    except EPError as error:
        return None, f"{absent} and {error}"
    return find(layout, place), ""


def find(layout, place):
    """The folder with the .bin files in or under `place`, or of the archive there, which is then unpacked; or None.

    Raises EPError if only some of the files are there, or only the Python version, which nobody should open.
    """
    for folder in (place, place / layout.folder):
        missing = [file for file in layout.files if not (folder / file).is_file()]
        if not missing:
            return folder
        if len(missing) < len(layout.files):
            raise EPError(f"incomplete {layout.title} in {folder}: {', '.join(missing)} missing (complete or remove the folder)")
    for archive in (place, place / layout.archive):
        if archive.name == layout.archive and archive.is_file():
            with downloads.prepared(archive.parent / layout.folder, f"{layout.title}, unpacked from {archive},") as folder:
                unpack(layout, archive, folder)
            return archive.parent / layout.folder
    for name in layout.pickled:
        for path in (place / name, place):
            if path.name == name and path.exists():
                raise EPError(f"{path} is the Python version of {layout.title}, which is pickled: reading a pickle runs whatever "
                              f"code is in it, so this package never does; use the binary version, {layout.url}")
    return None


def unpack(layout, archive, folder):
    """Copy the files of the layout, and nothing else, out of `archive`: names in it are compared, never used as paths.

    Its MD5 says whether it is the official one, and SOURCE.txt keeps that.
    """
    import pooch

    wanted = {f"{layout.folder}/{file}": records * (layout.labels + PIXELS) for file, records in layout.files.items()}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.isreg() and wanted.get(member.name) == member.size:
                    file = member.name.removeprefix(f"{layout.folder}/")
                    with open(folder / file, "xb") as copy:
                        shutil.copyfileobj(tar.extractfile(member), copy)
                    del wanted[member.name]
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:  # gzip's BadGzipFile is an OSError, as is a full disk
        raise EPError(f"the archive {archive.name} of {layout.title} cannot be unpacked: {reason(error)}", exit_code=1) from None
    if wanted:
        raise EPError(f"the archive {archive.name} of {layout.title} lacks {', '.join(wanted)}, as ordinary files of the right "
                      "size", exit_code=1)
    source = layout.verified if pooch.file_hash(str(archive), alg="md5") == layout.md5 else layout.unverified
    (folder / "SOURCE.txt").write_text(source + "\n", encoding="utf-8")


# --- reading ----------------------------------------------------------------------------------------------------------


def read(folder, layout):
    """The Dataset in a folder that `find` has found."""
    train, test = (_read_files(folder, files, layout) for files in (layout.train, layout.test))
    mean, std = (layout.mean, layout.std) if layout.mean else measured(train[0])
    source = provenance(folder) or layout.unverified
    dataset = Dataset(*train, *test, layout.classes, layout.name, source, str(folder.absolute()), mean=mean, std=std,
                      flip=True, pad=4)
    return dataset if source == layout.verified else recognised(dataset)


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


def _read_files(folder, files, layout):
    """(images (N, 32, 32, 3), labels (N,)), both uint8. Raises EPError for a wrong size or a label above the last class."""
    total, start = sum(files.values()), 0
    images, labels = np.empty((total, 32, 32, 3), dtype=np.uint8), np.empty(total, dtype=np.uint8)
    for file, count in files.items():
        records, part = _read_records(folder / file, count, layout.labels + PIXELS), slice(start, start + count)
        labels[part] = records[:, layout.labels - 1]
        images[part] = records[:, layout.labels:].reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)  # planes -> channels-last
        start += count
        wrong = np.flatnonzero(labels[part] >= len(layout.classes))
        if len(wrong):
            raise EPError(f"{folder / file} is damaged: record {wrong[0]} (counted from 0) has label {labels[part][wrong[0]]}, "
                          f"expected 0 to {len(layout.classes) - 1}")
    return images, labels


def _read_records(path, count, size):
    """(count, size) bytes."""
    expected = count * size
    try:
        found = path.stat().st_size
        if found != expected:
            state = "truncated" if found < expected else "oversized"
            raise EPError(f"{path} is {state}: {found:,} bytes, expected {expected:,}")
        return np.fromfile(path, dtype=np.uint8).reshape(count, size)
    except (OSError, ValueError) as error:
        raise EPError(f"cannot read {path}: {reason(error)}") from None


def provenance(folder):
    """The first line of SOURCE.txt, which whoever wrote the files put beside them; "" without it."""
    try:
        with open(folder / "SOURCE.txt", encoding="utf-8", errors="replace") as file:
            line = file.readline(200)
    except OSError:
        return ""
    return "".join(c for c in line if c.isprintable()).strip()
