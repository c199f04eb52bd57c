"""predict.py: names of classes, normalisation and steps come from the network's file, whatever it was trained on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import EXAMPLES, refused
from matplotlib.figure import Figure
from PIL import Image

import ep
from ep import datasets
from ep.datasets import pictures, synthetic


@pytest.fixture
def predict(example, tmp_path):
    """predict(*options) -> (exit code, stdout, stderr)"""
    return lambda *options: example("predict", "--out", tmp_path / "predict.png", *options)


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(synthetic.synthetic_images(1, 1)[0][0]).save(tmp_path / "a picture.png")
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
    err = refused(predict("--model", path))
    assert "trained on pictures in the folder pets: name pictures, or where they are with --data" in err


def test_how_far_the_answer_is_from_the_fixed_point(predict, picture, tmp_path):
    """A network without feedback is at its fixed point after one sweep; with strong feedback, one sweep is far from it."""
    network, about = ep.convnet([4, 4], scale=3.0, seed=1), datasets.load("synthetic").about() | dict(steps_free=1, schedule="up")
    moved = []
    for network.feedback in (0.0, 1.0):
        code, out, err = predict(picture, "--model", saved(tmp_path / "network.npz", network, **about))
        assert code == 0, err
        moved.append(float(re.search(r"no probability by more than (.*)%", out)[1]))
    assert moved[0] == 0 and moved[1] > 0.1


def test_what_the_feedback_is_good_for(predict, picture, tmp_path):
    """As the file has it; the free phase is over-relaxed as in training. A file that does not say is no reason to stop."""
    network, about = ep.convnet([4, 4], scale=1.5, seed=1), datasets.load("synthetic").about()
    about |= dict(steps_free=7, schedule="up", omega=1.4)
    regime = dict(fixed_point_images=50, fixed_point_accuracy=0.82, accuracy_without_feedback=0.66, spectral_radius=0.9)
    code, out, err = predict(picture, "--model", saved(tmp_path / "network.npz", network, **about, regime=regime))
    assert code == 0, err
    assert "of 50 test images it gets 82.0% right, and without its feedback 66.0%; its spectral radius is 0.90" in out
    x = datasets.normalise(pictures.read(picture, (32, 32, 3))[None], about["mean"], about["std"])
    assert expected(network, x, about["classes"], ep.Phase(7, "up", omega=1.4)) in out
    _, out, _ = predict(picture, "--model", saved(tmp_path / "network.npz", network, **about, regime=dict(spectral_radius=None)))
    assert "without its feedback" not in out


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
        assert "does not say what its" in refused(predict(picture, "--model", saved(tmp_path / "old.npz", other)))


def test_files_that_contradict_themselves(predict, picture, tmp_path):
    network = ep.convnet([4, 4], (32, 32, 3), 3)
    about = dict(classes=["a", "b"], mean=[0.5] * 3, std=[1.0] * 3, image_shape=[32, 32, 3])
    for wrong in (about, about | dict(classes=["a", "b", "c"], image_shape=[28, 28, 1]), dict(classes=["a", "b", "c"])):
        assert "contradicts itself" in refused(predict(picture, "--model", saved(tmp_path / "network.npz", network, **wrong)))


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
    assert re.search(named, refused(predict(*options)))


@pytest.mark.slow
def test_examples_start_without_their_folder_on_the_path():
    """python -P: those that share a module find it."""
    scripts = [path for path in sorted(EXAMPLES.glob("*.py")) if "from trained import" in path.read_text()]
    for script in scripts:
        done = subprocess.run([sys.executable, "-P", script, "--help"], capture_output=True, text=True,
                              env=os.environ | dict(PYTHONPATH=str(EXAMPLES.parent)))
        assert done.returncode == 0 and "--model" in done.stdout, done.stderr
    assert len(scripts) >= 4


def test_the_shipped_network_fits_cifar10(predict, picture):
    """It loads, takes 32x32 colour images, has ten classes, and predict.py takes it where none is named."""
    code, out, err = predict(picture)
    assert code == 0 and out.startswith(f"{picture}: ") and "%" in out and "assum" not in out, err
    shipped = sys.modules["predict"].SHIPPED
    assert ep.load(shipped).shapes[0] == (32, 32, 3) and shipped.stat().st_size < 10e6
