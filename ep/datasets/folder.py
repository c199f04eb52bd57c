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
from .dataset import Dataset, measured

EVERY = 5
SHAPE = (32, 32, 3)  # of the images
SPLIT = re.compile("(?:seg[-_ ])?(?:(?P<train>train(?:ing)?)|(?P<test>test(?:ing)?)|(?P<validation>val(?:id|idation)?))"
                   "(?:[-_ ]?(?:set|data|images))?", re.IGNORECASE)
TOOLS = {*"@eaDir @Recycle #recycle #snapshot __MACOSX __pycache__ $RECYCLE.BIN lost+found".split(), "System Volume Information"}


def load(path):
    """The pictures in a folder as a Dataset of (N, 32, 32, 3) uint8.

    Raises EPError for fewer than two classes, for a class without a picture to train on, and for a split that is not clear.
    """
    place, unused = Path(path).absolute(), set()
    tops = folders_in(place, unused)
    train, test = own_split(place, tops, unused) if has_own_split(tops) else (files(tops, unused), None)
    names = sorted(train)
    if len(names) < 2:
        raise EPError(f"{place} has {len(names)} class(es) of pictures{''.join(f', {one}' for one in names)}: at least two "
                      f"sub-folders with pictures are needed, in the folder that is named{named(unused, place)}")
    train, test = split(train) if test is None else (train, test)
    splits = [part for chosen in (train, test) for part in read(chosen, names, unused)]
    for what, labels in (("training", splits[1]), ("test", splits[3])):
        absent = [one for label, one in enumerate(names) if label not in labels]
        if absent and (what == "training" or len(absent) == len(names)):
            raise EPError(f"{place} has no {what} image of the class {absent[0]}{named(unused, place)}")
    mean, std = measured(splits[0])
    return recognised(Dataset(*splits, tuple(names), "folder", f"pictures in the folder {place.name}", str(place),
                              named(unused, place).removeprefix("; "), mean, std))


# --- which folders are classes, which are splits ----------------------------------------------------------------------


def has_own_split(tops):
    """Whether these sub-folders are splits: there are classes in one called train, or all with pictures are called so."""
    kinds = [split_of(top) for top in tops if has_picture(top)]
    return (all(kinds) and len(kinds) > 0) or any(classes_in(top) for top in tops if split_of(top) == "train")


def own_split(place, tops, unused):
    """(training files, test files or None) of a place that is read as splits."""
    kinds = {kind: [top for top in tops if split_of(top) == kind and classes_in(top)] for kind in ("train", "test", "validation")}
    tested = kinds["test"] or kinds["validation"]
    for what, found in (("training", kinds["train"]), ("test", tested or [None])):
        if len(found) != 1:
            raise EPError(f"{place} needs one folder of {what} classes, and has {', '.join(top.name for top in found) or 'none'}"
                          ": rename folders, or move them; in each split, there is a folder of pictures for each class")
    used = kinds["train"] + tested
    unused.update(set(tops) - set(used))
    train, *test = [files(folders_in(innermost(top), unused), unused) for top in used]
    if strange := sorted({name for found in test for name in found} - train.keys()):
        raise EPError(f"{used[1]} has classes that {used[0]} lacks: {', '.join(strange)}")
    return train, *(test or [None])


def split_of(folder):
    """The kind of split that a folder is called after, or None."""
    match = SPLIT.fullmatch(folder.name)
    return match and match.lastgroup


def innermost(folder):
    """The split itself, where archives have it twice: seg_train/seg_train/forest/*.jpg."""
    inside = folders_in(folder, set())
    return innermost(inside[0]) if len(inside) == 1 and split_of(inside[0]) == split_of(folder) else folder


def classes_in(split):
    """The sub-folders of a split that hold pictures."""
    return [path for path in folders_in(innermost(split), set()) if has_picture(path)]


# --- what lies in folders ---------------------------------------------------------------------------------------------


def files(folders, unused):
    """{class: its pictures, in the order of their paths} of those folders that have any."""
    found = {folder.name: list(pictures_in(folder, unused)) for folder in folders}
    unused.update(folder for folder in folders if not found[folder.name])
    return {name: paths for name, paths in found.items() if paths}


def pictures_in(folder, unused):
    """The pictures in a folder and below it. Links to folders are not followed there: they may lead up again."""
    for path in entries(folder, unused):
        if os.path.isdir(path) and not path.is_symlink():
            yield from pictures_in(path, unused)
        elif pictures.is_picture(path):
            yield path
        else:
            unused.add(path)


def has_picture(folder):
    return any(True for _ in pictures_in(folder, set()))


def folders_in(place, unused):
    """The sub-folders of a place, by name; files beside them are of no use."""
    found = entries(place, unused)
    unused.update(path for path in found if not os.path.isdir(path))
    return [path for path in found if os.path.isdir(path)]


def entries(folder, unused):
    """What lies in a folder, by name, but for what is hidden or a tool's; nothing if it cannot be read."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        unused.add(folder)
        return []
    shown = [path for path in found if not path.name.startswith(".") and path.name not in TOOLS]
    unused.update(set(found) - set(shown))
    return shown


def named(unused, place, most=5):
    """What is not used, as the end of a sentence: at most so many names."""
    some = ", ".join(f"{path.relative_to(place)}{os.sep * os.path.isdir(path)}" for path in sorted(unused)[:most])
    more = f" and {len(unused) - most} more" if len(unused) > most else ""
    return f"; not used, since hidden, beside classes or no picture that can be read: {some}{more}" if unused else ""


# --- the pictures themselves ------------------------------------------------------------------------------------------


def split(found):
    """(training files, test files) of each class by the rule at the top."""
    test = {name: paths[EVERY - 1 :: EVERY] or paths[1:][-1:] for name, paths in found.items()}
    return {name: sorted(set(paths) - set(test[name])) for name, paths in found.items()}, test


def read(found, names, unused):
    """(images, labels) of the files {class: paths}, but for those that cannot be read."""
    images, labels = [], []
    chosen = [(path, names.index(name)) for name in sorted(found) for path in found[name]]
    for path, label in tqdm(chosen, desc="reading pictures", unit="file", leave=False, delay=1):
        try:
            images.append(pictures.read(path, SHAPE))
            labels.append(label)
        except EPError as error:
            if str(error) == pictures.PILLOW:
                raise
            unused.add(path)
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
