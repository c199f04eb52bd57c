"""IDX files: what is written is read, plain and gzipped; whatever is missing or damaged is one sentence."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pooch
import pytest
from helpers import sentence

from ep import datasets
from ep.datasets import idx

IMAGES, LABELS, TEST_IMAGES, _ = idx.FILES


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(folder, split, images, labels):
    """The files of one split; images gzipped, labels plain."""
    folder.mkdir(exist_ok=True)
    (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
    (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, n in (("train", 6), ("t10k", 3)):
        write_idx(tmp_path / "digits", split, rng.integers(0, 256, (n, 28, 28)), np.arange(n))
    return tmp_path / "digits"


@pytest.mark.parametrize("dots", [False, True])
def test_what_was_written_is_read(folder, dots):
    """Channels-last uint8 images, labels, a name that is not made up; also where files have a dot in their names."""
    for path in folder.iterdir():
        path.rename(str(path).replace("-idx", ".idx") if dots else path)
    dataset, images = datasets.load("auto", folder), np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1))
    assert np.array_equal(dataset.train_images, images) and dataset.test_images.dtype == np.uint8
    assert list(dataset.test_labels) == [0, 1, 2] and dataset.name == "mnist" and not dataset.flip
    assert (dataset.mean, dataset.std) == datasets.measured(dataset.train_images)
    assert datasets.load("mnist", folder).source == dataset.source == "IDX files, taken for MNIST"


@pytest.mark.parametrize("where", ["itself", "around", "EP_DATA", "Debian"])
def test_the_name_that_is_asked_for_decides(folder, monkeypatch, where):
    """Both data sets have files of the same names. They lie in the folder, in one of that name inside it, in EP_DATA, or where
    Debian's package has them."""
    path = folder.rename(folder.parent / "fashion-mnist")
    monkeypatch.setattr(idx, "DEBIAN", str(path) if where == "Debian" else "/no/such/folder")
    monkeypatch.setenv("EP_DATA", str(path.parent) if where == "EP_DATA" else "/no/such/folder")
    argument = dict(itself=path, around=path.parent).get(where)
    dataset = datasets.load("fashion-mnist", argument, download=False)
    assert (dataset.name, dataset.source, dataset.classes[9], dataset.folder, dataset.flip) == (
        "fashion-mnist", "Fashion-MNIST", "ankle boot", str(path), True)  # a mirrored boot is a boot
    if argument:
        assert datasets.load("auto", argument).name == datasets.load(str(argument)).name == "fashion-mnist"
    digits = datasets.load("mnist", path)
    assert (digits.source, digits.classes[9]) == ("IDX files, taken for MNIST", "9")
    others = path.rename(path.parent / "KMNIST")  # letters
    assert datasets.load("auto", others).source == "IDX files, taken for MNIST"


@pytest.mark.parametrize("path, name", [("mnist/raw", "mnist"), ("Fashion_MNIST", "fashion-mnist"),
                                        ("mnist/FashionMNIST/raw", "fashion-mnist"), ("old-fashioned/mnist", "mnist")])
def test_the_name_of_the_folder_decides(folder, path, name):
    """Where no name is asked for; a mirrored digit is no digit."""
    (folder.parent / path).parent.mkdir(parents=True, exist_ok=True)
    dataset = datasets.load(str(folder.rename(folder.parent / path)))
    assert (dataset.name, dataset.flip) == (name, name == "fashion-mnist")


def test_download(tmp_path, monkeypatch, folder):
    """The four files, each checked, into a folder of that name; what has come is not fetched again after a failure."""
    monkeypatch.delenv("EP_OFFLINE", raising=False)
    served = {f"{file}.gz": (folder / f"{file}.gz").read_bytes() if (folder / f"{file}.gz").exists() else
              gzip.compress((folder / file).read_bytes()) for file in idx.FILES}
    monkeypatch.setattr(idx, "KINDS", {"mnist": idx.KINDS["mnist"]._replace(
        md5=tuple(hashlib.md5(content).hexdigest() for content in served.values()))})
    asked, broken, place = [], [TEST_IMAGES + ".gz"], tmp_path / "new"

    def download(url, file, pooch):
        asked.append(url.rsplit("/", 1)[1])
        Path(file).write_bytes(b"broken" if asked[-1] in broken else served[asked[-1]])

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar: download)
    assert "does not match the known hash" in sentence(datasets.load, "mnist", place)
    assert "downloading is switched off: put https://" in sentence(datasets.load, "mnist", place, download=False)
    broken.clear()
    dataset = datasets.load("mnist", place)
    assert dataset.source == "MNIST" and dataset.folder == str(place / "mnist") and list(dataset.test_labels) == [0, 1, 2]
    assert asked == [f"{file}.gz" for file in (*idx.FILES[:3], *idx.FILES[2:])]


def packed(change):
    return lambda content: gzip.compress(change(gzip.decompress(content)))


@pytest.mark.parametrize("file,change,match", [
    (f"{IMAGES}.gz", packed(lambda c: c[:-1]), "is damaged: "), (f"{IMAGES}.gz", packed(lambda c: c + b"0"), "is damaged: "),
    (LABELS, lambda c: c[:-1], "is damaged"), (LABELS, lambda c: b"", "no IDX file"), (LABELS, lambda c: c[:5], "no IDX file"),
    (LABELS, lambda c: b"\x80\x04" + c[2:], "no IDX file"), (LABELS, lambda c: c[:-1] + b"\x0b", "labels up to 11"),
    (LABELS, lambda c: c[:4] + struct.pack(">I", 2) + c[8:10], "6 images and train-labels-idx1-ubyte 2 labels"),
    (LABELS, lambda c: c[:4] + struct.pack(">I", 2**32 - 1) + c[8:], "is damaged"),
    (f"{TEST_IMAGES}.gz", lambda c: gzip.compress(idx_bytes(np.zeros((3, 9, 28)))), "their images are (28, 28) and (9, 28)"),
    (f"{IMAGES}.gz", lambda c: b"text", "cannot read"), (f"{IMAGES}.gz", lambda c: c[:-12], "cannot read"),
    (LABELS, None, "no MNIST in")])
def test_damaged_files(folder, file, change, match):
    """Cut short, too long, of another kind, of another size, with labels that do not exist or are too few, and no file at all."""
    (folder / file).write_bytes(change((folder / file).read_bytes())) if change else (folder / file).unlink()
    assert match in sentence(datasets.load, "mnist", folder)
