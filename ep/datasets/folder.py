"""A folder of one's own pictures, with one sub-folder per class; the name of the sub-folder is the name of the class.

    flowers/daisy/*.jpg  flowers/rose/*.png ...                    every fifth picture of each class becomes a test image
    flowers/train/daisy/*.jpg  flowers/test/daisy/*.jpg ...        the split is yours

classes   Sub-folders with a picture in them or below: a file with one of the usual endings.
splits    Sub-folders called train, training; test, testing; val, valid, validation; also in capitals, with seg_ in front, with
          _set, _data or _images behind. They are a split where folders of pictures are in `train`, or nothing lies beside them.
          One trains on the first kind, and tests on the second, without it on the third; without both on every fifth picture of
          each class, in the order of the files' names: 5, 10, 15 ..., of fewer than five the last. Nothing is drawn at random:
          the same folder is the same data set. (Neighbours in a film look alike: for those, make train/ and test/ yourself.)
no use    What is hidden or a tool's (TOOLS), no picture that can be read, without a picture in it, a linked folder below a class,
          beside classes or splits. The data set's note names it.
"""

import os
import re
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import EPError
from . import pictures
from .cifar import recognised
from .dataset import Dataset, measured, short

EVERY = 5
SHAPE = (32, 32, 3)  # of the images
SPLIT = re.compile("(?:seg[-_ ])?(?:(?P<train>train(?:ing)?)|(?P<test>test(?:ing)?)|(?P<validation>val(?:id|idation)?))"
                   "(?:[-_ ]?(?:set|data|images))?", re.IGNORECASE)
TOOLS = {*"@eaDir @Recycle #recycle #snapshot __MACOSX __pycache__ $RECYCLE.BIN lost+found".split(), "System Volume Information"}


def load(path):
    """The pictures in a folder as a Dataset of (N, 32, 32, 3) uint8.

    Raises EPError for fewer than two classes, for a class without a picture to train on, and for a split that is not clear.
    """
    place, used = Path(path).absolute(), set()
    train, test = own_split(place) or split(classes_of(place))
    names = sorted(train)
    if len(names) < 2:
        raise EPError(f"{place} has {len(names)} class(es) of pictures{''.join(f', {one}' for one in names)}: at least two "
                      "sub-folders with pictures are needed, in the folder that is named")
    splits = [part for chosen in (train, test) for part in read(chosen, names, used)]
    note = unused(place, used)
    for what, labels in (("training", splits[1]), ("test", splits[3])):
        absent = [one for label, one in enumerate(names) if label not in labels]
        if absent and (what == "training" or len(absent) == len(names)):
            raise EPError(f"{place} has no {what} image of the class {absent[0]}{note and f'; {note}'}")
    if absent:  # of test images: tested last
        note = "; ".join(filter(None, (note, f"without a test image: {short(absent)}")))
    mean, std = measured(splits[0])
    return recognised(Dataset(*splits, tuple(names), "folder", f"pictures in the folder {place.name}", str(place), note, mean,
                              std))


# --- classes and splits -----------------------------------------------------------------------------------------------


def own_split(place):
    """({class: training pictures}, {class: test pictures}) of a place that is read as splits; None if it is one of classes."""
    tops = [top for top in folders_in(place) if any(pictures_in(top))]
    classes = {top: classes_of(top) for top in tops if split_of(top)}
    train, test, validation = ([top for top, inside in classes.items() if inside and split_of(top) == kind]
                               for kind in ("train", "test", "validation"))
    if not train and not (tops and len(classes) == len(tops)):
        return None
    tested = test or validation
    if len(train) != 1 or len(tested) > 1:
        raise EPError(f"{place} needs one folder of training classes, and at most one of test classes: it has "
                      f"{', '.join(top.name for top in train + tested) or 'none'}; in each, there is a folder for each class")
    if not tested:
        return split(classes[train[0]])
    if strange := sorted(classes[tested[0]].keys() - classes[train[0]].keys()):
        raise EPError(f"{tested[0]} has classes that {train[0]} lacks: {', '.join(strange)}")
    return classes[train[0]], classes[tested[0]]


def split_of(folder):
    """The kind of split that a folder is called after, or None."""
    match = SPLIT.fullmatch(folder.name)
    return match and match.lastgroup


def classes_of(folder):
    """{class: its pictures, in the order of their paths} of the sub-folders that have any.

    Of a split that archives have twice, the inner one: seg_train/seg_train/forest/*.jpg.
    """
    inside = folders_in(folder)
    if len(inside) == 1 and split_of(folder) and split_of(inside[0]) == split_of(folder):
        return classes_of(inside[0])
    found = {one.name: sorted(pictures_in(one)) for one in inside}
    return {name: paths for name, paths in found.items() if paths}


def split(found):
    """(training pictures, test pictures) of each class by the rule at the top."""
    test = {name: paths[EVERY - 1 :: EVERY] or paths[1:][-1:] for name, paths in found.items()}
    return {name: sorted(set(paths) - set(test[name])) for name, paths in found.items()}, test


# --- files ------------------------------------------------------------------------------------------------------------


def shown(name):
    return not name.startswith(".") and name not in TOOLS


def folders_in(place):
    """The sub-folders of a place, by name."""
    return sorted(path for path in place.iterdir() if os.path.isdir(path) and shown(path.name))


def pictures_in(folder):
    """The pictures in a folder and below it. Links to folders are not followed there: they may lead up again."""
    for top, folders, names in os.walk(folder):
        folders[:] = filter(shown, folders)
        yield from (path for name in filter(shown, names) if pictures.is_picture(path := Path(top, name)))


def unused(place, used):
    """What lies in a place, but for the files in use and the folders of them, as a sentence of a few names."""
    known = used.union(*(path.parents for path in used))

    def others(folder):
        for path in sorted(folder.iterdir()):
            if path not in known:
                yield f"{path.relative_to(place)}{os.sep * os.path.isdir(path)}"
            elif path not in used:
                yield from others(path)

    names = list(others(place))
    return f"not used, since hidden, beside classes or no picture that can be read: {short(names, 5)}" if names else ""


def read(found, names, used):
    """(images, labels) of the pictures {class: paths} that can be read, whose paths are added to `used`."""
    images, labels = [], []
    chosen = [(path, names.index(name)) for name in sorted(found) for path in found[name]]
    for path, label in tqdm(chosen, desc="reading pictures", unit="file", leave=False, delay=1):
        try:
            images.append(pictures.read(path, SHAPE))
        except EPError:
            continue
        labels.append(label)
        used.add(path)
    order = interleaved(labels)
    labels = np.array(labels, dtype=np.min_scalar_type(len(names) - 1))
    return np.array(images, dtype=np.uint8).reshape(-1, *SHAPE)[order], labels[order]


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
