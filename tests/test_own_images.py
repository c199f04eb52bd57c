"""From images of one's own to a trained network and a prediction: the main job and predict.py on folders and arrays."""

import importlib
import json
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ep
from ep.datasets.synthetic import CLASSES, synthetic_images
from ep.train import commandline as cli, runs

EXAMPLES = Path(__file__).parents[1] / "examples"
FEW = "--channels 4 4 --scale 2 --lr 0.01 --batch-size 8 --epochs 1 --threads 1 --device cpu".split()


@pytest.fixture
def start(monkeypatch, capsys):
    """start(example, *options) -> stdout, in this process; with refused=True its one sentence. Signal handlers are put back."""
    monkeypatch.setattr(runs, "plot_curves", lambda *arguments: None)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def start(example, *options, refused=False):
        monkeypatch.setattr(sys, "argv", [f"{example}.py", *map(str, options)])
        code = 0
        try:
            cli.run(importlib.import_module(example).main)
        except SystemExit as stop:
            code = stop.code
        for number, handler in handlers.items():
            signal.signal(number, handler)
        out, err = capsys.readouterr()
        assert code == (2 if refused else 0) and (not refused or err.startswith("error: ") and err.count("\n") == 1), err
        return err if refused else out

    return start


def write_folder(place, classes, each=10):
    """A folder with pictures of the first so many embedded classes; returns it."""
    images, labels, *_ = synthetic_images(each * 10, 1)
    for k, (image, label) in enumerate(zip(images, labels)):
        if label < classes:
            folder = place / CLASSES[label].replace(" ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{k:03}.png")
    return place


@pytest.mark.parametrize("classes", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_folder_of_pictures(start, tmp_path, classes):
    """Trained, and predict.py names the folder's classes; examples refuse images of other classes."""
    folder, n = write_folder(tmp_path / "shapes", classes), 8 * classes
    out = start("cifar10_sym_ep", *FEW, "--data", folder, "--out", tmp_path / "run")
    assert f"data: pictures in the folder shapes, {n} training and {2 * classes} test images, from {folder}" in out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["dataset"], config["data"], config["classes"], config["train_images"]) == ("folder", str(folder), classes, n)
    about = ep.load(tmp_path / "run" / "network.npz").about
    assert about["classes"] == sorted(path.name for path in folder.iterdir()) and about["image_shape"] == [32, 32, 3]
    assert (about["steps_free"], about["schedule"]) == (config["steps_free"], config["schedule"])
    options = ("--model", tmp_path / "run" / "network.npz", "--out", tmp_path / "predict.png")
    out = start("predict", next((folder / "disc").iterdir()), *options)
    assert any(f"{name} " in out for name in about["classes"]) and "airplane" not in out
    assert out.splitlines()[0].count("%") == min(classes, 3)
    assert start("predict", "--data", folder, *options, "--count", 2).count("a test image of class ") == 2
    other = write_folder(tmp_path / "other", 3)
    for example in ("predict", "03_relax_and_nudge", "10_settling"):
        assert "has other classes or another shape" in start(example, *options, "--data", other, refused=True)


def test_a_layout_that_is_a_question(start, tmp_path):
    """The answer is an option, and a run that is resumed, or looked at, keeps it; the first lines say what is read."""
    write_folder(tmp_path / "shapes" / "train", 2)
    write_folder(tmp_path / "shapes" / "more", 1)
    question = ("cifar10_sym_ep", *FEW, "--data", tmp_path / "shapes", "--out", tmp_path / "run")
    assert "--dataset folder-of-classes or --dataset folder-of-splits" in start(*question, refused=True)
    assert not (tmp_path / "run").exists()
    banner = "classes (training + test): disc, ring, each 8 + 2\nnote: not used: more/ (beside the training images)\n"
    assert banner in start(*question, "--dataset", "folder-of-splits")
    assert banner in start("cifar10_sym_ep", "--resume", tmp_path / "run", "--epochs", 2)
    look = ("predict", "--model", tmp_path / "run" / "network.npz", "--out", tmp_path / "predict.png")
    assert "where they are with --data" in start(*look, refused=True)
    assert "a test image of class disc" in start(*look, "--data", tmp_path / "shapes")


def test_resuming_finds_the_images_again(start, tmp_path, monkeypatch):
    """By the absolute path in the configuration, from another working directory too; or by --data where they were moved."""
    folder, resume = write_folder(tmp_path / "shapes", 3), ("cifar10_sym_ep", "--resume", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    start("cifar10_sym_ep", *FEW, "--dataset", "shapes", "--out", tmp_path / "run")  # a relative path
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    start(*resume)
    folder.rename(tmp_path / "moved")
    assert f"no data set in {folder}: there is no such folder" in start(*resume, refused=True)
    start(*resume, "--data", tmp_path / "moved")
    next((tmp_path / "moved" / "disc").iterdir()).unlink()
    assert "these are not the images" in start(*resume, "--data", tmp_path / "moved", refused=True)


def test_home_is_expanded_in_every_path_option(start, tmp_path, monkeypatch):
    """~ in --data, --dataset, --out, --resume, --model and for pictures, quoted, so that no shell has done it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "shapes", 2)
    for option in ("--data", "--dataset"):
        start("cifar10_sym_ep", *FEW, option, "~/shapes", f"--out=~/run{option}")
        assert (tmp_path / f"run{option}" / "network.npz").exists()
    start("cifar10_sym_ep", "--resume", "~/run--data")
    picture = next((tmp_path / "shapes" / "disc").iterdir())
    out = start("predict", f"~/shapes/disc/{picture.name}", "--model", "~/run--data/network.npz", "--out", "~/predict.png")
    assert str(picture) in out and (tmp_path / "predict.png").exists()


def test_every_path_option_of_the_examples_has_the_type_that_expands():
    """No option of a path is a bare string or a bare Path."""
    names = ("--data", "--out", "--run", "--runs", "--model", "--resume")
    added = [f'{add}("{name}"' for name in names for add in ("add", "argument")]
    for path in EXAMPLES.glob("*.py"):
        for line in path.read_text().splitlines():
            assert re.search("type=cli.(path|figure)", line) or not any(words in line for words in added), f"{path.name}: {line}"


@pytest.mark.parametrize("shape,floats", [((28, 28, 1), False), pytest.param((16, 20, 3), True, marks=pytest.mark.slow),
                                          ((12, 12, 2), True)])
def test_arrays(start, tmp_path, shape, floats):
    """Other shapes and channels, bytes and floats, and two channels, which no picture has: the paddings follow."""
    rng, own, run = np.random.default_rng(0), tmp_path / "own.npz", tmp_path / "run"
    x = rng.random((30, *shape)) if floats else rng.integers(0, 256, (30, *shape), dtype=np.uint8)
    y = np.arange(30) % 3
    np.savez(own, x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:], classes=np.array(["a", "b", "c"]))
    four = "--channels 4 4 4 4 --scale 2 --lr 0.01".split() if min(shape[:2]) >= 16 else []
    start("cifar10_sym_ep", *FEW, *four, "--flip", "--pad", 2, "--data", own, "--out", run)
    assert json.loads((run / "config.json").read_text())["flip"] is True
    network = ep.load(run / "network.npz")
    assert network.shapes[0] == shape and network.about["classes"] == ["a", "b", "c"]
    out = start("predict", "--data", own, "--model", run / "network.npz", "--out", tmp_path / "predict.png")
    assert "a test image of class a: " in out


def test_what_is_wrong_with_a_folder_is_one_sentence(start, tmp_path):
    """Nothing is trained on other images instead, and nothing is written."""
    (tmp_path / "empty").mkdir()
    for options in (("--data", tmp_path / "empty"), ("--dataset", tmp_path / "empty"), ("--data", tmp_path / "missing"),
                    ("--preset", "paper", "--data", write_folder(tmp_path / "shapes", 2))):
        message = start("cifar10_sym_ep", *FEW, *options, "--out", tmp_path / "run", refused=True)
    assert "refuses pictures in the folder shapes" in message and not (tmp_path / "run").exists()
