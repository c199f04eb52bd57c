"""Images of one's own, in a folder with one sub-folder per class or in an .npz file: what is read, and every error sentence."""

import os

import numpy as np
import pytest
from helpers import sentence
from PIL import Image

from ep import datasets


def write(place, grey, side=2):
    """A picture of one grey, by which it is recognised, whatever it is called."""
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (grey, grey, grey)).save(place, format="PNG")


def write_all(top, paths, each=5):
    """`each` pictures in every folder of the list: of the k-th the greys 10 k, 10 k + 1 ..."""
    for k, path in enumerate(paths):
        for n in range(each):
            write(top / path / f"{n}.png", 10 * k + n)
    return top


def seen(dataset):
    """{class: (greys of its training images, greys of its test images)}"""
    return {name: tuple(sorted(x[y == k][:, 0, 0, 0].tolist()) for x, y in (dataset[:2], dataset[2:4]))
            for k, name in enumerate(dataset.classes)}


@pytest.fixture
def pets(tmp_path):
    return write_all(tmp_path / "pets", ["cat", "dog"])


PETS = {"cat": ([0, 1, 2, 3], [4]), "dog": ([10, 11, 12, 13], [14])}
ALL = [[*range(10 * k, 10 * k + 5)] for k in range(6)]

# --- one rule for layouts ---------------------------------------------------------------------------------------------

OWN_SPLIT = {"cat": (ALL[0], ALL[2]), "dog": (ALL[1], ALL[3])}
LAYOUTS = {  # folders of pictures -> (what they are read as; the end of the note: a folder not used, a class not tested)
    "train/cat train/dog test/cat test/dog": (OWN_SPLIT, ""),
    "train/cat train/dog val/cat val/dog": (OWN_SPLIT, ""),
    "train/cat train/dog test/cat test/dog val/cat val/dog": (OWN_SPLIT, "val"),
    "train/cat train/dog test/cat test/dog more": (OWN_SPLIT, "more"),
    "seg_train/seg_train/cat seg_train/seg_train/dog seg_test/seg_test/cat seg_test/seg_test/dog": (OWN_SPLIT, ""),
    "TRAINING/cat TRAINING/dog valid/cat valid/dog": (OWN_SPLIT, ""),
    "train_set/cat train_set/dog Test-Images/cat Test-Images/dog": (OWN_SPLIT, ""),
    "train/cat train/dog test/cat": ({"cat": (ALL[0], ALL[2]), "dog": (ALL[1], [])}, "dog"),
    "train/cat train/dog": (PETS, ""),
    "train/cat train/dog test": (PETS, "test"),  # pictures without labels
    "train/cat train/dog bird": (PETS, "bird"),
    "cat dog": (PETS, ""),
    "cat/young dog/old": (PETS, ""),
    "cat train": ({"cat": PETS["cat"], "train": PETS["dog"]}, "")}  # a class may be called so


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    """Classes, and the split of one's own, whatever it is called."""
    place, (expected, unused) = write_all(tmp_path / "top", layout.split()), LAYOUTS[layout]
    dataset = datasets.load(place)
    assert seen(dataset) == expected
    assert dataset.note.endswith((f": {unused}/", f"without a test image: {unused}")) if unused else dataset.note == ""


@pytest.mark.parametrize("layout, match", [
    ("train test", "one folder of training classes, and at most one of test classes: it has none"),
    ("test/cat test/dog val/cat val/dog", "it has test;"),
    ("train/cat train/dog val/cat val/dog valid/cat valid/dog", "it has train, val, valid;"),
    ("Train/cat Train/dog training/cat training/dog", "has Train, training"),
    ("train/a train/b test/a test/c", "test has classes that TOP/train lacks: c")])
def test_splits_that_are_refused(tmp_path, layout, match):
    """Without classes, without training images, with two folders of them, with classes that are tested alone."""
    assert match in sentence(datasets.load, write_all(tmp_path, layout.split())).replace(str(tmp_path), "TOP")


# --- what is a picture, and what is of no use -------------------------------------------------------------------------

PICTURES = {
    "an ending in capitals": lambda place: write(place / "new.JPG", 50),
    "a link": lambda place: (write(place.parents[1] / "else.png", 50),
                             (place / "new.png").symlink_to(place.parents[1] / "else.png")),
    "a folder below": lambda place: write(place / "more" / "and more" / "a.png", 50)}


@pytest.mark.parametrize("kind", PICTURES)
def test_what_is_a_picture(pets, kind):
    """In a class of others and as a class of its own."""
    (pets / "bird").mkdir()
    for place in (pets / "cat", pets / "bird"):
        PICTURES[kind](place)
    found = seen(datasets.load(pets))
    assert 50 in sum(found["cat"], []) and found["bird"] == ([50], []) and found["dog"] == PETS["dog"]


def test_a_class_may_be_a_link(pets):
    write(pets.parent / "else" / "a.png", 50)
    (pets / "bird").symlink_to(pets.parent / "else")
    assert seen(datasets.load(pets))["bird"] == ([50], [])


def text(name, content="text"):
    def make(place):
        place.joinpath(name).parent.mkdir(exist_ok=True)
        place.joinpath(name).write_text(content)
    return make


USELESS = {  # where, and what is made there -> its name in the note
    "hidden folder": (".", lambda place: write(place / ".thumbnails" / "a.png", 50), ".thumbnails/"),
    "tool's folder": ("cat", lambda place: write(place / "@eaDir" / "a.png", 50), "cat/@eaDir/"),
    "half of a Mac's file": ("cat", lambda place: write(place / "._0.png", 50), "cat/._0.png"),
    "link to nothing": ("cat", lambda place: (place / "9.png").symlink_to("/nowhere.png"), "cat/9.png"),
    "circle": ("cat", lambda place: (place / "9.png").symlink_to(place / "9.png"), "cat/9.png"),
    "text": ("cat", text("notes.txt"), "cat/notes.txt"),
    "text that is called a picture": ("cat", text("9.png"), "cat/9.png"),
    "pipe": ("cat", lambda place: os.mkfifo(place / "9.png"), "cat/9.png"),
    "back up": ("cat", lambda place: (place / "up").symlink_to(place / ".."), "cat/up/"),
    "picture beside classes": (".", lambda place: write(place / "map.png", 50), "map.png"),
    "text beside the classes of a split": ("train", text("README.md"), "train/README.md"),
    "empty class": (".", lambda place: (place / "bird").mkdir(), "bird/"),
    "class of texts": (".", text("bird/0.txt"), "bird/")}


@pytest.mark.parametrize("kind", USELESS)
def test_what_is_of_no_use_is_named_and_changes_nothing(tmp_path, kind):
    place, make, name = USELESS[kind]
    write_all(tmp_path, ["train/cat", "train/dog"] if place == "train" else ["cat", "dog"])
    make(tmp_path / place)
    dataset = datasets.load(tmp_path)
    assert seen(dataset) == PETS
    assert dataset.note.endswith(f" no picture that can be read: {name}")
    assert f"\nnote: {dataset.note}" in datasets.banner(dataset)


def test_folders_that_may_not_be_read(pets, monkeypatch):
    """A class, and the whole. (Root may read everything, so what the system answers is put in its place.)"""
    write(pets / "bird" / "a.png", 50)
    plain = os.scandir

    def scandir(path):
        if str(path).endswith("bird"):
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert datasets.load(pets).note.endswith(": bird/")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert sentence(datasets.load, pets) == f"{pets} cannot be read: Permission denied"


def test_of_many_files_some_are_named(pets):
    for k in range(8):
        (pets / "dog" / f"x{k}.png").write_bytes(b"")
    assert datasets.load(pets).note.endswith(": dog/x0.png, dog/x1.png, dog/x2.png, dog/x3.png, dog/x4.png and 3 more")


@pytest.mark.parametrize("make, match", [
    (lambda top: write(top / "only" / "a.png", 0), "has 1 class(es) of pictures, only: at least two"),
    (lambda top: write_all(top / "one too high", ["train/a", "train/b", "test/a"]), "sub-folders with pictures are needed, in"),
    (lambda top: [text(f"{name}/a.png")(top) for name in "ab"], "has no training image of the class a; not used"),
    (lambda top: (top / "a").mkdir(), "no data set in"), (lambda top: write(top / ".a" / "a.png", 0), "no data set in")])
def test_folders_that_are_no_data_set(tmp_path, make, match):
    make(tmp_path)
    assert match in sentence(datasets.load, tmp_path)


# --- what becomes of the pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [("auto", "pets"), ("pets",), ("folder", "pets")])
def test_every_fifth_picture_of_a_class_is_a_test_image(tmp_path, monkeypatch, call):
    """The fifth, the tenth ... in the order of names; of a class with fewer than five the last. The same every time."""
    monkeypatch.chdir(tmp_path)
    for k in range(12):
        write(tmp_path / "pets" / "cat" / f"{k:02}.png", k)
    for k in range(3):
        write(tmp_path / "pets" / "dog" / f"{k}.PNG", 100 + k, side=50)
    dataset = datasets.load(*call)
    assert (dataset.name, dataset.folder, dataset.note) == ("folder", str(tmp_path / "pets"), "")
    assert seen(dataset) == {"cat": ([0, 1, 2, 3, 5, 6, 7, 8, 10, 11], [4, 9]), "dog": ([100, 101], [102])}
    assert dataset.shape == (32, 32, 3) and dataset.train_images.dtype == dataset.test_labels.dtype == np.uint8
    assert (dataset.mean, dataset.std) == datasets.measured(dataset.train_images)
    labels = dataset.train_labels  # spread evenly: options take the first N, or hold out the last
    assert labels[:6].sum() == labels[6:].sum() == 1


# --- .npz files -------------------------------------------------------------------------------------------------------


def arrays(**changes):
    rng = np.random.default_rng(0)
    found = dict(x_train=rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), y_train=np.arange(6) % 3,
                 x_test=rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8), y_test=np.arange(3))
    return {name: value for name, value in (found | changes).items() if value is not None}


def save(path, **changes):
    np.savez(path, **arrays(**changes))
    return path


@pytest.mark.parametrize("call", [("auto", "own.npz"), ("own.npz",), ("npz", "own.npz")])
def test_arrays_are_read(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "own.npz")
    dataset, expected = datasets.load(*call), arrays()
    for found, name in zip(dataset[:4], ("x_train", "y_train", "x_test", "y_test")):
        assert np.array_equal(found, expected[name]) and found.dtype == np.uint8
    assert (dataset.name, dataset.folder) == ("npz", str(tmp_path / "own.npz"))
    assert dataset.classes == ("class 0", "class 1", "class 2")


def test_arrays_of_other_types(tmp_path):
    """Grey without a channel, floats from 0 to 1, labels (N, 1), names of classes with a gap, more than 256 of them."""
    x = arrays()
    dataset = datasets.load(str(save(tmp_path / "a.npz", x_train=(x["x_train"][..., 0] / 255), x_test=x["x_test"][..., 0] / 255,
                                     y_train=x["y_train"][:, None], classes=np.array([f"n{k}" for k in range(300)]))))
    assert dataset.shape == (8, 8, 1) and dataset.train_images.dtype == np.float32
    assert dataset.train_labels.dtype == np.uint16 and len(dataset.classes) == 300 and dataset.classes[299] == "n299"
    augmented = datasets.augment(dataset.train_images, np.random.default_rng(0), pad=1)
    assert augmented.dtype == np.float32 and augmented.shape == dataset.train_images.shape


@pytest.mark.parametrize("shape", [(3, 8, 3), (4, 4, 16)])
def test_shapes_that_are_not_taken_for_channels_first(tmp_path, shape):
    x = np.zeros((6, *shape), np.uint8)
    assert datasets.load(str(save(tmp_path / "own.npz", x_train=x, x_test=x[:3]))).shape == shape


X, Y = arrays()["x_train"], arrays()["y_train"]
NAMED = np.array(["a", "b", "c"])


@pytest.mark.parametrize("changes,match", [
    (dict(y_test=None), "lacks y_test: it has x_train, y_train, x_test, and needs"),
    (dict(x_train=np.array([None] * 6)), "no .npz file of plain arrays"),
    (dict(x_train=X.reshape(6, -1)), "x_train has shape (6, 192): expected images"),
    (dict(x_train=X[:0], y_train=Y[:0]), "expected images"),
    (dict(x_train=np.zeros((6, 3, 12, 12), np.uint8)), "looks like channels first"),
    (dict(x_train=np.zeros((6, 4, 12, 12), np.uint8)), "looks like channels first"),
    (dict(x_train=1e-3 * np.ones(X.shape)), "has values from 0.001 to 0.001"),
    (dict(x_train=X.astype(np.int64)), "is of type int64: expected uint8"),
    (dict(x_train=X.astype(float)), "has values from 0 to 255: floats have to be finite and from 0, black, to 1"),
    (dict(x_train=X / 255 - 0.5), "floats have to be finite"), (dict(x_train=X * np.nan), "floats have to be finite"),
    (dict(x_test=arrays()["x_test"][:, :4]), "x_train and x_test differ"),
    (dict(x_train=X / 255), "x_train and x_test differ"),
    (dict(y_train=Y[:5]), "expected 6 labels, one per image"), (dict(y_train=Y * 1.0), "integers"),
    (dict(y_train=Y - 1), "at least"), (dict(y_train=Y * 2, y_test=np.zeros(3, int)), "without a gap"),
    (dict(y_train=Y * 0), "y_train has 0 alone"), (dict(y_train=Y % 2), "y_test has 2, which y_train lacks"),
    (dict(classes=NAMED[:2]), "a string for each label up to 2"), (dict(classes=np.arange(3)), "a string"),
    (dict(classes=NAMED[[0, 1, 0]]), "all different")])
def test_wrong_arrays(tmp_path, changes, match):
    assert match in sentence(datasets.load, str(save(tmp_path / "own.npz", **changes)))
