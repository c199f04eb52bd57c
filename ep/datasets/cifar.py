"""Images: CIFAR-10 from disk or from its official address, else the embedded synthetic set; normalisation, augmentation.

CIFAR-10 is read in its official *binary* layout, a folder `cifar-10-batches-bin` with six files of 10,000 records,

    record = label (1 byte, 0-9), red plane, green plane, blue plane (32 x 32 bytes each, row by row)

so nothing is ever unpickled. Where it is looked for: the folder that is asked for, else the environment variable
EP_DATA, else the cache (XDG_CACHE_HOME or ~/.cache, subfolder ep-convnets). A folder that holds none of it is where it
is downloaded to (unless download=False or EP_OFFLINE=1). Files that are there but wrong are always an error.
"""

import hashlib
import http.client
import os
import queue
import shutil
import sys
import tarfile
import tempfile
import threading
import urllib.request
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..backend import array_module
from ..errors import EPError
from .synthetic import CLASSES as SYNTHETIC_CLASSES, synthetic_images

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
SIZE = "about 162 MB"
TIMEOUT = 10.0  # seconds, for the connection and for every read

LAYOUT = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{n}.bin" for n in range(1, 6))
TEST_FILES = ("test_batch.bin",)
RECORDS = 10_000  # per file
RECORD_BYTES = 1 + 3 * 32 * 32
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

VERIFIED = "CIFAR-10 (official archive, MD5 verified)"
UNVERIFIED = "CIFAR-10 layout, origin unverified"
EMBEDDED = "embedded synthetic images (not CIFAR-10)"

MEAN = (0.4914, 0.4822, 0.4465)  # per channel, of images from 0 to 1
STD = (3 * 0.2023, 3 * 0.1994, 3 * 0.2010)  # the paper divides by three standard deviations


class Dataset(NamedTuple):
    """Labelled images. `note` says why CIFAR-10 was not used where it was asked for first ("" otherwise)."""

    train_images: np.ndarray  # (N, 32, 32, 3) uint8, channels-last
    train_labels: np.ndarray  # (N,) uint8
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple  # of names; the label is the position
    name: str  # "cifar10" or "synthetic"
    source: str  # provenance, one line
    folder: str | None = None  # where it was read from
    note: str = ""


# --- choosing ---------------------------------------------------------------------------------------------------------


def load(name="auto", folder=None, download=True):
    """The Dataset `name`: "cifar10", "synthetic", or "auto" (CIFAR-10 if present or downloadable, else synthetic).

    Raises EPError for an unknown name, CIFAR-10 files that are incomplete or damaged (with "auto" too), and, with
    "cifar10", for files that are not there.
    """
    if name not in ("auto", "cifar10", "synthetic"):
        raise EPError(f"unknown data set '{name}': expected auto, cifar10 or synthetic")
    if name == "cifar10":
        return cifar10(folder, download)
    note = ""
    if name == "auto":
        found, note = _obtain(_place(folder), download)
        if found:
            return _read(found)
    return Dataset(*synthetic_images(), SYNTHETIC_CLASSES, "synthetic", EMBEDDED, None, note)


def cifar10(folder=None, download=True):
    """CIFAR-10 as a Dataset: 50,000 training and 10,000 test images.

    folder    holds the .bin files or cifar-10-batches-bin; without either it is downloaded into it
    download  False, or the environment variable EP_OFFLINE=1, never touches the network
    Raises EPError if it is not there and not downloaded, and for incomplete or damaged files.
    """
    found, reason = _obtain(_place(folder), download)
    if not found:
        raise EPError(reason)
    return _read(found)


def hold_out(dataset, images):
    """`dataset` with its last `images` training images in the place of the test images, which stay unseen (0: as it is).

    Settings are chosen on these. Raises EPError if that leaves no training image.
    """
    if images >= len(dataset.train_labels):
        raise EPError(f"validation images: {images} asked for, but {dataset.source} has {len(dataset.train_labels)} training "
                      "images")
    if images == 0:
        return dataset
    x, y = dataset.train_images, dataset.train_labels
    return dataset._replace(train_images=x[:-images], train_labels=y[:-images], test_images=x[-images:], test_labels=y[-images:],
                            source=f"{dataset.source}, tested on {images} images held out of its training images")


def banner(dataset):
    """What to print before using `dataset`: one line, or a loud box if it is synthetic."""
    sizes = f"{len(dataset.train_images):,} training and {len(dataset.test_images):,} test images"
    if dataset.name != "synthetic":
        return f"data: {dataset.source}, {sizes}, from {dataset.folder}"
    lines = ["SYNTHETIC DATA - THIS IS NOT CIFAR-10",
             f"{EMBEDDED}: {sizes}, {len(dataset.classes)} classes of shapes and patterns",
             *([f"why: {dataset.note}"] if dataset.note else []), "accuracies on it say nothing about CIFAR-10"]
    return "\n".join(["*" * 80, *(f"*  {line}" for line in lines), "*" * 80])


# --- reading ----------------------------------------------------------------------------------------------------------


def _place(folder):
    """Where CIFAR-10 is looked for and downloaded to."""
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "ep-convnets")
    return Path(os.path.expanduser(folder or os.environ.get("EP_DATA") or cache))


def _obtain(place, download):
    """(folder of the .bin files, "") or (None, why there is none)."""
    found = _find(place)
    if found:
        return found, ""
    absent = f"no CIFAR-10 in {place} (expected {LAYOUT}/{TRAIN_FILES[0]} and so on)"
    if not download or os.environ.get("EP_OFFLINE", "0") not in ("", "0"):
        return None, (f"{absent} and downloading is switched off: unpack {URL} there, name its folder with --data or "
                      "EP_DATA, or allow the download")
    try:
        return _download(place), ""
    except EPError as error:
        return None, f"{absent} and {error}"


def _find(place):
    """The folder with the .bin files in or under `place`, or None. Raises EPError if only some of them are there."""
    for folder in (place, place / LAYOUT):
        missing = [file for file in TRAIN_FILES + TEST_FILES if not os.path.isfile(folder / file)]
        if not missing:
            return folder
        if len(missing) < len(TRAIN_FILES + TEST_FILES):
            raise EPError(f"incomplete CIFAR-10 in {folder}: {', '.join(missing)} missing (complete or remove the folder)")
    return None


def _read(folder):
    train, test = (_read_files([folder / file for file in files]) for files in (TRAIN_FILES, TEST_FILES))
    return Dataset(*train, *test, CLASSES, "cifar10", _provenance(folder), str(folder))


def _read_files(paths):
    """(images (N, 32, 32, 3), labels (N,)), both uint8. Raises EPError for a wrong size or a label above 9."""
    images = np.empty((len(paths), RECORDS, 32, 32, 3), dtype=np.uint8)
    labels = np.empty((len(paths), RECORDS), dtype=np.uint8)
    for n, path in enumerate(paths):
        records = _read_records(path)
        labels[n] = records[:, 0]
        images[n] = records[:, 1:].reshape(RECORDS, 3, 32, 32).transpose(0, 2, 3, 1)  # planes -> channels-last
        wrong = np.flatnonzero(labels[n] > 9)
        if len(wrong):
            raise EPError(f"{path} is damaged: record {wrong[0]} (counted from 0) has label {labels[n, wrong[0]]}, "
                          "expected 0 to 9")
    return images.reshape(-1, 32, 32, 3), labels.reshape(-1)


def _read_records(path):
    expected = RECORDS * RECORD_BYTES
    try:
        size = path.stat().st_size
        if size != expected:
            state = "truncated" if size < expected else "oversized"
            raise EPError(f"{path} is {state}: {size:,} bytes, expected {expected:,}")
        return np.fromfile(path, dtype=np.uint8).reshape(RECORDS, RECORD_BYTES)
    except (OSError, ValueError) as error:
        raise EPError(f"cannot read {path}: {_reason(error)}") from None


def _provenance(folder):
    """The first line of SOURCE.txt, which whoever wrote the files put beside them."""
    try:
        with open(folder / "SOURCE.txt", encoding="utf-8", errors="replace") as file:
            line = file.readline(200)
    except OSError:
        return UNVERIFIED
    return "".join(c for c in line if c.isprintable()).strip() or UNVERIFIED


# --- downloading ------------------------------------------------------------------------------------------------------


def _download(place):
    """Fetch, check and unpack CIFAR-10 into place/cifar-10-batches-bin; returns that folder, or raises EPError.

    Everything happens in a temporary folder inside `place`, so no file is left behind when it fails.
    """
    try:
        with _connect(URL) as response:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=place) as temporary:
                archive, unpacked = Path(temporary, "archive.tar.gz"), Path(temporary, LAYOUT)
                _fetch(response, archive, place)
                _unpack(archive, unpacked)
                (unpacked / "SOURCE.txt").write_text(VERIFIED + "\n", encoding="utf-8")
                if not _find(place):  # another process may have been faster
                    os.replace(unpacked, place / LAYOUT)  # atomic: same file system
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EPError(f"the download of CIFAR-10 to {place} from {URL} failed: {_reason(error)}", exit_code=1) from None
    return _find(place)


def _connect(url):
    """The open response. A time-out of urllib alone does not cover name resolution, hence the thread."""
    answer = queue.Queue()

    def connect():
        try:
            answer.put(urllib.request.urlopen(url, timeout=TIMEOUT))
        except (OSError, ValueError, http.client.HTTPException) as error:  # raised below, in the thread that waits for it
            answer.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        response = answer.get(timeout=TIMEOUT)
    except queue.Empty:
        raise TimeoutError(f"no answer within {TIMEOUT:g} s") from None
    if isinstance(response, Exception):
        raise response
    return response


def _fetch(response, archive, place):
    """Write the response to the file `archive`. Raises EPError if its MD5 is not the official one."""
    print(f"downloading CIFAR-10 ({SIZE}) from {URL} to {place}", file=sys.stderr)
    length, digest = response.headers.get("Content-Length"), hashlib.md5(usedforsecurity=False)
    with open(archive, "wb") as file, tqdm(total=int(length) if length else None, unit="B", unit_scale=True) as progress:
        while block := response.read(1 << 18):
            file.write(block)
            digest.update(block)
            progress.update(len(block))
    if digest.hexdigest() != MD5:
        raise EPError(f"the download of CIFAR-10 from {URL} is damaged or cut short: its MD5 is {digest.hexdigest()}, "
                      f"expected {MD5}; try again later", exit_code=1)


def _unpack(archive, folder):
    """Copy the six files, and nothing else, out of `archive`: names in the archive are compared, never used as paths."""
    wanted = {f"{LAYOUT}/{file}": folder / file for file in TRAIN_FILES + TEST_FILES}
    folder.mkdir()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name in wanted and member.isreg() and member.size == RECORDS * RECORD_BYTES:
                    with open(wanted.pop(member.name), "xb") as file:
                        shutil.copyfileobj(tar.extractfile(member), file)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise EPError(f"the archive from {URL} cannot be unpacked: {_reason(error)}", exit_code=1) from None
    if wanted:
        raise EPError(f"the archive from {URL} lacks {', '.join(wanted)}, as ordinary files of the right size", exit_code=1)


def _reason(error):
    """An exception as part of a sentence."""
    return " ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__


# --- preparing --------------------------------------------------------------------------------------------------------


def normalise(images):
    """uint8 images (N, H, W, 3) -> float32 (image/255 - MEAN)/STD of the same shape, NumPy or CuPy."""
    xp = array_module(images)
    mean, std = xp.asarray(MEAN, dtype=xp.float32), xp.asarray(STD, dtype=xp.float32)
    return (images.astype(xp.float32) / 255.0 - mean) / std


def augment(images, rng, pad=4, flip=True):
    """Each image (N, H, W, C) flipped left-right with probability 1/2, padded by repeating its edge, cropped at random.

    rng: a NumPy generator, from which the numbers of the whole batch are drawn in order of the images, on the host.
    Padding and cropping are one gather: output pixel i is input pixel clip(i + offset - pad, 0, H - 1).
    """
    xp = array_module(images)
    N, H, W, _ = images.shape
    offsets = rng.integers(0, 2 * pad + 1, size=(N, 2)) - pad  # (down, right)
    rows = np.clip(np.arange(H) + offsets[:, :1], 0, H - 1)  # (N, H)
    columns = np.clip(np.arange(W) + offsets[:, 1:], 0, W - 1)  # (N, W)
    if flip:
        flipped = rng.random(N) < 0.5
        columns = np.where(flipped[:, None], W - 1 - columns, columns)
    n, rows, columns = xp.arange(N)[:, None, None], xp.asarray(rows)[:, :, None], xp.asarray(columns)[:, None, :]
    return images[n, rows, columns]
