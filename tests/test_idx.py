"""IDX files: what is written is read, plain and gzipped; whatever is missing or damaged is one sentence."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from ep.datasets import cifar as datasets, idx
from ep.errors import EPError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder, split, images, labels):
    """The files of one split; images gzipped, labels plain."""
    folder.mkdir(exist_ok=True)
    (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
    (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, n in (("train", 6), ("t10k", 3)):
        write_idx(tmp_path / "digits", split, rng.integers(0, 256, (n, 28, 28)).astype(np.uint8), np.arange(n).astype(np.uint8))
    return tmp_path / "digits"


def test_what_was_written_is_read(folder):
    """Channels-last uint8 images, labels, a name that is not made up; settings can be chosen on images held out."""
    dataset = idx.load(folder)
    rng = np.random.default_rng(0)
    assert np.array_equal(dataset.train_images[..., 0], rng.integers(0, 256, (6, 28, 28)))
    assert dataset.train_images.shape == (6, 28, 28, 1) and dataset.test_images.dtype == np.uint8
    assert list(dataset.test_labels) == [0, 1, 2] and dataset.name == "mnist" and "3 test images" in datasets.banner(dataset)
    assert len(datasets.hold_out(dataset, 2).train_labels) == 4


def rewrite(path, change):
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    content = change(content)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("file,change,match", [
    (f"{IMAGES}.gz", lambda c: c[:-1], "is damaged: .* bytes, expected"), (f"{IMAGES}.gz", lambda c: c + b"0", "is damaged"),
    (LABELS, lambda c: c[:-1], "is damaged"), (LABELS, lambda c: b"", "no IDX file"), (LABELS, lambda c: c[:5], "no IDX file"),
    (LABELS, lambda c: b"\x80\x04" + c[2:], "no IDX file"), (LABELS, lambda c: c[:-1] + b"\x0b", "labels up to 11"),
    (LABELS, lambda c: c[:4] + struct.pack(">I", 2) + c[8:10], "6 images and 2 labels"),
    (LABELS, lambda c: c[:4] + struct.pack(">I", 2**32 - 1) + c[8:], "is damaged")])
def test_damaged_files(folder, file, change, match):
    """Cut short, too long, of another kind, with labels that do not exist or are too few."""
    rewrite(folder / file, change)
    with pytest.raises(EPError, match=match):
        idx.load(folder)


@pytest.mark.parametrize("content", [b"text", gzip.compress(b"0" * 100)[:-12]])
def test_damaged_archives(folder, content):
    """No gzip file, and one that is cut short."""
    (folder / f"{IMAGES}.gz").write_bytes(content)
    with pytest.raises(EPError, match="cannot read"):
        idx.load(folder)


def test_missing_files_are_one_sentence(folder):
    """It says what to install, or what to name."""
    (folder / LABELS).unlink()
    with pytest.raises(EPError, match=f"no {LABELS} .* install Debian's package dataset-fashion-mnist"):
        idx.load(folder)


@pytest.mark.skipif(not Path(idx.DEBIAN).exists(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian():
    """60,000 and 10,000 images, as many of each class, and it knows its name."""
    dataset = idx.load()
    assert dataset.source == "Fashion-MNIST" and dataset.classes[9] == "ankle boot"
    assert (np.bincount(dataset.train_labels) == 6000).all() and (np.bincount(dataset.test_labels) == 1000).all()
