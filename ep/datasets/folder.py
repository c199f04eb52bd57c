"""A folder of one's own pictures, with one sub-folder per class; the name of the sub-folder is the name of the class.

    flowers/daisy/*.jpg  flowers/rose/*.png ...                    every fifth picture of each class becomes a test image
    flowers/train/daisy/*.jpg ...  flowers/test/daisy/*.jpg ...    the split is yours

Every fifth: of each class, in the order of the files' names, the pictures number 5, 10, 15 ...; of a class with fewer than five,
the last. Nothing is drawn at random, so that the same folder is the same data set. (Neighbours in a film look alike: for those,
make train/ and test/ yourself.) Pictures are read and resized as pictures.py says. Files that cannot be read are left out, and
the data set's note names them.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import EPError
from . import pictures
from .dataset import Dataset, measured

EVERY = 5
SIDE = 32  # images are SIDE x SIDE in three colours


def load(path, side=SIDE):
    """The pictures in a folder as a Dataset of (N, side, side, 3) uint8.

    Raises EPError if there are fewer than two classes, or a class without a picture to train on.
    """
    place, unread = Path(path).absolute(), []
    given = (place / "train").is_dir() and bool(classes_in(place / "train"))
    train = files(place / "train" if given else place)
    names = sorted(train)
    if given and (place / "test").is_dir():
        test = files(place / "test")
        if strange := sorted(test.keys() - train.keys()):
            raise EPError(f"{place / 'test'} has classes that {place / 'train'} lacks: {', '.join(strange)}")
    else:
        train, test = split(train)
    if len(names) < 2:
        raise EPError(f"{place} has {len(names)} class(es) of pictures: at least two sub-folders with pictures are needed")
    splits = [part for chosen in (train, test) for part in read(chosen, names, (side, side, 3), unread)]
    for what, labels in (("training", splits[1]), ("test", splits[3])):
        absent = [name for label, name in enumerate(names) if label not in labels]
        if absent and (what == "training" or len(absent) == len(names)):
            raise EPError(f"{place} has no {what} image of the class {absent[0]}{named(unread, place)}")
    mean, std = measured(splits[0])
    return Dataset(*splits, tuple(names), "folder", f"pictures in the folder {place.name}", str(place),
                   f"{len(unread)} file(s) left out{named(unread, place)}" if unread else "", mean, std)


def classes_in(place):
    """The sub-folders that hold pictures, or anything below them that does."""
    return [folder for folder in sorted(place.iterdir()) if folder.is_dir() and not folder.name.startswith(".")
            and any(is_picture(path) for path in folder.rglob("*"))]


def files(place):
    """{class: its files, in the order of their names}, all but hidden ones."""
    return {folder.name: [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
            for folder in classes_in(place)}


def is_picture(path):
    return path.suffix.lower() in pictures.ENDINGS and not path.name.startswith(".") and path.is_file()


def split(found):
    """(training files, test files) of each class by the rule at the top."""
    train, test = {}, {}
    for name, paths in found.items():
        shown = [path for path in paths if is_picture(path)]  # a text file among them moves no picture to the other side
        kept = shown[EVERY - 1 :: EVERY] or shown[1:][-1:]
        test[name] = kept
        train[name] = [path for path in paths if path not in set(kept)]
    return train, test


def read(found, names, shape, unread):
    """(images, labels) of the files {class: paths}; those that cannot be read are added to the list `unread`."""
    images, labels = [], []
    chosen = [(path, names.index(name)) for name in sorted(found) for path in found[name]]
    for path, label in tqdm(chosen, desc="reading pictures", unit="file", leave=False, delay=1):
        try:
            images.append(pictures.read(path, shape))
            labels.append(label)
        except EPError as error:
            if str(error) == pictures.PILLOW:
                raise
            unread.append(path)
    order = interleaved(labels)
    dtype = np.uint8 if len(names) <= 256 else np.uint16
    return np.array(images, dtype=np.uint8).reshape(-1, *shape)[order], np.array(labels, dtype=dtype)[order]


def interleaved(labels):
    """The order in which every class is spread evenly over all images: the first N, or the last, which options ask for, are fair.

    The k-th of the n images of a class goes to the place (k + 1/2) / n of the way.
    """
    labels = np.array(labels, dtype=np.int64)
    way = np.empty(len(labels))
    for label in np.unique(labels):
        n = np.count_nonzero(labels == label)
        way[labels == label] = (np.arange(n) + 0.5) / n
    return np.lexsort((labels, way))


def named(unread, place, most=5):
    """The files that could not be read, as the end of a sentence."""
    if not unread:
        return ""
    paths = ", ".join(str(path.relative_to(place)) for path in unread[:most])
    more = f" and {len(unread) - most} more" if len(unread) > most else ""
    return f", since Pillow cannot read them as pictures: {paths}{more}"
