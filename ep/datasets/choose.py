"""`load`: one call for every data set. A name, a folder or a file goes in, a Dataset comes out."""

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import EPError
from . import arrays, cifar, download as downloads, folder as pictures_folder, idx, synthetic
from .dataset import Dataset

NAMES = ("auto", *cifar.LAYOUTS, *idx.KINDS, "synthetic")
OWN: dict[str, Callable[..., Dataset]] = {  # what Dataset.name says of one's own images: a path finds them again
    "npz": arrays.load, "folder": pictures_folder.load}
KNOWN = ("cifar-10-batches-bin or cifar-100-binary (or their archives), the four IDX files of MNIST, one sub-folder of pictures "
         "per class")


def load(name: str = "auto", folder: str | Path | None = None, download: bool = True) -> Dataset:
    """The Dataset `name`:

    cifar10, cifar100, fashion-mnist, mnist   from `folder`, else EP_DATA, else the cache; downloaded to there if it is not there
    synthetic     the embedded images
    DIR, FILE     whatever is found there: one of the above, an archive of CIFAR, a folder of pictures (folder.py), an .npz file
                  (arrays.py)
    auto          whatever is found in `folder`; without a folder CIFAR-10 if it is there or can be downloaded, else synthetic
    folder, npz   what is found at `folder`, as one of these two: so a run that is resumed finds its images again

    download=False, or the environment variable EP_OFFLINE=1, never touches the network. Raises EPError for an unknown name, for
    a folder that holds no data set, and for files that are incomplete or damaged.
    """
    if name in cifar.LAYOUTS:
        return cifar.load(name, folder, download)
    if name in idx.KINDS:
        return idx.load(name, folder, download)
    if name == "synthetic":
        if folder is not None:
            raise EPError(f"the synthetic images are embedded in the package, and not in {folder}: leave out the folder")
        return synthetic.load()
    if name in OWN and folder is not None:
        return OWN[name](existing(folder))
    if name != "auto":
        if name in OWN and not is_path(name):
            raise EPError(f"the data set '{name}' is images of your own: say where they are, with --data")
        if not is_path(name):
            raise EPError(f"unknown data set '{name}': expected {', '.join(NAMES)}, or the path of a folder or an .npz file")
        if folder is not None:
            raise EPError(f"two places to look for images: {name} and {folder}; give one of them")
        return open_path(existing(name))
    return open_path(existing(folder)) if folder is not None else _cifar10_or_synthetic(download)


def open_path(path):
    """The Dataset at a path, whatever it is. Raises EPError if it is none that is known."""
    if path.suffix == ".npz":
        return arrays.load(path)
    for layout in cifar.LAYOUTS.values():
        if found := cifar.find(layout, path):
            return cifar.read(found, layout)
    if path.is_dir():
        for place, name in ((path, None), *((path / kind, kind) for kind in idx.KINDS)):
            if idx.holds(place):
                return idx.load(name, place, download=False)
        if any(map(pictures_folder.has_picture, pictures_folder.folders_in(path, set()))):
            return pictures_folder.load(path)
        raise EPError(f"no data set in {path}: expected {KNOWN}; to download CIFAR-10 to there, give --dataset cifar10 too")
    raise EPError(f"{path} is no data set: expected an .npz file, an official archive of CIFAR, or a folder with {KNOWN}")


def existing(path):
    """An absolute path. Raises EPError if there is nothing."""
    path = Path(os.path.abspath(os.path.expanduser(path)))
    if not path.exists():
        raise EPError(f"no data set in {path}: there is no such folder or file")
    if not os.access(path, os.R_OK):
        raise EPError(f"{path} cannot be read: Permission denied")
    return path


def is_path(name):
    return os.path.exists(os.path.expanduser(name)) or os.sep in str(name) or Path(name).suffix == ".npz"


def _cifar10_or_synthetic(download):
    """CIFAR-10 from EP_DATA, the cache or the network; else the embedded images, and why."""
    layout = cifar.LAYOUTS["cifar10"]
    found, why = cifar.obtain(layout, downloads.place(), download)
    return cifar.read(found, layout) if found else synthetic.load(why)
