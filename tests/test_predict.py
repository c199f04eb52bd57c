"""predict.py: names of classes, normalisation and steps come from the network's file, whatever it was trained on."""

import functools
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import ep
from ep import datasets
from ep.datasets import pictures, synthetic

EXAMPLES = Path(__file__).parents[1] / "examples"
synthetic_images = functools.cache(synthetic.synthetic_images)


@pytest.fixture
def predict(monkeypatch, capsys, tmp_path):
    """predict(*options) -> (exit code, stdout, stderr) of the example in this process; predict.SHIPPED."""
    monkeypatch.syspath_prepend(str(EXAMPLES))  # it shares a module with other examples
    monkeypatch.setattr(synthetic, "synthetic_images", synthetic_images)  # drawn once for all tests
    spec = importlib.util.spec_from_file_location("predict", EXAMPLES / "predict.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def predict(*options):
        monkeypatch.setattr(sys, "argv", ["predict.py", "--out", str(tmp_path / "predict.png"), *map(str, options)])
        code = 0
        try:
            module.cli.run(module.main)
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    predict.SHIPPED = module.SHIPPED
    return predict


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(synthetic_images(1, 1)[0][0]).save(tmp_path / "a picture.png")
    return tmp_path / "a picture.png"


def saved(path, network, **about):
    network.about = about or None
    network.save(path)
    return path


def expected(network, x, classes, phase):
    """The likeliest class and its probability, after one relaxation of as many steps."""
    states = ep.relax(network, x, phase).states
    k, o = int(network.predict(states)[0]), network.cost.output(states[-1]).max()
    return f"{classes[k]} {o:.0%}"


@pytest.mark.parametrize("classes,shape", [(2, (32, 32, 3)), (20, (32, 32, 3)), (10, (28, 28, 1)), (3, (16, 24, 3))])
def test_any_number_of_classes_and_any_shape(predict, picture, tmp_path, classes, shape):
    """Names, mean, std, steps and schedule are those in the file; the answer is that of one relaxation."""
    network = ep.convnet([4, 4], shape, classes, scale=3.0, seed=1)
    about = dict(classes=[f"kind {k}" for k in range(classes)], mean=[0.3] * shape[2], std=[0.5] * shape[2],
                 image_shape=list(shape), steps_free=9, schedule="synchronous", dataset="folder",
                 source="pictures in the folder pets")
    path = saved(tmp_path / "network.npz", network, **about)
    code, out, err = predict(picture, "--model", path)
    x = ((pictures.read(picture, shape) / 255 - 0.3) / 0.5).astype(np.float32)[None]
    assert code == 0, err
    assert f"{picture}: {expected(network, x, about['classes'], 9)}" in out and out.count("kind") == min(classes, 3)
    assert "assum" not in out and (tmp_path / "predict.png").read_bytes().startswith(b"\x89PNG")
    last, saved_where = out.splitlines()[-2:]
    assert last.startswith("feedback gain 1: from step 9 to ") and "of 1 answers change" in last and "written" in saved_where
    code, _, err = predict("--model", path)
    assert code == 2 and "trained on pictures in the folder pets: name pictures, or where they are with --data" in err


def test_how_far_the_answer_is_from_the_fixed_point(predict, picture, tmp_path):
    """A network without feedback is at its fixed point after one sweep; with strong feedback, one sweep is far from it."""
    network, about = ep.convnet([4, 4], scale=3.0, seed=1), datasets.load("synthetic").about() | dict(steps_free=1, schedule="up")
    lines = {}
    for network.feedback in (0.0, 1.0):
        code, out, err = predict(picture, "--model", saved(tmp_path / "network.npz", network, **about))
        assert code == 0, err
        lines[network.feedback] = out.splitlines()[-2]
    assert lines[0.0] == ("feedback gain 0: from step 1 to the fixed point 0 of 1 answers change, and no probability by more "
                          "than 0.0%")
    assert lines[1.0].startswith("feedback gain 1: ") and float(lines[1.0].split()[-1][:-1]) > 0.1, lines


def test_a_flat_network(predict, picture, tmp_path):
    """An mlp of the embedded images calls a ring a ring; an image is flattened for it."""
    network = ep.mlp([3072, 30, 10], seed=1)
    path = saved(tmp_path / "network.npz", network, **datasets.load("synthetic").about())
    code, out, _ = predict("--model", path, "--count", 2)
    assert code == 0 and out.count("a test image of class ") == 2 and "airplane" not in out
    assert datasets.load("synthetic").classes[datasets.load("synthetic").test_labels[0]] in out.splitlines()[0]
    assert predict(picture, "--model", path)[0] == 0


def test_older_files_say_nothing(predict, picture, tmp_path):
    """Taken for CIFAR-10 only where they fit, and then it is said; the shipped network is CIFAR-10's."""
    network = ep.convnet([4, 4, 4, 4], scale=3.0, seed=1)
    code, out, err = predict(picture, "--model", saved(tmp_path / "old.npz", network))
    x = datasets.normalise(pictures.read(picture)[None])
    assert code == 0, err
    assert "old.npz does not say what it was trained on: assuming CIFAR-10, since it has 10 classes" in out
    assert expected(network, x, datasets.CLASSES, ep.Phase(8, "checkerboard")) in out
    for other in (ep.convnet([4, 4], (32, 32, 3), 2), ep.convnet([4, 4], (28, 28, 1), 10)):
        code, _, err = predict(picture, "--model", saved(tmp_path / "old.npz", other))
        assert code == 2 and "does not say what its" in err and err.count("\n") == 1


def test_files_that_contradict_themselves(predict, picture, tmp_path):
    network = ep.convnet([4, 4], (32, 32, 3), 3)
    about = dict(classes=["a", "b"], mean=[0.5] * 3, std=[1.0] * 3, image_shape=[32, 32, 3])
    for wrong in (about, about | dict(classes=["a", "b", "c"], image_shape=[28, 28, 1]), dict(classes=["a", "b", "c"])):
        code, _, err = predict(picture, "--model", saved(tmp_path / "network.npz", network, **wrong))
        assert code == 2 and "contradicts itself" in err and err.count("\n") == 1


def test_test_images_of_a_folder(predict, tmp_path):
    """Without pictures: the test images of the data set it was trained on, which has to have its classes."""
    for name in ("cat", "dog"):
        for k in range(5):
            (tmp_path / "pets" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (10 * k, 20, 30)).save(tmp_path / "pets" / name / f"{k}.png")
    dataset = datasets.load(str(tmp_path / "pets"))
    path = saved(tmp_path / "network.npz", ep.convnet([4, 4], dataset.shape, 2), **dataset.about())
    code, out, err = predict("--model", path, "--data", tmp_path / "pets")
    assert code == 0 and "a test image of class cat: " in out and "a test image of class dog: " in out, err
    (tmp_path / "pets" / "dog").rename(tmp_path / "pets" / "wolf")
    code, _, err = predict("--model", path, "--data", tmp_path / "pets")
    assert code == 2 and "other classes" in err


@pytest.mark.parametrize("name", ["$$.png", b"\xff caf\xe9.png", "a^_{.png", "line\nbreak.png"])
def test_any_name(predict, monkeypatch, picture, tmp_path, name):
    """Of a file and of a class: a name is no formula, need be no text, and has an entry in the legend whatever it begins with."""
    legends = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: (figure.canvas.draw(), legends.append(
        [text.get_text() for text in figure.axes[1].get_legend().get_texts()])))
    path, classes = tmp_path / os.fsdecode(name), ["_background_", "$$", "\udcff"]
    picture.rename(path)
    network = ep.convnet([4, 4], (32, 32, 3), 3, scale=3.0)
    about = dict(classes=classes, mean=[0.3] * 3, std=[0.5] * 3, image_shape=[32, 32, 3])
    code, out, err = predict(path, "--model", saved(tmp_path / "network.npz", network, **about))
    assert code == 0 and "%" in out and sorted(legends[0]) == ["$$", "\\udcff", "_background_"], err


@pytest.mark.parametrize("options, named", [
    (["a.png"], "cannot read the picture"), ([""], "expected a path"), (["--out", "a.xyz"], "ending in one of .*png"),
    (["--out", "no/such/folder/a.png"], "a folder that exists"), (["--out", "."], "got '.'")])
def test_what_is_refused_before_the_work(predict, monkeypatch, tmp_path, options, named):
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_text("text")
    code, _, err = predict(*options)
    assert code == 2 and re.search(named, err) and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.slow
def test_examples_start_without_their_folder_on_the_path():
    """python -P: those that share a module find it."""
    scripts = [path for path in sorted(EXAMPLES.glob("*.py")) if "from trained import" in path.read_text()]
    for script in scripts:
        done = subprocess.run([sys.executable, "-P", script, "--help"], capture_output=True, text=True,
                              env=os.environ | dict(PYTHONPATH=str(EXAMPLES.parent)))
        assert done.returncode == 0 and "--model" in done.stdout, done.stderr
    assert len(scripts) >= 5


def test_the_shipped_network_fits_cifar10(predict, picture):
    """It loads, takes 32x32 colour images, has ten classes, and predict.py takes it where none is named."""
    assert ep.load(predict.SHIPPED).shapes[0] == (32, 32, 3) and predict.SHIPPED.stat().st_size < 10e6
    code, out, err = predict(picture)
    assert code == 0 and out.startswith(f"{picture}: ") and "%" in out and "assum" not in out, err
