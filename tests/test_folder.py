"""Images of one's own, in a folder with one sub-folder per class or in an .npz file: what is read, and every error sentence."""

import numpy as np
import pytest
from PIL import Image

from ep import datasets
from ep.datasets import folder
from ep.errors import EPError


def sentence(call, *arguments):
    with pytest.raises(EPError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(place, grey, side=32):
    """A picture of one grey, by which it is recognised."""
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (grey, grey, grey)).save(place)


def greys(images):
    return sorted(images[:, 0, 0, 0].tolist())


@pytest.fixture
def pets(tmp_path):
    """Twelve cats (greys 0 to 11) and three dogs (100 to 102)."""
    for k in range(12):
        write(tmp_path / "pets" / "cat" / f"{k:02}.png", k)
    for k in range(3):
        write(tmp_path / "pets" / "dog" / f"{k}.PNG", 100 + k, side=50)
    return tmp_path / "pets"


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [lambda path: datasets.load("auto", path), lambda path: datasets.load(str(path)),
                                  lambda path: datasets.load("folder", path)])
def test_every_fifth_picture_of_a_class_is_a_test_image(pets, call):
    """The fifth, the tenth ... in the order of names; of a class with fewer than five the last. The same every time."""
    dataset = call(pets)
    assert (dataset.classes, dataset.name, dataset.folder, dataset.note) == (("cat", "dog"), "folder", str(pets), "")
    assert greys(dataset.test_images) == [4, 9, 102] and greys(dataset.train_images) == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 100, 101]
    assert np.array_equal(dataset.train_labels, dataset.train_images[:, 0, 0, 0] >= 100)
    assert dataset.shape == (32, 32, 3) and dataset.train_images.dtype == dataset.test_labels.dtype == np.uint8
    assert "pets" in dataset.source and str(pets) in datasets.banner(dataset)
    v = dataset.train_images / 255
    assert dataset.mean == pytest.approx(tuple(v.mean((0, 1, 2))), abs=1e-4)


def test_classes_are_spread_evenly(pets):
    """The first half and the second half of the images have as many dogs: options take the first N, or hold out the last."""
    labels = datasets.load(str(pets)).train_labels
    assert labels[:6].sum() == labels[6:].sum() == 1


def test_ones_own_split(tmp_path):
    """train/ and test/ with the classes in them; a class may lack test images, but not training images."""
    for split, classes in (("train", "ab"), ("test", "a")):
        for k, name in enumerate(classes):
            for n in range(6):
                write(tmp_path / split / name / f"{n}.png", 10 * k + n)
    dataset = datasets.load(str(tmp_path))
    assert len(dataset.train_labels) == 12 and list(dataset.test_labels) == [0] * 6 and dataset.classes == ("a", "b")
    write(tmp_path / "test" / "c" / "0.png", 0)
    assert "classes that" in sentence(datasets.load, str(tmp_path)) and "lacks: c" in sentence(datasets.load, str(tmp_path))


def test_train_alone_is_split_by_the_rule(tmp_path):
    for name in "ab":
        for n in range(5):
            write(tmp_path / "train" / name / f"{n}.png", n)
    dataset = datasets.load(str(tmp_path))
    assert dataset.classes == ("a", "b") and greys(dataset.test_images) == [4, 4]


def test_a_class_may_be_called_train(tmp_path):
    for name in ("plane", "train"):
        for n in range(2):
            write(tmp_path / name / f"{n}.png", n)
    assert datasets.load(str(tmp_path)).classes == ("plane", "train")


def test_unreadable_files_are_named_and_left_out(pets):
    """Text, an empty file and a broken picture: the note names them, hidden files are nobody's; the split stays what it was."""
    before = datasets.load(str(pets))
    (pets / "cat" / "notes.txt").write_text("text")
    (pets / "cat" / ".DS_Store").write_text("text")
    dataset = datasets.load(str(pets))
    assert np.array_equal(dataset.train_images, before.train_images) and np.array_equal(dataset.test_images, before.test_images)
    assert dataset.note == "1 file(s) left out, since Pillow cannot read them as pictures: cat/notes.txt"
    for k in range(3, 10):
        (pets / "dog" / f"{k}.png").write_bytes(b"")
    note = datasets.load(str(pets)).note
    assert note.startswith("8 file(s) left out") and "dog/3.png" in note and note.endswith("and 3 more")
    assert "note: 8 file(s)" in datasets.banner(datasets.load(str(pets)))


def test_pictures_in_folders_below(pets):
    """A class may have folders of its own."""
    write(pets / "dog" / "puppies" / "a.png", 200)
    assert 200 in greys(np.concatenate([datasets.load(str(pets)).train_images, datasets.load(str(pets)).test_images]))


def test_other_sizes(pets):
    assert folder.load(pets, side=16).shape == (16, 16, 3)


def test_folders_that_are_no_data_set(tmp_path, pets):
    write(tmp_path / "one" / "only" / "a.png", 0)
    assert "has 1 class(es) of pictures: at least two" in sentence(datasets.load, str(tmp_path / "one"))
    for file in (pets / "dog").iterdir():
        file.write_bytes(b"")
    message = sentence(datasets.load, str(pets))
    assert "has no training image of the class dog, since Pillow cannot read them" in message and "dog/0.PNG" in message
    (tmp_path / "empty" / "a").mkdir(parents=True)
    assert "no data set in" in sentence(datasets.load, str(tmp_path / "empty"))


# --- .npz files -------------------------------------------------------------------------------------------------------


def arrays(**changes):
    rng = np.random.default_rng(0)
    found = dict(x_train=rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), y_train=np.arange(6) % 3,
                 x_test=rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8), y_test=np.arange(3))
    return {name: value for name, value in (found | changes).items() if value is not None}


def save(path, **changes):
    np.savez(path, **arrays(**changes))
    return path


@pytest.mark.parametrize("call", [lambda path: datasets.load("auto", path), lambda path: datasets.load(str(path)),
                                  lambda path: datasets.load("npz", path)])
def test_arrays_are_read(tmp_path, call):
    dataset, expected = call(save(tmp_path / "own.npz")), arrays()
    for found, name in zip(dataset[:4], ("x_train", "y_train", "x_test", "y_test")):
        assert np.array_equal(found, expected[name]) and found.dtype == np.uint8
    assert (dataset.name, dataset.folder) == ("npz", str(tmp_path / "own.npz"))
    assert dataset.classes == ("class 0", "class 1", "class 2")


def test_arrays_of_other_types(tmp_path):
    """Grey without a channel, floats from 0 to 1, labels (N, 1), names of classes with a gap, more than 256 of them."""
    x = arrays()
    dataset = datasets.load(str(save(tmp_path / "a.npz", x_train=(x["x_train"][..., 0] / 255), x_test=x["x_test"][..., 0] / 255,
                                     y_train=x["y_train"][:, None], classes=np.array([f"n{k}" for k in range(300)]))))
    assert dataset.shape == (8, 8, 1) and dataset.train_images.dtype == np.float32 and len(dataset.classes) == 300
    assert dataset.train_labels.dtype == np.uint16 and dataset.classes[299] == "n299"
    assert np.allclose(dataset.normalise(dataset.train_images).mean(), 0, atol=1e-3)
    augmented = datasets.augment(dataset.train_images, np.random.default_rng(0), pad=1)
    assert augmented.dtype == np.float32 and augmented.shape == dataset.train_images.shape


X, Y = arrays()["x_train"], arrays()["y_train"]
OBJECTS = np.array([None] * 6)


@pytest.mark.parametrize("changes,match", [
    (dict(y_test=None), "lacks y_test: it has x_train, y_train, x_test, and needs"),
    (dict(x_train=OBJECTS), "pickled Python objects"),
    (dict(x_train=X.reshape(6, -1)), r"x_train has shape \(6, 192\): expected images"),
    (dict(x_train=X[:0], y_train=Y[:0]), "expected images"),
    (dict(x_train=np.moveaxis(X, -1, 1)), "looks like channels first"),
    (dict(x_train=X.astype(np.int64)), "is of type int64: expected uint8"),
    (dict(x_train=X.astype(float)), "has values from 0 to 255: floats have to be finite and from 0 to 1"),
    (dict(x_train=X / 255 - 0.5), "floats have to be finite"), (dict(x_train=X * np.nan), "floats have to be finite"),
    (dict(x_test=arrays()["x_test"][:, :4]), "x_train and x_test differ"),
    (dict(x_train=X / 255), "x_train and x_test differ"),
    (dict(y_train=Y[:5]), "expected 6 labels, one per image"), (dict(y_train=Y * 1.0), "integers"),
    (dict(y_train=Y - 1), "at least"), (dict(y_train=Y * 2), "without a gap"), (dict(y_train=Y * 0), "at least two"),
    (dict(y_test=np.array([0, 1, 3])), "without a gap"),
    (dict(classes=np.array(["a", "b"])), "one string for each label from 0 to 2"), (dict(classes=np.arange(3)), "one string")])
def test_wrong_arrays(tmp_path, changes, match):
    with pytest.raises(EPError, match=match) as error:
        datasets.load(str(save(tmp_path / "own.npz", **changes)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut short"])
def test_damaged_npz(tmp_path, content):
    (tmp_path / "own.npz").write_bytes(content)
    assert "own.npz" in sentence(datasets.load, str(tmp_path / "own.npz"))
    assert "no such folder or file" in sentence(datasets.load, str(tmp_path / "other.npz"))
