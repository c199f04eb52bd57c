"""The data layer on tiny made-up files: layout, provenance, every error sentence, downloading from 127.0.0.1, augmentation."""

import hashlib
import http.server
import io
import os
import tarfile
import threading
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import sentence

from ep import EPError, datasets
from ep.backend import to_host
from ep.datasets import __main__ as pack, cifar
from ep.datasets.synthetic import CLASSES, SOURCE, synthetic_images

RECORDS = 3  # per file; the real ones have 10,000 and 50,000
VERIFIED, RECOGNISED = "{} (official archive, MD5 verified)", "{} (official images and labels, recognised as sets)"
UNVERIFIED = "{} layout, origin unverified"
NOWHERE = "http://127.0.0.1:9/"  # nobody answers there
LAYOUTS = [cifar.CIFAR10, cifar.CIFAR100]
both = pytest.mark.parametrize("name", ["cifar10", "cifar100"])


@pytest.fixture(scope="module")
def shapes():
    """The embedded images."""
    return datasets.load("synthetic")


@pytest.fixture(autouse=True)
def small_and_offline(monkeypatch, tmp_path):
    """Files of three records, a cache of its own, and nothing that could reach the network."""
    for layout in LAYOUTS:
        train, test = (dict.fromkeys(files, RECORDS) for files in (layout.train, layout.test))
        monkeypatch.setitem(cifar.LAYOUTS, layout.name, layout._replace(train=train, test=test, url=NOWHERE + layout.archive))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EP_DATA", raising=False)
    monkeypatch.delenv("EP_OFFLINE", raising=False)


def contents(number, labels=1):
    """(bytes of file `number`, its images (3, 32, 32, 3), its labels, the last of the `labels` bytes of each record)."""
    rng = np.random.default_rng(number)
    images = rng.integers(0, 256, (RECORDS, 32, 32, 3), dtype=np.uint8)
    label = rng.integers(0, 10 if labels == 1 else 100, (RECORDS, labels), dtype=np.uint8)
    records = [bytes(one) + b"".join(image[:, :, c].tobytes() for c in range(3)) for image, one in zip(images, label)]
    return b"".join(records), images, label[:, -1]


def files_of(name):
    """{file: bytes} of a made-up data set."""
    layout = cifar.LAYOUTS[name]
    return {file: contents(number, layout.labels)[0] for number, file in enumerate(layout.files)}


def write_cifar(folder, name="cifar10"):
    """A made-up CIFAR-10 in folder/cifar-10-batches-bin, or CIFAR-100 in its place; returns that folder."""
    inside = folder / cifar.LAYOUTS[name].folder
    inside.mkdir(parents=True)
    for file, content in files_of(name).items():
        (inside / file).write_bytes(content)
    return inside


# --- reading ----------------------------------------------------------------------------------------------------------


@both
def test_layout_round_trip(tmp_path, name):
    """Records of labels, red, green, blue plane become channels-last images in the order of files, the last label the class."""
    dataset, layout = datasets.load(name, write_cifar(tmp_path, name), download=False), cifar.LAYOUTS[name]
    parts = [contents(number, layout.labels) for number in range(len(layout.files))]
    for images, labels, written in ((*dataset[:2], parts[:-1]), (*dataset[2:4], parts[-1:])):
        np.testing.assert_array_equal(images, np.concatenate([part[1] for part in written]))
        np.testing.assert_array_equal(labels, np.concatenate([part[2] for part in written]))
        assert images.dtype == labels.dtype == np.uint8 and images.flags.c_contiguous
    assert len(set(dataset.classes)) == (10 if name == "cifar10" else 100) and dataset.classes == tuple(sorted(dataset.classes))
    published = (0.4914, 0.4822, 0.4465), (3 * 0.2023, 3 * 0.1994, 3 * 0.2010)
    assert (dataset.mean, dataset.std) == (published if name == "cifar10" else datasets.measured(dataset.train_images))


@pytest.mark.parametrize("where", ["argument", "string", "inside", "home", "EP_DATA", "cache"])
def test_where_it_is_looked_for(tmp_path, monkeypatch, where):
    """--data DIR (the folder itself or the one around it), else EP_DATA, else the cache folder; the answer is absolute."""
    inside = write_cifar(tmp_path / "cache" / "ep-convnets" if where == "cache" else tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    argument = {"argument": Path("here"), "string": str(inside.parent), "inside": inside, "home": "~/here"}.get(where)
    if where == "EP_DATA":
        monkeypatch.setenv("EP_DATA", str(inside.parent))
    elif argument:
        monkeypatch.setenv("EP_DATA", str(tmp_path / "elsewhere"))  # the argument goes first
    assert datasets.load("cifar10", argument, download=False).folder == str(inside)


@pytest.mark.parametrize("change, known", [
    (lambda b: b, True), (lambda b: b[6146:] + b[:6146], True), (lambda b: b[:-1] + bytes([b[-1] ^ 1]), False),
    (lambda b: bytes([(b[0] + 1) % 10]) + b[1:], False), (lambda b: b[:6146] + b[:3073], False)],
    ids=["as it was", "in another order", "another pixel", "another label", "one image twice"])
def test_the_set_of_images_is_recognised(tmp_path, monkeypatch, change, known):
    inside, layout = write_cifar(tmp_path), cifar.LAYOUTS["cifar10"]
    dataset = datasets.load("cifar10", tmp_path)
    digests = tuple(cifar.set_digest(*split) for split in (dataset[:2], dataset[2:4]))
    monkeypatch.setitem(cifar.LAYOUTS, "cifar10", layout._replace(sets=digests))
    changed("data_batch_1.bin", change)(inside)
    assert datasets.load("cifar10", tmp_path).source == (RECOGNISED if known else UNVERIFIED).format("CIFAR-10")


def test_the_set_is_recognised_in_a_folder_and_packed(tmp_path, monkeypatch, capsys):
    """Pictures with the images and labels of a known set get its name, classes and augmentation; so does the file they become."""
    Image, images = pytest.importorskip("PIL.Image"), np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    for k, place in enumerate(("train/a", "train/b", "train/a", "test/a", "test/b")):
        (tmp_path / "some" / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[k]).save(tmp_path / "some" / place / f"{k}.png")
    plain = datasets.load("auto", tmp_path / "some")
    digests = cifar.set_digest(images[:3], np.uint8([0, 1, 0])), cifar.set_digest(images[3:], np.uint8([0, 1]))
    layout = cifar.CIFAR100._replace(train={"": 3}, test={"": 2}, classes=("x", "y"), sets=digests)
    monkeypatch.setitem(cifar.LAYOUTS, "cifar100", layout)
    known = datasets.load("auto", tmp_path / "some")
    assert plain.source == "pictures in the folder some" and not plain.flip and known.source == RECOGNISED.format("CIFAR-100")
    assert known.classes == ("x", "y") and known.flip and known.pad == 4 and known.mean == plain.mean

    monkeypatch.setattr("sys.argv", ["pack", str(tmp_path / "some"), str(tmp_path / "some.npz")])
    pack.main()
    with np.load(tmp_path / "some.npz") as file:  # what else is in a file is not looked at
        np.savez(tmp_path / "some.npz", **file, notes=np.array([{"by": "me"}], object))
    packed = datasets.load("auto", tmp_path / "some.npz")
    assert layout.recognised in capsys.readouterr().out
    for a, b in zip(known, packed._replace(name=known.name, folder=known.folder)):
        assert np.array_equal(a, b)
    with pytest.raises(EPError, match="no new .npz file"):
        pack.main()


def changed(file, change):
    """A damage: `change` of the bytes of a file."""
    return lambda inside: (inside / file).write_bytes(change((inside / file).read_bytes()))


@pytest.mark.parametrize("asked", ["by name", "auto"])
@pytest.mark.parametrize("name, damage, match", [
    ("cifar10", changed("data_batch_4.bin", lambda b: b[:-1]), "data_batch_4.bin is damaged: 9,218 bytes, expected 9,219"),
    ("cifar10", changed("data_batch_4.bin", lambda b: b + b"?"), "data_batch_4.bin is damaged: 9,220 bytes"),
    ("cifar10", changed("test_batch.bin", lambda b: b[:6146] + bytes([10]) + b[6147:]), "record 2 (counted from 0) has label 10"),
    ("cifar100", changed("train.bin", lambda b: b[:6149] + bytes([100]) + b[6150:]), "record 2 (counted from 0) has label 100"),
    ("cifar10", lambda inside: (inside / "data_batch_2.bin").unlink(), "data_batch_2.bin missing")])
def test_files_that_are_there_but_wrong(tmp_path, asked, name, damage, match):
    """Sizes, labels, a file that is missing: "auto" does not take other images instead."""
    damage(write_cifar(tmp_path, name))
    assert match in sentence(datasets.load, name if asked == "by name" else asked, tmp_path)


def test_file_that_cannot_be_read(tmp_path, monkeypatch):
    inside = write_cifar(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", Mock(side_effect=PermissionError(13, "Permission denied", "data_batch_1.bin")))
    message = sentence(datasets.load, "cifar10", tmp_path)
    assert message == f"cannot read {inside}: [Errno 13] Permission denied: 'data_batch_1.bin'"


def test_statistics_are_measured(shapes):
    """Measured: mean and three standard deviations of all values, per channel, in bytes or floats; a constant channel is left."""
    images = np.random.default_rng(0).integers(0, 256, (1500, 4, 5, 3), dtype=np.uint8)
    images[..., 2] = 51
    mean, std = datasets.measured(images)
    values = images.reshape(-1, 3) / 255
    assert np.allclose(mean, values.mean(0), atol=5e-5) and np.allclose(std[:2], 3 * values.std(0)[:2], atol=2e-4)
    assert mean[2] == 0.2 and std[2] == 1.0
    assert datasets.measured((images / 255).astype(np.float32)) == (mean, std)
    x = shapes._replace(mean=mean, std=std).normalise(images)
    assert np.allclose(x.mean((0, 1, 2)), 0, atol=1e-3) and np.allclose(x.std((0, 1, 2))[:2], 1 / 3, atol=1e-3)


# --- choosing ---------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("value, download, offline", [(None, False, True), ("1", True, True), ("0", True, False),
                                                      ("", True, False)])
def test_what_is_not_there(tmp_path, monkeypatch, name, value, download, offline):
    """Where it was looked for, and what to do; if it may be downloaded, from where, and why it cannot be."""
    if value is not None:
        monkeypatch.setenv("EP_OFFLINE", value)
    place = tmp_path / "new" / "er"
    message = sentence(datasets.load, name, place, download=download)
    for words in [str(place), *(["switched off", "--data"] if offline else [cifar.LAYOUTS[name].url, "Connection refused"])]:
        assert words in message


def test_auto_takes_what_is_there(tmp_path):
    for name in ("cifar100", "cifar10"):  # of both, CIFAR-10
        assert datasets.load("auto", write_cifar(tmp_path, name)).name == datasets.load(str(tmp_path)).name == name


def test_auto_falls_back_loudly(monkeypatch, tmp_path):
    """Where no folder was named: neither EP_DATA nor the cache has to hold CIFAR-10."""
    monkeypatch.setenv("EP_DATA", str(tmp_path))
    dataset = datasets.load("auto")
    assert (dataset.name, dataset.source, dataset.folder, dataset.classes) == ("synthetic", SOURCE, None, CLASSES)
    assert all(words in datasets.banner(dataset) for words in ("NOT CIFAR-10", "Connection refused", str(tmp_path)))
    assert dataset.mean == cifar.CIFAR10_MEAN and dataset.std == cifar.CIFAR10_STD and not dataset.flip


@pytest.mark.parametrize("made,match", [(None, "no such folder or file"), ("empty/", "no data set in"),
                                        ("text.txt", "is no data set"), ("data.tar.gz", "is no data set")])
def test_a_named_place_that_holds_nothing_is_an_error(tmp_path, made, match):
    """Never a silent fall-back, and never a download to a place that may be a typing mistake."""
    path = tmp_path / (made or "missing")
    if made:
        path.mkdir() if made.endswith("/") else path.write_text("nothing")
    for call in (("auto", path), (str(path),)):
        message = sentence(datasets.load, *call)
        assert match in message and str(path) in message
    assert not path.is_file() or f"no CIFAR-10 in {path}" in sentence(datasets.load, "cifar10", path)


def test_banner(tmp_path):
    """Provenance, sizes, and how many images of which class there are; of many classes some."""
    dataset = datasets.load("cifar10", write_cifar(tmp_path))
    first, second = datasets.banner(dataset).splitlines()
    assert first == f"data: CIFAR-10 layout, origin unverified, 15 training and 3 test images, from {dataset.folder}"
    trained, tested = (np.bincount(labels, minlength=10) for labels in (dataset.train_labels, dataset.test_labels))
    assert second == f"classes (training + test): {', '.join(map('{} {} + {}'.format, dataset.classes, trained, tested))}"
    many = datasets.banner(dataset._replace(classes=cifar.FINE, source="\udcff\x1b[31m\n of any bytes", note="mind this"))
    assert many.startswith("data: ??[31m? of any bytes, 15") and many.endswith("and 80 more\nnote: mind this")


def test_held_out_images_are_the_last_training_images(shapes):
    """They take the place of the test images, are gone from the training images, and the provenance says so."""
    dataset = datasets.hold_out(shapes, 300)
    assert np.array_equal(np.concatenate([dataset.train_images, dataset.test_images]), shapes.train_images)
    assert np.array_equal(np.concatenate([dataset.train_labels, dataset.test_labels]), shapes.train_labels)
    assert len(dataset.test_labels) == 300 and "last 300 training images" in dataset.source and dataset.note == ""
    assert datasets.hold_out(shapes, 0) is shapes
    assert "training images" in sentence(datasets.hold_out, shapes, len(shapes.train_labels))
    assert "whole number of at least 0" in sentence(datasets.hold_out, shapes, -5)


def test_held_out_classes_that_are_not_trained_are_told(shapes):
    """And trained ones that are not held out: of images that are sorted by class, or few."""
    by_class = shapes._replace(train_labels=np.sort(shapes.train_labels), note="before")
    assert datasets.hold_out(by_class, 300).note.startswith("before; held out are images of checkerboard, trained on are images")
    few = shapes._replace(train_labels=shapes.train_labels[:3], train_images=shapes.train_images[:3])
    assert datasets.hold_out(few, 1).note.startswith(f"held out are images of {CLASSES[shapes.train_labels[2]]}, ")


def test_names_that_are_no_data_set(tmp_path):
    for name in ("imagenet", 3):
        assert f"unknown data set '{name}': expected auto, cifar10, " in sentence(datasets.load, name)
    assert "two places" in sentence(datasets.load, str(tmp_path), tmp_path)
    assert "the path of a folder" in sentence(datasets.load, "folder")  # what images of one's own are called


# --- archives and downloads -------------------------------------------------------------------------------------------


def members_of(name):
    """{path: bytes} in the official archive of a made-up data set."""
    return {f"{cifar.LAYOUTS[name].folder}/{file}": content for file, content in files_of(name).items()}


def archive(members=None, kind=tarfile.REGTYPE):
    """The bytes of a .tar.gz of `members` {path: bytes} (default: a made-up CIFAR-10) as entries of type `kind`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (members or members_of("cifar10")).items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.type, entry.linkname = len(content) if kind == tarfile.REGTYPE else 0, kind, "/etc/passwd"
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def serve(monkeypatch):
    """serve(content, ...) -> [paths asked for]: a server on 127.0.0.1 is the official address, and answers with `content`."""
    servers = []

    def serve(content, name="cifar10", md5=None, announced=None):
        """md5: what is expected (default: that of the content). announced: the length that is promised."""
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(announced or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        layout = cifar.LAYOUTS[name]
        monkeypatch.setitem(cifar.LAYOUTS, name, layout._replace(
            md5=md5 or hashlib.md5(content).hexdigest(), url=f"http://127.0.0.1:{servers[-1].server_port}/{layout.archive}"))
        return asked

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@both
def test_download(tmp_path, serve, capsys, name):
    """Its progress is shown; checked, and read as it is; the second time nothing is asked for."""
    asked, layout = serve(archive(members_of(name)), name), cifar.LAYOUTS[name]
    dataset = datasets.load(name, tmp_path / "new")
    assert dataset.source == VERIFIED.format(layout.title) and dataset.folder == str(tmp_path / "new" / layout.archive)
    np.testing.assert_array_equal(dataset.test_images, contents(len(layout.files) - 1, layout.labels)[1])
    assert dataset.classes == layout.classes and os.listdir(tmp_path / "new") == [layout.archive]
    assert "100%" in capsys.readouterr().err
    assert datasets.load(name, dataset.folder).source == dataset.source
    assert asked == [f"/{layout.archive}"]


def test_where_downloads_go(tmp_path, serve):
    """To the cache, or into the folder that is named."""
    serve(archive())
    assert datasets.load().folder == str(tmp_path / "cache" / "ep-convnets" / "cifar-10-binary.tar.gz")
    assert datasets.load("cifar10", tmp_path).folder == str(tmp_path / "cifar-10-binary.tar.gz")
    (tmp_path / "file").write_text("")
    assert f"no CIFAR-10 in {tmp_path / 'file' / 'below'}, and the download" in sentence(
        datasets.load, "cifar10", tmp_path / "file" / "below")


@pytest.mark.parametrize("options, match", [
    (dict(md5=cifar.CIFAR10.md5), f"does not match the known hash: expected md5:{cifar.CIFAR10.md5}"),
    (dict(announced=10**6), "and the download from http://127.0.0.1")], ids=["wrong MD5", "connection lost"])
def test_downloads_that_go_wrong_leave_nothing(tmp_path, serve, options, match):
    serve(archive(), **options)
    assert match in sentence(datasets.load, "cifar10", tmp_path)
    assert os.listdir(tmp_path) == []


def test_an_archive_on_disk_is_read(tmp_path):
    """By "auto", in a folder or itself. Another MD5 than the official one is told; names in it are never used as paths."""
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(archive({"../escaped.bin": b"bad", **members_of("cifar10")}))
    for place in (tmp_path, path):
        dataset = datasets.load("auto", place)
        assert (dataset.name, dataset.source, dataset.folder) == ("cifar10", UNVERIFIED.format("CIFAR-10"), str(path))
        np.testing.assert_array_equal(dataset.test_images, contents(5)[1])
    assert not list(tmp_path.parent.rglob("escaped*"))


@pytest.mark.parametrize("content, match", [
    (b"no archive at all", "cannot read"), (archive()[:-2000], "cannot read"), (archive({"other": b""}), "is damaged: 0 bytes"),
    *((archive(kind=kind), "is damaged: 0 bytes") for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE))],
    ids=["no archive", "cut short", "of something else", "symbolic links", "hard links", "folders"])
def test_a_damaged_archive(tmp_path, content, match):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(content)
    message = sentence(datasets.load, "auto", tmp_path)
    assert match in message and str(path) in message


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
    wide = to_host(datasets.normalise(xp.asarray((images / 255).astype(np.float32)), (0.5, 0.5, 0.5), (1.0, 2.0, 4.0)))
    np.testing.assert_allclose(wide, (images / 255 - 0.5) / [1, 2, 4], rtol=0, atol=1e-6)  # floats are from 0 to 1 already
    with pytest.raises(EPError, match="uint8 from 0 to 255, or of floats from 0 to 1: got int64"):
        datasets.normalise(xp.asarray(images.astype("int64")))


@pytest.mark.parametrize("flip", [True, False])
def test_augmented_images_are_crops_of_the_padded_ones(xp, flip):
    """Every result is one of the crops of the edge-padded image (or its mirror image), and all of these occur."""
    images, pad, seen = pictures(400), 2, set()
    results = to_host(datasets.augment(xp.asarray(images), np.random.default_rng(1), pad=pad, flip=flip))
    assert results.dtype == np.uint8 and results.shape == images.shape
    for image, result in zip(images, results):
        padded = [np.pad(one, ((pad, pad), (pad, pad), (0, 0)), mode="edge") for one in (image, image[:, ::-1])]
        found = [(f, i, j) for f in range(2) for i in range(5) for j in range(5)
                 if np.array_equal(padded[f][i : i + 8, j : j + 8], result)]
        assert len(found) == 1
        seen.update(found)
    assert seen == {(f, i, j) for f in range(1 + flip) for i in range(5) for j in range(5)}


def test_augmentation_follows_its_random_numbers(xp):
    """The same ones, the same crops; without padding and mirroring, the images themselves."""
    images = xp.asarray(pictures())
    one, same = (to_host(datasets.augment(images, np.random.default_rng(1), pad=2)) for _ in range(2))
    assert np.array_equal(one, same) and not np.array_equal(one, to_host(images))
    assert np.array_equal(to_host(datasets.augment(images, np.random.default_rng(1), pad=0, flip=False)), to_host(images))


# --- the embedded images ----------------------------------------------------------------------------------------------


def test_synthetic_images():
    """Balanced, in random order, the same for the same seed; no image is in both sets, whatever their sizes."""
    train, labels, test, test_labels = synthetic_images(105, 50, seed=3)
    assert train.shape == (105, 32, 32, 3) and train.dtype == labels.dtype == np.uint8
    assert set(np.bincount(labels)) == {10, 11} and set(np.bincount(test_labels)) == {5} and list(labels) != sorted(labels)
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}
    assert all(map(np.array_equal, (train, labels, test, test_labels), synthetic_images(105, 50, seed=3)))
    assert np.array_equal(test, synthetic_images(30, 50, seed=3)[2]) and not np.array_equal(train, synthetic_images(105, 50)[0])
