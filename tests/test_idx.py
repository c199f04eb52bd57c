"""IDX files: what is written is read, plain and gzipped; whatever is missing or damaged is one sentence."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from ep import datasets
from ep.datasets import idx
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
    dataset = datasets.load("auto", folder)
    rng = np.random.default_rng(0)
    assert np.array_equal(dataset.train_images[..., 0], rng.integers(0, 256, (6, 28, 28)))
    assert dataset.train_images.shape == (6, 28, 28, 1) and dataset.test_images.dtype == np.uint8
    assert list(dataset.test_labels) == [0, 1, 2] and dataset.name == "mnist" and "3 test images" in datasets.banner(dataset)
    assert len(datasets.hold_out(dataset, 2).train_labels) == 4
    v = dataset.train_images / 255
    assert dataset.mean == (round(v.mean(), 4),) and dataset.std == pytest.approx((3 * v.std(),), abs=2e-4) and not dataset.flip
    assert dataset.shape == (28, 28, 1) and dataset.source == "IDX files, taken for MNIST"


@pytest.mark.parametrize("where", ["itself", "around", "EP_DATA"])
def test_the_name_that_is_asked_for_decides(folder, monkeypatch, where):
    """Both data sets have files of the same names. They lie in the folder, in one of that name inside it, or in EP_DATA."""
    path = folder.rename(folder.parent / "fashion-mnist")
    monkeypatch.setattr(idx, "DEBIAN", "/no/such/folder")
    monkeypatch.setenv("EP_DATA", str(path.parent))
    argument = dict(itself=path, around=path.parent).get(where)
    dataset = datasets.load("fashion-mnist", argument, download=False)
    assert (dataset.name, dataset.source, dataset.classes[9], dataset.folder) == ("fashion-mnist", "Fashion-MNIST", "ankle boot",
                                                                                  str(path))
    assert dataset.flip  # a mirrored boot is a boot
    if argument:
        assert datasets.load("auto", argument).name == datasets.load(str(argument)).name == "fashion-mnist"
    digits = datasets.load("mnist", path)
    assert (digits.source, digits.classes[9]) == ("IDX files, taken for MNIST", "9")
    (path / "SOURCE.txt").write_text("digits of my own\n")
    assert datasets.load("mnist", path).source == "digits of my own"


def test_download(tmp_path, monkeypatch, folder):
    """The four files, each checked, into a folder of that name; offline, or with a file that is wrong, nothing is left there."""
    monkeypatch.delenv("EP_OFFLINE", raising=False)
    served = {f"{file}.gz": (folder / f"{file}.gz").read_bytes() if (folder / f"{file}.gz").exists() else
              gzip.compress((folder / file).read_bytes()) for file in idx.FILES}
    asked = []

    def fetch(title, url, md5, target, size=""):
        asked.append((url, md5))
        if url.endswith(broken):
            raise EPError("broken")
        (target / url.rsplit("/", 1)[1]).write_bytes(served[url.rsplit("/", 1)[1]])

    monkeypatch.setattr(idx.downloads, "fetch", fetch)
    place, broken = tmp_path / "new", idx.FILES[2] + ".gz"
    with pytest.raises(EPError, match="broken"):
        datasets.load("mnist", place)
    assert not place.exists() and len(asked) == 3
    asked.clear()
    with pytest.raises(EPError, match="install Debian's package"):
        datasets.load("mnist", place, download=False)
    broken = "nothing"
    dataset = datasets.load("mnist", place)
    assert dataset.source == "MNIST" and dataset.folder == str(place / "mnist") and list(dataset.test_labels) == [0, 1, 2]
    assert asked == [(f"{idx.KINDS['mnist'].url}/{file}.gz", md5) for file, md5 in zip(idx.FILES, idx.KINDS["mnist"].md5)]


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
        datasets.load("mnist", folder)


@pytest.mark.parametrize("content", [b"text", gzip.compress(b"0" * 100, mtime=0)[:-12]], ids=["no archive", "cut short"])
def test_damaged_archives(folder, content):
    """No gzip file, and one that is cut short."""
    (folder / f"{IMAGES}.gz").write_bytes(content)
    with pytest.raises(EPError, match="cannot read"):
        datasets.load("auto", folder)


def test_missing_files_are_one_sentence(folder):
    """It says what to install, or what to name."""
    (folder / LABELS).unlink()
    with pytest.raises(EPError, match=f"no {LABELS} .* install Debian's package dataset-fashion-mnist"):
        datasets.load("mnist", folder)


@pytest.mark.skipif(not Path(idx.DEBIAN).exists(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian():
    """60,000 and 10,000 images, as many of each class, and it knows its name."""
    dataset = datasets.load("fashion-mnist")
    assert dataset.source == "Fashion-MNIST" and dataset.classes[9] == "ankle boot"
    assert (np.bincount(dataset.train_labels) == 6000).all() and (np.bincount(dataset.test_labels) == 1000).all()
