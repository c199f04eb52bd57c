"""From images of one's own to a trained network and a prediction: the main job and predict.py on folders and arrays."""

import json

import numpy as np
import pytest
from helpers import refused
from PIL import Image

import ep
from ep.datasets.synthetic import CLASSES, synthetic_images
from ep.train import commandline as cli

FEW = "--channels 4 4 --scale 1 2 --lr 0.01 --batch-size 8 --epochs 1 --threads 1 --device cpu".split()


@pytest.fixture
def run(example):
    """run(example, *options) -> stdout"""
    def run(name, *options):
        code, out, err = example(name, *options)
        assert code == 0, err
        return out

    return run


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
def test_a_folder_of_pictures(run, example, tmp_path, classes):
    """Trained, and predict.py names the folder's classes; examples refuse images of other classes."""
    folder, n = write_folder(tmp_path / "shapes", classes), 8 * classes
    out = run("cifar10_sym_ep", *FEW, "--data", folder, "--out", tmp_path / "run")
    assert f"data: pictures in the folder shapes, {n} training and {2 * classes} test images, from {folder}" in out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["dataset"], config["data"], config["classes"], config["train_images"]) == ("folder", str(folder), classes, n)
    about = ep.load(tmp_path / "run" / "network.npz").about
    assert about["classes"] == sorted(path.name for path in folder.iterdir()) and about["image_shape"] == [32, 32, 3]
    assert (about["steps_free"], about["schedule"]) == (config["steps_free"], config["schedule"])
    options = ("--model", tmp_path / "run" / "network.npz", "--out", tmp_path / "predict.png")
    out = run("predict", next((folder / "disc").iterdir()), *options)
    assert any(f"{name} " in out for name in about["classes"]) and "airplane" not in out
    assert out.splitlines()[0].count("%") == min(classes, 3)
    assert run("predict", "--data", folder, *options, "--count", 2).count("a test image of class ") == 2
    other = write_folder(tmp_path / "other", 3)
    for name in ("predict", "03_relax_and_nudge", "10_settling"):
        assert "has other classes or another shape" in refused(example(name, *options, "--data", other))


def test_resuming_finds_the_images_again(run, example, tmp_path, monkeypatch):
    """By the absolute path in the configuration, from another working directory too; or by --data where they were moved."""
    folder, resume = write_folder(tmp_path / "shapes", 3), ("cifar10_sym_ep", "--resume", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    run("cifar10_sym_ep", *FEW, "--dataset", "shapes", "--out", tmp_path / "run")  # a relative path
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run(*resume)
    folder.rename(tmp_path / "moved")
    assert f"no data set in {folder}: there is no such folder" in refused(example(*resume))
    run(*resume, "--data", tmp_path / "moved")


def test_home_is_expanded(tmp_path, monkeypatch):
    """Quoted, so that no shell has done it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.path("~/a.png") == tmp_path / "a.png"


@pytest.mark.parametrize("shape,floats", [((28, 28, 1), False), ((12, 16, 2), True)])
def test_arrays(run, tmp_path, shape, floats):
    """Other shapes and channels, bytes and floats, and two channels, which no picture has: the paddings follow."""
    rng, own, network = np.random.default_rng(0), tmp_path / "own.npz", tmp_path / "run" / "network.npz"
    x = rng.random((30, *shape)) if floats else rng.integers(0, 256, (30, *shape), dtype=np.uint8)
    y = np.arange(30) % 3
    np.savez(own, x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:], classes=np.array(["a", "b", "c"]))
    run("cifar10_sym_ep", *FEW, "--flip", "--pad", 2, "--data", own, "--out", tmp_path / "run")
    assert ep.load(network).shapes[0] == shape
    out = run("predict", "--data", own, "--model", network, "--out", tmp_path / "predict.png")
    assert "a test image of class a: " in out
