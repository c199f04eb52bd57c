"""A data set of one's own in one .npz file, as numpy.savez writes it:

    x_train, x_test   images (N, H, W, C) or grey ones (N, H, W): uint8 from 0 to 255, or floats from 0 to 1
    y_train, y_test   labels (N,), integers from 0
    classes           names of the classes, if they should have some: an array of different strings

Nothing is unpickled, so an array of Python objects is refused.
"""

import numpy as np

from ..errors import EPError
from ..npz import read_npz, write_npz
from .cifar import recognised
from .dataset import Dataset, measured

NAMES = ("x_train", "y_train", "x_test", "y_test")


def load(path):
    """The arrays of an .npz file as a Dataset. Raises EPError that says which array is missing or wrong, and how."""
    arrays = read_npz(path, (*NAMES, "classes"))
    if missing := [name for name in NAMES if name not in arrays]:
        raise EPError(f"{path} lacks {', '.join(missing)}: it has {', '.join(arrays) or 'nothing'}, and needs {', '.join(NAMES)}")
    images = [checked_images(arrays[name], f"{path}: {name}") for name in ("x_train", "x_test")]
    if images[0].shape[1:] != images[1].shape[1:] or images[0].dtype != images[1].dtype:
        raise EPError(f"{path}: x_train and x_test differ: {images[0].shape[1:]} {images[0].dtype} and {images[1].shape[1:]} "
                      f"{images[1].dtype}")
    labels = [checked_labels(arrays[f"y_{split}"], len(x), f"{path}: y_{split}") for split, x in zip(("train", "test"), images)]
    classes = class_names(arrays, *labels, path)
    dtype = np.min_scalar_type(len(classes) - 1)
    mean, std = measured(images[0])
    return recognised(Dataset(images[0], labels[0].astype(dtype), images[1], labels[1].astype(dtype), classes, "npz",
                              f"arrays in {path.name}", str(path), mean=mean, std=std))


def save(dataset, path):
    """Write a data set to one .npz file that `load` reads: what takes a minute as 60,000 pictures is then read in a second."""
    splits = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    write_npz(path, dict(zip(NAMES, splits), classes=np.array(dataset.classes)))


def checked_images(x, name):
    """(N, H, W, C) uint8, or float32 from 0 to 1."""
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or 0 in x.shape:
        raise EPError(f"{name} has shape {x.shape}: expected images (N, H, W, C), or (N, H, W) without colour")
    if x.shape[1] in (1, 3) and x.shape[3] > 4 or x.shape[1] == 4 < x.shape[2] == x.shape[3]:
        raise EPError(f"{name} has shape {x.shape}, which looks like channels first: expected (N, H, W, C), that is "
                      "numpy.moveaxis(x, 1, -1)")
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype.kind != "f":
        raise EPError(f"{name} is of type {x.dtype}: expected uint8 from 0 to 255, or floats from 0 to 1")
    if not (np.isfinite(x).all() and x.min() >= 0 and 1 / 255 <= x.max() <= 1):
        raise EPError(f"{name} has values from {x.min():g} to {x.max():g}: floats have to be finite and from 0, black, to 1, "
                      "white (they are normalised later), and bytes from 0 to 255 have to be uint8")
    return np.ascontiguousarray(x, dtype=np.float32)


def checked_labels(y, images, name):
    """(N,) integers of at least 0."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or len(y) != images or y.dtype.kind not in "iu" or y.min() < 0:
        raise EPError(f"{name} has shape {y.shape} and type {y.dtype}: expected {images} labels, one per image, integers of at "
                      "least 0")
    return y


def class_names(arrays, y_train, y_test, path):
    """The names in the file, else "class 0" ...; EPError for fewer than two classes, one that is not trained, and unfit names."""
    present = np.unique(y_train)
    if len(present) < 2 or len(strange := np.setdiff1d(y_test, present)):
        wrong = f"y_test has {strange[0]}, which y_train lacks" if len(present) > 1 else f"y_train has {present[0]} alone"
        raise EPError(f"{path}: labels have to be of at least two classes, each of those tested among those trained: {wrong}")
    names = arrays.get("classes", np.array([f"class {label}" for label in range(len(present))]))
    if names.ndim != 1 or names.dtype.kind != "U" or not len(np.unique(names)) == len(names) > present[-1]:
        raise EPError(f"{path}: y_train has {len(present)} labels from {present[0]} to {present[-1]}, and the names of classes "
                      f"have shape {names.shape} and type {names.dtype}: expected a string for each label up to {present[-1]}, "
                      "all different; without an array `classes` of them, labels without a gap")
    return tuple(names.tolist())
