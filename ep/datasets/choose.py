"""`load`: one call for every data set. A name, a folder or a file goes in, a Dataset comes out."""

import os
from pathlib import Path

from ..errors import EPError
from . import arrays, cifar, download as downloads, folder as pictures_folder, idx, synthetic
from .dataset import Dataset

NAMES = ("auto", *cifar.LAYOUTS, *idx.KINDS, "synthetic")
KNOWN = ("cifar-10-batches-bin or cifar-100-binary (or their archives; never the Python version, which is pickled), the four IDX "
         "files of MNIST, one sub-folder of pictures per class")


def load(name: str = "auto", folder: str | Path | None = None, download: bool = True) -> Dataset:
    """The Dataset `name`:

    cifar10, cifar100, fashion-mnist, mnist   from `folder`, else EP_DATA, else the cache; downloaded to there if it is not there
    synthetic     the embedded images
    DIR, FILE     whatever is found there: one of the above, an archive of CIFAR, a folder of pictures (folder.py), an .npz file
                  (arrays.py)
    auto          whatever is found in `folder`; without a folder CIFAR-10 if it is there or can be downloaded, else synthetic

    What a Dataset calls itself, "folder" or "npz" if they are one's own images, and its folder find it again.
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
    if name in ("auto", "folder", "npz") and folder is not None:
        return open_path(existing(folder))
    if name == "auto":
        return cifar10_or_synthetic(download)
    place = os.path.expanduser(str(name))
    if not (os.path.exists(place) or os.sep in place or place.endswith(".npz")):
        raise EPError(f"unknown data set '{name}': expected {', '.join(NAMES)}, or the path of a folder or an .npz file")
    if folder is not None:
        raise EPError(f"two places to look for images: {name} and {folder}; give one of them")
    return open_path(existing(place))


def cifar10_or_synthetic(download):
    """CIFAR-10 from EP_DATA, the cache or the network; else the embedded images, and why."""
    layout, place = cifar.LAYOUTS["cifar10"], downloads.place()
    if not cifar.find(layout, place):
        try:
            downloads.fetch(layout.title, {layout.url: layout.md5}, place, download)
        except EPError as error:
            return synthetic.load(str(error))
    return cifar.load("cifar10", None, download)


def open_path(path):
    """The Dataset at a path, whatever it is. Raises EPError if it is none that is known."""
    if path.suffix == ".npz":
        return arrays.load(path)
    for layout in cifar.LAYOUTS.values():
        if found := cifar.find(layout, path):
            return cifar.read(found, layout)
    if path.is_dir():
        for place, name in ((path, idx.called(path) or "mnist"), *((path / kind, kind) for kind in idx.KINDS)):
            if idx.find(place):
                return idx.load(name, place, download=False)
        if any(pictures_folder.pictures_in(path)):
            return pictures_folder.load(path)
        raise EPError(f"no data set in {path}: expected {KNOWN}; to download CIFAR-10 to there, give --dataset cifar10 too")
    raise EPError(f"{path} is no data set: expected an .npz file, an official archive of CIFAR, or a folder with {KNOWN}")


def existing(path):
    """An absolute path. Raises EPError if there is nothing."""
    path = downloads.place(path)
    if not path.exists():
        raise EPError(f"no data set in {path}: there is no such folder or file")
    if not os.access(path, os.R_OK):
        raise EPError(f"{path} cannot be read: Permission denied")
    return path
