"""A folder of one's own pictures, with one sub-folder per class; the name of the sub-folder is the name of the class.

    flowers/daisy/*.jpg  flowers/rose/*.png ...                    every fifth picture of each class becomes a test image
    flowers/train/daisy/*.jpg ...  flowers/test/daisy/*.jpg ...    the split is yours

classes   Sub-folders with a picture in them or below: a file with one of the usual endings, or one that Pillow knows by its first
          bytes. Links are followed; no folder is read twice for one class.
splits    Sub-folders with folders of pictures in them, called train, training; test, testing; val, valid, validation; also in
          capitals, with seg_ in front, with _set, _data or _images behind. One trains on the first kind, and tests on the second,
          without it on the third; without both on every fifth picture of each class, in the order of the files' names: 5, 10,
          15 ..., of fewer than five the last. Nothing is drawn at random: the same folder is the same data set. (Neighbours in a
          film look alike: for those, make train/ and test/ yourself.)
no use    What is hidden or a tool's (TOOLS), no picture, not to be read, without a picture in it, beside classes or splits. The
          data set's note names it and says why.
question  Where folders could be splits or classes, an EPError asks; the data set's name CLASSES or SPLITS is the answer.
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
SIDE = 32  # images are SIDE x SIDE in three colours
CLASSES, SPLITS = ANSWERS = "folder-of-classes", "folder-of-splits"  # data sets by these names answer the question above
SPLIT = re.compile("(?:seg[-_ ])?(?:(?P<train>train(?:ing)?)|(?P<test>test(?:ing)?)|(?P<validation>val(?:id|idation)?))"
                   "(?:[-_ ]?(?:set|data|images))?", re.IGNORECASE)
TOOLS = {*"@eaDir @Recycle #recycle #snapshot __MACOSX __pycache__ $RECYCLE.BIN lost+found".split(), "System Volume Information"}
NO_PICTURE = "no picture that Pillow can read"


def load(path, side=SIDE, name="folder"):
    """The pictures in a folder as a Dataset of (N, side, side, 3) uint8.

    name: CLASSES or SPLITS say how a folder is to be read that can be read in two ways.
    Raises EPError for such a folder, for fewer than two classes, and for a class without a picture to train on.
    """
    place, unused = Path(path).absolute(), {}
    tops = folders_in(place, unused)
    split_given = reading(place, tops, name) == SPLITS
    train, test, told = own_split(place, tops, unused) if split_given else (files(tops, unused), None, "")
    names = sorted(train)
    if len(names) < 2:
        raise EPError(f"{place} has {len(names)} class(es) of pictures{''.join(f', {one}' for one in names)}: at least two "
                      f"sub-folders with pictures are needed, in the folder that is named{named(unused, place)}")
    train, test = split(train) if test is None else (train, test)
    splits = [part for chosen in (train, test) for part in read(chosen, names, (side, side, 3), unused)]
    for what, labels in (("training", splits[1]), ("test", splits[3])):
        absent = [one for label, one in enumerate(names) if label not in labels]
        if absent and (what == "training" or len(absent) == len(names)):
            raise EPError(f"{place} has no {what} image of the class {absent[0]}{named(unused, place)}")
    mean, std = measured(splits[0])
    note = f"{told}{named(unused, place)}".removeprefix("; ")
    return recognised(Dataset(*splits, tuple(names), name, f"pictures in the folder {place.name}", str(place), note, mean, std))


# --- which folders are classes, which are splits ----------------------------------------------------------------------


def reading(place, tops, name="folder"):
    """CLASSES or SPLITS: how the sub-folders `tops` of a place are to be read. Raises EPError if that is a question."""
    if name != "folder":
        return name
    inside = {top: {path.name for path in classes_in(top)} for top in tops if split_of(top)}
    like = [top for top in inside if inside[top]]  # they look like splits
    others = [top for top in tops if not inside.get(top) and has_picture(top)]
    if not like:
        halves = [top for top in others if len({*map(split_of, classes_in(top))} - {None}) > 1]  # cat/train, cat/test
        flat = len({*map(split_of, others)}) > 1 and all(map(split_of, others))  # train/*.jpg, test/*.jpg
        if len(others) < 2 or not (halves or flat):
            return CLASSES
    agree = any(inside[one] & inside[two] for one in like for two in like if split_of(one) != split_of(two))
    if "train" in map(split_of, like) and (agree or all(map(split_of, others))):
        return SPLITS
    found = ", ".join(top.name for top in (like or others)[:5])
    raise EPError(f"{place} can be read in two ways, as folders of classes or as a split with classes in it ({found}): add "
                  f"--dataset {CLASSES} or --dataset {SPLITS} to --data, or move folders so that splits lie above classes")


def own_split(place, tops, unused):
    """(training files, test files or None, in words where one is tested) of a place that is read as splits."""
    kinds = {kind: [top for top in tops if split_of(top) == kind and classes_in(top)] for kind in ("train", "test", "validation")}
    tested = kinds["test"] or kinds["validation"]
    for what, found in (("training", kinds["train"]), ("test", tested or [None])):
        if len(found) != 1:
            raise EPError(f"{place} needs one folder of {what} classes, and has {', '.join(top.name for top in found) or 'none'}"
                          ": rename folders, or move them away")
    used = kinds["train"] + tested
    for top in tops:
        if top not in used:
            leave(unused, top, "beside the test images" if top in kinds["validation"] else "beside the training images")
    train, *test = [files(folders_in(innermost(top), unused), unused) for top in used]
    if strange := sorted({name for found in test for name in found} - train.keys()):
        raise EPError(f"{used[1]} has classes that {used[0]} lacks: {', '.join(strange)}")
    return train, *(test or [None]), f"tested on the pictures in {tested[0].name}" if tested and not kinds["test"] else ""


def split_of(folder):
    """The kind of split that a folder is called after, or None."""
    match = SPLIT.fullmatch(folder.name)
    return match and match.lastgroup


def innermost(folder):
    """The split itself, where archives have it twice: seg_train/seg_train/forest/*.jpg."""
    inside = folders_in(folder, {})
    return innermost(inside[0]) if len(inside) == 1 and split_of(inside[0]) == split_of(folder) else folder


def classes_in(folder):
    """The sub-folders of a folder (of a split, the innermost) that hold pictures."""
    return [path for path in folders_in(innermost(folder) if split_of(folder) else folder, {}) if has_picture(path)]


# --- what lies in folders ---------------------------------------------------------------------------------------------


def files(folders, unused):
    """{class: its pictures, in the order of their paths} of those folders that have any."""
    found = {folder.name: list(pictures_in(folder, unused)) for folder in folders}
    for folder in folders:
        if not found[folder.name] and not any(folder in paths for paths in unused.values()):
            leave(unused, folder, "no picture in it")
    return {name: paths for name, paths in found.items() if paths}


def pictures_in(folder, unused, seen=()):
    """The pictures in a folder and below it, each real folder once, and none that a link leads up to."""
    real = folder.resolve()
    seen = seen or {*real.parents, *(path.resolve() for path in folder.parents)}
    if real in seen:
        return leave(unused, folder, "read already, or a folder above")
    seen.add(real)
    for path in entries(folder, unused):
        if os.path.isdir(path):
            yield from pictures_in(path, unused, seen)
        elif pictures.is_picture(path):
            yield path
        else:
            leave(unused, path)


def has_picture(folder):
    return any(True for _ in pictures_in(folder, {}))


def folders_in(place, unused):
    """The sub-folders of a place, by name; files beside them are of no use."""
    found = entries(place, unused)
    for path in found:
        if not os.path.isdir(path):
            leave(unused, path, "beside the folders" if os.path.isfile(path) else None)
    return [path for path in found if os.path.isdir(path)]


def entries(folder, unused):
    """What lies in a folder, by name, but for what is hidden or a tool's; nothing if it cannot be read."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        leave(unused, folder, error.strerror)
        return []
    shown = [path for path in found if not path.name.startswith(".") and path.name not in TOOLS]
    for path in set(found) - set(shown):
        leave(unused, path, "hidden or a tool's")
    return shown


def leave(unused, path, why=None):
    """Remember {why: paths} of what is not used; without a reason it is found out."""
    if why is None:
        try:
            os.stat(path)
            why = NO_PICTURE if os.access(path, os.R_OK) else "Permission denied"
        except OSError as error:
            why = "a link to nothing" if isinstance(error, FileNotFoundError) else error.strerror
    unused.setdefault(why, set()).add(path)


def named(unused, place, most=5):
    """What is not used, as the end of a sentence: of each reason at most so many names."""
    parts = []
    for why, paths in unused.items():
        some = ", ".join(f"{path.relative_to(place)}{os.sep if os.path.isdir(path) else ''}" for path in sorted(paths)[:most])
        parts.append(f"{some}{f' and {len(paths) - most} more' if len(paths) > most else ''} ({why})")
    return f"; not used: {'; '.join(parts)}" if parts else ""


# --- the pictures themselves ------------------------------------------------------------------------------------------


def split(found):
    """(training files, test files) of each class by the rule at the top."""
    test = {name: paths[EVERY - 1 :: EVERY] or paths[1:][-1:] for name, paths in found.items()}
    return {name: sorted(set(paths) - set(test[name])) for name, paths in found.items()}, test


def read(found, names, shape, unused):
    """(images, labels) of the files {class: paths}, but for those that cannot be read."""
    images, labels = [], []
    chosen = [(path, names.index(name)) for name in sorted(found) for path in found[name]]
    for path, label in tqdm(chosen, desc="reading pictures", unit="file", leave=False, delay=1):
        try:
            images.append(pictures.read(path, shape))
            labels.append(label)
        except EPError as error:
            if str(error) == pictures.PILLOW:
                raise
            leave(unused, path)
    order = interleaved(labels)
    labels = np.array(labels, dtype=np.min_scalar_type(len(names) - 1))
    return np.array(images, dtype=np.uint8).reshape(-1, *shape)[order], labels[order]


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
