"""The data layer on tiny made-up files: layout, provenance, every error sentence, downloading, augmentation. No network."""

import hashlib
import io
import os
import tarfile
import urllib.error

import numpy as np
import pytest

from ep.backend import to_host
from ep.datasets import cifar as datasets
from ep.datasets.synthetic import CLASSES, synthetic_images
from ep.errors import EPError

RECORDS = 3  # per file; the real ones have 10,000
FILES = datasets.TRAIN_FILES + datasets.TEST_FILES


@pytest.fixture(autouse=True)
def small_and_offline(monkeypatch, tmp_path):
    """Files of three records, a cache of its own, and nothing that could reach the network."""
    monkeypatch.setattr(datasets, "RECORDS", RECORDS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EP_DATA", raising=False)
    monkeypatch.delenv("EP_OFFLINE", raising=False)
    monkeypatch.setattr(datasets.urllib.request, "urlopen", unreachable)


def unreachable(url, timeout):
    raise urllib.error.URLError("no route to host")


def contents(number):
    """(bytes of file `number`, its images (3, 32, 32, 3), its labels)."""
    rng = np.random.default_rng(number)
    images = rng.integers(0, 256, (RECORDS, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, RECORDS, dtype=np.uint8)
    records = [bytes([label]) + b"".join(image[:, :, c].tobytes() for c in range(3)) for image, label in zip(images, labels)]
    return b"".join(records), images, labels


def write_cifar10(folder, source=None):
    """A made-up CIFAR-10 in folder/cifar-10-batches-bin; returns that folder."""
    inside = folder / datasets.LAYOUT
    inside.mkdir(parents=True)
    for number, file in enumerate(FILES):
        (inside / file).write_bytes(contents(number)[0])
    if source is not None:
        (inside / "SOURCE.txt").write_text(source)
    return inside


def sentence(call, *arguments, **options):
    """The one sentence that a call ends in."""
    with pytest.raises(EPError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_layout_round_trip(tmp_path):
    """Records of label, red, green, blue plane become channels-last images, in the order of the files."""
    dataset = datasets.cifar10(write_cifar10(tmp_path), download=False)
    train, test = [contents(n) for n in range(5)], contents(5)
    np.testing.assert_array_equal(dataset.train_images, np.concatenate([images for _, images, _ in train]))
    np.testing.assert_array_equal(dataset.train_labels, np.concatenate([labels for _, _, labels in train]))
    np.testing.assert_array_equal(dataset.test_images, test[1])
    np.testing.assert_array_equal(dataset.test_labels, test[2])
    assert dataset.train_images.dtype == dataset.train_labels.dtype == np.uint8
    assert dataset.name == "cifar10" and len(dataset.classes) == 10 and dataset.note == ""


@pytest.mark.parametrize("where", ["argument", "string", "inside", "EP_DATA", "cache"])
def test_where_it_is_looked_for(tmp_path, monkeypatch, where):
    """--data DIR (the folder itself or the one around it), else EP_DATA, else the cache folder."""
    inside = write_cifar10(tmp_path / "cache" / "ep-convnets" if where == "cache" else tmp_path / "here")
    argument = {"argument": inside.parent, "string": str(inside.parent), "inside": inside}.get(where)
    if where == "EP_DATA":
        monkeypatch.setenv("EP_DATA", str(inside.parent))
    elif argument:
        monkeypatch.setenv("EP_DATA", str(tmp_path / "elsewhere"))  # the argument goes first
    assert datasets.cifar10(argument, download=False).folder == str(inside)


@pytest.mark.parametrize("text,source", [
    ("CIFAR-10, JPEG copy\nmore\n", "CIFAR-10, JPEG copy"), (None, datasets.UNVERIFIED), ("\n", datasets.UNVERIFIED),
    ("a\tb\x1b[31m\n", "ab[31m")])
def test_provenance(tmp_path, text, source):
    """The first line of SOURCE.txt, without control characters; without it the origin is unverified."""
    assert datasets.cifar10(write_cifar10(tmp_path, text)).source == source


@pytest.mark.parametrize("name", ["cifar10", "auto"])
@pytest.mark.parametrize("change,word", [(-1, "truncated"), (+1, "oversized")])
def test_wrong_file_size(tmp_path, name, change, word):
    """Both sizes are named; "auto" does not replace damaged files either."""
    path = write_cifar10(tmp_path) / "data_batch_4.bin"
    path.write_bytes((path.read_bytes() + b"?")[: RECORDS * 3073 + change])
    message = sentence(datasets.load, name, tmp_path)
    assert f"data_batch_4.bin is {word}: {9219 + change:,} bytes, expected 9,219" in message


@pytest.mark.parametrize("name", ["cifar10", "auto"])
def test_label_above_nine(tmp_path, name):
    path = write_cifar10(tmp_path) / "test_batch.bin"
    damaged = bytearray(path.read_bytes())
    damaged[2 * 3073] = 10
    path.write_bytes(damaged)
    expected = "test_batch.bin is damaged: record 2 (counted from 0) has label 10, expected 0 to 9"
    assert expected in sentence(datasets.load, name, tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "auto"])
def test_incomplete_folder(tmp_path, name):
    inside = write_cifar10(tmp_path)
    (inside / "data_batch_2.bin").unlink()
    message = sentence(datasets.load, name, tmp_path)
    assert message.startswith(f"incomplete CIFAR-10 in {inside}: data_batch_2.bin missing")


def test_file_that_cannot_be_read(tmp_path, monkeypatch):
    inside = write_cifar10(tmp_path)

    def refuse(path, dtype):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(datasets.np, "fromfile", refuse)
    assert f"cannot read {inside / 'data_batch_1.bin'}" in sentence(datasets.cifar10, tmp_path)


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_absent_and_no_download(tmp_path):
    """The sentence says where it was looked for and what to do."""
    message = sentence(datasets.cifar10, tmp_path, download=False)
    assert str(tmp_path) in message and "switched off" in message and "--data" in message and "EP_DATA" in message


@pytest.mark.parametrize("value,offline", [("1", True), ("0", False), ("", False)])
def test_offline_switch(tmp_path, monkeypatch, value, offline):
    monkeypatch.setenv("EP_OFFLINE", value)
    message = sentence(datasets.cifar10, tmp_path)
    assert ("switched off" in message) is offline and ("no route to host" in message) is not offline


def test_unreachable(tmp_path):
    message = sentence(datasets.cifar10, tmp_path / "new")
    assert f"the download of CIFAR-10 to {tmp_path / 'new'} from {datasets.URL} failed: no route to host" in message
    assert not (tmp_path / "new").exists()


def test_an_address_that_never_answers(tmp_path, monkeypatch):
    """Name resolution has no time-out of its own: the wait is bounded all the same."""
    release = datasets.threading.Event()
    monkeypatch.setattr(datasets, "TIMEOUT", 0.05)
    monkeypatch.setattr(datasets.urllib.request, "urlopen", lambda url, timeout: release.wait(10))
    assert "no answer within 0.05 s" in sentence(datasets.cifar10, tmp_path)
    release.set()


def test_auto_takes_what_is_there(tmp_path):
    assert datasets.load("auto", write_cifar10(tmp_path)).name == "cifar10"


def test_auto_falls_back_loudly(tmp_path):
    dataset = datasets.load("auto", tmp_path)
    assert (dataset.name, dataset.source, dataset.folder, dataset.classes) == ("synthetic", datasets.EMBEDDED, None, CLASSES)
    text = datasets.banner(dataset)
    assert "NOT CIFAR-10" in text and "no route to host" in text and str(tmp_path) in text and len(text.splitlines()) > 3


def test_banner(tmp_path):
    dataset = datasets.load("cifar10", write_cifar10(tmp_path, "somewhere\n"))
    assert datasets.banner(dataset) == f"data: somewhere, 15 training and 3 test images, from {dataset.folder}"
    assert "why" not in datasets.banner(datasets.load("synthetic"))


def test_held_out_images_are_the_last_training_images():
    """They take the place of the test images, are gone from the training images, and the provenance says so."""
    whole = datasets.load("synthetic")
    dataset = datasets.hold_out(whole, 300)
    assert np.array_equal(np.concatenate([dataset.train_images, dataset.test_images]), whole.train_images)
    assert np.array_equal(np.concatenate([dataset.train_labels, dataset.test_labels]), whole.train_labels)
    assert len(dataset.test_labels) == 300 and "300 images held out" in dataset.source
    assert datasets.hold_out(whole, 0) is whole
    with pytest.raises(EPError, match="training images"):
        datasets.hold_out(whole, len(whole.train_labels))


def test_unknown_name():
    assert sentence(datasets.load, "mnist") == "unknown data set 'mnist': expected auto, cifar10 or synthetic"


# --- downloading ------------------------------------------------------------------------------------------------------


def archive(members=None, kind=tarfile.REGTYPE):
    """The bytes of a .tar.gz of `members` {name: bytes} (default: a made-up CIFAR-10) as entries of type `kind`."""
    if members is None:
        members = {f"{datasets.LAYOUT}/{file}": contents(number)[0] for number, file in enumerate(FILES)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.type, entry.linkname = len(content) if kind == tarfile.REGTYPE else 0, kind, "/etc/passwd"
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def serve(monkeypatch, content, md5=None, announced=True):
    """Let the official address answer with `content`; md5: what is expected (default: that of the content)."""

    class Response(io.BytesIO):
        headers = {"Content-Length": str(len(content))} if announced else {}

    asked = []
    monkeypatch.setattr(datasets.urllib.request, "urlopen",
                        lambda url, timeout: asked.append((url, timeout)) or Response(content))
    monkeypatch.setattr(datasets, "MD5", md5 or hashlib.md5(content).hexdigest())
    return asked


@pytest.mark.parametrize("announced", [True, False])
def test_download(tmp_path, monkeypatch, capsys, announced):
    """Announced, checked, unpacked, moved into place, its origin noted; the second time nothing is asked for."""
    asked = serve(monkeypatch, archive(), announced=announced)
    dataset = datasets.load("auto", tmp_path / "new")
    assert dataset.source == datasets.VERIFIED and dataset.folder == str(tmp_path / "new" / datasets.LAYOUT)
    np.testing.assert_array_equal(dataset.test_images, contents(5)[1])
    assert os.listdir(tmp_path / "new") == [datasets.LAYOUT]
    assert sorted(os.listdir(dataset.folder)) == sorted([*FILES, "SOURCE.txt"])
    assert "about 162 MB" in capsys.readouterr().err
    datasets.cifar10(tmp_path / "new")
    assert asked == [("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 10.0)]


def test_download_goes_to_the_cache(tmp_path, monkeypatch):
    serve(monkeypatch, archive())
    assert datasets.load().folder == str(tmp_path / "cache" / "ep-convnets" / datasets.LAYOUT)


def test_download_fills_an_empty_folder(tmp_path, monkeypatch):
    serve(monkeypatch, archive())
    (tmp_path / datasets.LAYOUT).mkdir()
    assert datasets.cifar10(tmp_path).source == datasets.VERIFIED


def test_wrong_md5_leaves_nothing(tmp_path, monkeypatch):
    serve(monkeypatch, archive(), md5="c32a1d4ab5d03f1284b67883e8d87530")
    assert "expected c32a1d4ab5d03f1284b67883e8d87530" in sentence(datasets.cifar10, tmp_path)
    assert os.listdir(tmp_path) == []


def test_connection_lost_halfway(tmp_path, monkeypatch):
    class Response(io.BytesIO):
        headers = {"Content-Length": "1000000"}

        def read(self, size):
            raise TimeoutError("timed out")

    monkeypatch.setattr(datasets.urllib.request, "urlopen", lambda url, timeout: Response())
    assert "failed: timed out" in sentence(datasets.cifar10, tmp_path)
    assert os.listdir(tmp_path) == []


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    serve(monkeypatch, archive())
    (tmp_path / "file").write_text("")
    assert "failed" in sentence(datasets.cifar10, tmp_path / "file" / "below")


@pytest.mark.parametrize("content", [b"no archive at all", archive()[:-2000]])
def test_archive_that_cannot_be_unpacked(tmp_path, monkeypatch, content):
    serve(monkeypatch, content)
    assert "cannot be unpacked" in sentence(datasets.cifar10, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["../escaped.bin", "/tmp/ep-escaped.bin", f"{datasets.LAYOUT}/../../escaped.bin"])
def test_path_traversal_is_refused(tmp_path, monkeypatch, name):
    """Names in the archive are never used as paths: what is not expected is not written, anywhere."""
    good = {f"{datasets.LAYOUT}/{file}": contents(number)[0] for number, file in enumerate(FILES)}
    serve(monkeypatch, archive({name: b"bad", **good}))
    folder = datasets.cifar10(tmp_path / "deep" / "er").folder
    assert sorted(os.listdir(folder)) == sorted([*FILES, "SOURCE.txt"])
    assert not list(tmp_path.rglob("*escaped*")) and not os.path.exists("/tmp/ep-escaped.bin")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_links_are_refused(tmp_path, monkeypatch, kind):
    serve(monkeypatch, archive(kind=kind))
    assert "as ordinary files of the right size" in sentence(datasets.cifar10, tmp_path)
    assert os.listdir(tmp_path) == []


# --- preparing --------------------------------------------------------------------------------------------------------


def pictures(N=6, side=8):
    return np.random.default_rng(0).integers(0, 256, (N, side, side, 3), dtype=np.uint8)


def test_normalise(xp):
    """(image/255 - mean)/(3 std), float32, where the images are."""
    images = pictures()
    x = datasets.normalise(xp.asarray(images))
    assert x.dtype == xp.float32 and x.shape == images.shape and type(x) is type(xp.asarray(images))
    expected = (images / 255 - [0.4914, 0.4822, 0.4465]) / [3 * 0.2023, 3 * 0.1994, 3 * 0.2010]
    np.testing.assert_allclose(to_host(x), expected, rtol=0, atol=1e-6)


def test_augment_of_nothing_is_the_identity(xp):
    images = xp.asarray(pictures())
    result = datasets.augment(images, np.random.default_rng(0), pad=0, flip=False)
    np.testing.assert_array_equal(to_host(result), to_host(images))


@pytest.mark.parametrize("flip", [True, False])
def test_augmented_images_are_crops_of_the_padded_ones(xp, flip):
    """Every result is one of the crops of the edge-padded image (or its mirror image), and all offsets occur."""
    images, pad, seen = pictures(400), 2, set()
    results = to_host(datasets.augment(xp.asarray(images), np.random.default_rng(1), pad=pad, flip=flip))
    assert results.dtype == np.uint8 and results.shape == images.shape
    for image, result in zip(images, results):
        padded = {f: np.pad(image[:, ::-1] if f else image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
                  for f in (False, True)}
        found = [(f, i, j) for f in padded for i in range(5) for j in range(5)
                 if np.array_equal(padded[f][i : i + 8, j : j + 8], result)]
        assert len(found) == 1
        seen.update(found)
    assert {(i, j) for _, i, j in seen} == {(i, j) for i in range(5) for j in range(5)}
    assert {f for f, _, _ in seen} == ({False, True} if flip else {False})


def test_augment_is_reproducible():
    first, second = (datasets.augment(pictures(), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


# --- the embedded images ----------------------------------------------------------------------------------------------


def test_synthetic_images_are_deterministic():
    for first, second in zip(synthetic_images(40, 20, seed=3), synthetic_images(40, 20, seed=3)):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(synthetic_images(40, 20, seed=3)[0], synthetic_images(40, 20, seed=4)[0])


def test_synthetic_sets_are_independent():
    """No image is in both sets, and the size of one does not change the other."""
    train, _, test, _ = synthetic_images(40, 40)
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}
    np.testing.assert_array_equal(test, synthetic_images(30, 40)[2])


def test_synthetic_classes_are_balanced():
    train_images, train_labels, test_images, test_labels = synthetic_images(105, 50)
    assert train_images.shape == (105, 32, 32, 3) and train_images.dtype == train_labels.dtype == np.uint8
    assert set(np.bincount(train_labels)) == {10, 11} and set(np.bincount(test_labels)) == {5}
    assert len(CLASSES) == 10 and not np.array_equal(train_labels, np.sort(train_labels))


def test_synthetic_sizes_are_checked():
    message = sentence(synthetic_images, 0, 5)
    assert message == "the synthetic data set needs at least 1 training and 1 test image: got 0 and 5"
