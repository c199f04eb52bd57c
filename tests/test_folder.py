"""Images of one's own, in a folder with one sub-folder per class or in an .npz file: what is read, and every error sentence."""

import itertools
import os
import shutil

import numpy as np
import pytest
from helpers import sentence
from PIL import Image

from ep import datasets
from ep.datasets import folder

NAMES = {  # of the three kinds of splits, as people write them
    "train": ["train", "Train", "TRAIN", "training", "Training", "seg_train", "train_set", "training_data", "Train Images"],
    "test": ["test", "Test", "TEST", "testing", "Testing", "seg_test", "test_set", "testing_data", "Test Images"],
    "val": ["val", "Val", "VALID", "valid", "Validation", "seg_val", "val_set", "validation_data", "Val Images"]}


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
LAYOUTS = {  # folders of pictures -> (what they are read as, or None for a question; the folders that are not used)
    "train/cat train/dog test/cat test/dog": (OWN_SPLIT, ""),
    "train/cat train/dog val/cat val/dog": (OWN_SPLIT, ""),
    "train/cat train/dog test/cat test/dog val/cat val/dog": (OWN_SPLIT, "val"),
    "train/cat train/dog test/cat test/dog more": (OWN_SPLIT, "more"),
    "train/train/cat train/train/dog test/test/cat test/test/dog": (OWN_SPLIT, ""),
    "train/cat train/dog test/cat": ({"cat": (ALL[0], ALL[2]), "dog": (ALL[1], [])}, ""),
    "train/cat train/dog": (PETS, ""),
    "train/cat train/dog test": (PETS, "test"),  # pictures without labels
    "train/cat train/dog val": (PETS, "val"),
    "cat dog": (PETS, ""),
    "cat/young dog/old": (PETS, ""),
    "cat train": ({"cat": PETS["cat"], "train": PETS["dog"]}, ""),  # a class may be called so
    "cat test": ({"cat": PETS["cat"], "test": PETS["dog"]}, ""),
    "train/cat train/dog bird": (None, ""),
    "train/steam train/diesel plane": (None, ""),
    "test/cat test/dog val/cat val/dog": (None, ""),
    "test/cat test/dog": (None, ""),
    "train test": (None, ""),
    "cat/train cat/test dog/train dog/test": (None, "")}


@pytest.mark.parametrize("number", range(len(NAMES["train"])), ids=NAMES["train"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_times_names(tmp_path, layout, number):
    """Classes and the split of one's own, whatever the splits are called; where there are two readings, a question."""
    called = {kind: names[number] for kind, names in NAMES.items()}
    paths = ["/".join(called.get(part, part) for part in path.split("/")) for path in layout.split()]
    place, (expected, unused) = write_all(tmp_path / "top", paths), LAYOUTS[layout]
    if expected is None:
        message = sentence(datasets.load, place)
        assert all(word in message for word in ("two ways", folder.CLASSES, folder.SPLITS, paths[0].split("/")[0]))
        return
    dataset = datasets.load(place)
    assert seen(dataset) == {called.get(name, name): greys for name, greys in expected.items()}
    told = [f"tested on the pictures in {called['val']}"] * ("val" in layout and "test" not in layout and expected == OWN_SPLIT)
    told += [f"not used: {called.get(unused, unused)}/ (beside the t"] * bool(unused)
    assert bool(dataset.note) == bool(told) and all(words in dataset.note for words in told)


def test_a_question_is_answered_by_the_name_of_the_data_set(tmp_path):
    """The name is kept in the data set, so that a run that is resumed reads the same."""
    place = write_all(tmp_path, ["train/steam", "train/diesel", "plane"])
    of_classes, of_splits = (datasets.load(name, place) for name in (folder.CLASSES, folder.SPLITS))
    assert (of_classes.classes, of_classes.name) == (("plane", "train"), "folder-of-classes")
    assert (of_splits.classes, of_splits.name) == (("diesel", "steam"), "folder-of-splits") and "plane/" in of_splits.note
    assert "--data" in sentence(datasets.load, folder.CLASSES)
    shutil.rmtree(tmp_path / "train")
    assert "one folder of training classes, and has none" in sentence(datasets.load, folder.SPLITS, place)
    assert "has Train, training" in sentence(datasets.load, write_all(tmp_path / "twice", [
        "Train/cat", "Train/dog", "training/cat", "training/dog"]))


def test_classes_that_are_tested_but_not_trained(tmp_path):
    message = sentence(datasets.load, write_all(tmp_path, ["train/a", "train/b", "test/a", "test/c"]))
    assert message == f"{tmp_path / 'test'} has classes that {tmp_path / 'train'} lacks: c"


# --- what is a picture, and what is of no use -------------------------------------------------------------------------

PICTURES = {
    **{f"ending {ending or 'none'}": lambda place, ending=ending: write(place / f"new{ending}", 50)
       for ending in (".JPG", ".jfif", ".jpe", ".heic", ".data", "")},
    "a link": lambda place: (write(place.parents[1] / "else.png", 50),
                             (place / "new.png").symlink_to(place.parents[1] / "else.png")),
    "a linked folder": lambda place: (write(place.parents[1] / "else" / "a.png", 50),
                                      (place / "more").symlink_to(place.parents[1] / "else")),
    "a folder below": lambda place: write(place / "more" / "and more" / "a.png", 50)}


@pytest.mark.parametrize("kind", PICTURES)
def test_what_is_a_picture(pets, kind):
    """By its ending or by what is in it, in a class of others and as a class of its own; links are followed."""
    (pets / "bird").mkdir()
    for place in (pets / "cat", pets / "bird"):
        PICTURES[kind](place)
    found = seen(datasets.load(pets))
    assert 50 in sum(found["cat"], []) and found["bird"] == ([50], []) and found["dog"] == PETS["dog"]


def picture_in(*names):
    return lambda place: write(place.joinpath(*names, "a.png"), 50)


def text(name, content="text"):
    def make(place):
        place.joinpath(name).parent.mkdir(exist_ok=True)
        place.joinpath(name).write_text(content)
    return make


USELESS = {  # what is made in a folder -> (its name in the note, why)
    **{name: (picture_in(name), f"{name}/", "hidden or a tool's") for name in (
        ".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX", "System Volume Information", "lost+found")},
    "hidden": (text(".DS_Store"), ".DS_Store", "hidden or a tool's"),
    "half of a Mac's file": (lambda place: write(place / "._0.png", 50), "._0.png", "hidden or a tool's"),
    "dangling folder": (lambda place: (place / "bird").symlink_to("/nowhere"), "bird", "a link to nothing"),
    "dangling picture": (lambda place: (place / "9.png").symlink_to("/nowhere.png"), "9.png", "a link to nothing"),
    "circle": (lambda place: (place / "9.png").symlink_to(place / "9.png"), "9.png", "Too many levels of symbolic links")}
IN_A_CLASS = {
    "text": (text("notes.txt"), "notes.txt", "no picture that Pillow can read"),
    "text that is called a picture": (text("9.png"), "9.png", "no picture that Pillow can read"),
    "pipe": (lambda place: os.mkfifo(place / "9.png"), "9.png", "no picture that Pillow can read"),
    **{f"back to {up}": (lambda place, up=up: (place / "up").symlink_to(place / up), "up/", "read already, or a folder above")
       for up in (".", "..", "../..")}}
BESIDE_CLASSES = {
    "text": (text("README.md"), "README.md", "beside the folders"),
    "picture": (lambda place: write(place / "map.png", 50), "map.png", "beside the folders"),
    "empty class": (lambda place: (place / "bird").mkdir(), "bird/", "no picture in it"),
    "class of texts": (text("bird/0.txt"), "bird/", "no picture in it")}


@pytest.mark.parametrize("place, kind", [*itertools.product(["cat"], USELESS | IN_A_CLASS),
                                         *itertools.product([".", "train"], USELESS | BESIDE_CLASSES)])
def test_what_is_of_no_use_is_named_and_changes_nothing(tmp_path, place, kind):
    """In a class, beside classes, and beside the classes of a split."""
    make, name, why = (USELESS | (IN_A_CLASS if place == "cat" else BESIDE_CLASSES))[kind]
    write_all(tmp_path, ["train/cat", "train/dog"] if place == "train" else ["cat", "dog"])
    make(tmp_path / place)
    dataset = datasets.load(tmp_path)
    assert seen(dataset) == PETS
    path = os.path.normpath(os.path.join(place, name)) + "/" * name.endswith("/")
    assert f"{path} ({why})" in dataset.note and f"\nnote: {dataset.note}" in datasets.banner(dataset)


def test_pictures_that_may_not_be_read(pets, monkeypatch):
    """(Root may read everything, so what the system answers is put in its place.)"""
    write_all(pets, ["bird"])
    for path in (pets / "bird").iterdir():
        path.write_text("")
    monkeypatch.setattr(os, "access", lambda path, mode: "bird" not in str(path))
    message = sentence(datasets.load, pets)
    assert message.startswith(f"{pets} has no training image of the class bird; not used: bird/0.png")
    assert message.endswith("(Permission denied)")


def test_folders_that_may_not_be_read(pets, monkeypatch):
    """A class, and the whole."""
    (pets / "bird").mkdir()
    plain = type(pets).iterdir

    def iterdir(path):
        if path.name == "bird":
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr(type(pets), "iterdir", iterdir)
    assert datasets.load(pets).note == "not used: bird/ (Permission denied)"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert sentence(datasets.load, pets) == f"{pets} cannot be read: Permission denied"


def test_of_many_files_some_are_named(pets):
    for k in range(8):
        (pets / "dog" / f"x{k}.png").write_bytes(b"")
    assert datasets.load(pets).note == ("not used: dog/x0.png, dog/x1.png, dog/x2.png, dog/x3.png, dog/x4.png and 3 more "
                                        "(no picture that Pillow can read)")


@pytest.mark.parametrize("make, match", [
    (lambda top: write(top / "only" / "a.png", 0), "has 1 class(es) of pictures, only: at least two"),
    (lambda top: write_all(top / "one too high", ["train/a", "train/b", "test/a"]), "sub-folders with pictures are needed, in"),
    (lambda top: [text(f"{name}/a.png")(top) for name in "ab"], "has no training image of the class a; not used: a/a.png, b/a"),
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
    assert folder.load(tmp_path / "pets", side=16).shape == (16, 16, 3)


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


@pytest.mark.parametrize("shape", [(8, 8, 3), (4, 4, 16), (2, 2, 8), (8, 5, 5), (4, 3, 7)])
def test_shapes_that_are_not_taken_for_channels_first(tmp_path, shape):
    x = np.zeros((6, *shape), np.uint8)
    assert datasets.load(str(save(tmp_path / "own.npz", x_train=x, x_test=x[:3]))).shape == shape


X, Y = arrays()["x_train"], arrays()["y_train"]
NAMED = np.array(["a", "b", "c"])


@pytest.mark.parametrize("changes,match", [
    (dict(y_test=None), "lacks y_test: it has x_train, y_train, x_test, and needs"),
    (dict(x_train=np.array([None] * 6)), "pickled Python objects"),
    (dict(x_train=X.reshape(6, -1)), "x_train has shape (6, 192): expected images"),
    (dict(x_train=X[:0], y_train=Y[:0]), "expected images"),
    *((dict(x_train=np.zeros((6, channels, 12, 12), np.uint8)), "looks like channels first") for channels in (1, 2, 3, 4)),
    (dict(x_train=X.astype(np.int64)), "is of type int64: expected uint8"),
    (dict(x_train=X.astype(float)), "has values from 0 to 255: floats have to be finite and from 0 to 1"),
    (dict(x_train=X / 255 - 0.5), "floats have to be finite"), (dict(x_train=X * np.nan), "floats have to be finite"),
    (dict(x_test=arrays()["x_test"][:, :4]), "x_train and x_test differ"),
    (dict(x_train=X / 255), "x_train and x_test differ"),
    (dict(y_train=Y[:5]), "expected 6 labels, one per image"), (dict(y_train=Y * 1.0), "integers"),
    (dict(y_train=Y - 1), "at least"), (dict(y_train=Y * 2), "without a gap"), (dict(y_train=Y * 0), "at least two"),
    (dict(y_test=np.array([0, 1, 3])), "without a gap"),
    (dict(classes=NAMED[:2]), "one string for each label from 0 to 2"), (dict(classes=np.arange(3)), "one string"),
    (dict(classes=NAMED, y_train=Y * 0, y_test=np.zeros(3, int)), "at least two classes"),
    (dict(classes=NAMED, y_train=Y % 2), "y_test has 2, which y_train lacks"),
    (dict(classes=NAMED[[0, 1, 0]]), "a name twice among a, b, a")])
def test_wrong_arrays(tmp_path, changes, match):
    assert match in sentence(datasets.load, str(save(tmp_path / "own.npz", **changes)))
