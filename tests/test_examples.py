"""The numbered examples run, in seconds, and their printed numbers say what their titles claim.

The reductions are ordinary options (fewer images, fewer steps): the same code as the full run.
"""

import argparse
import importlib.util
import json
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from test_idx import write_idx

import ep
from ep.train import equilibrium

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture
def example(monkeypatch, capsys, tmp_path):
    """example(name, *options) -> what examples/NAME.py prints; its figures are in tmp_path."""
    def run(name, *options):
        monkeypatch.syspath_prepend(str(EXAMPLES))  # they may share a module
        monkeypatch.setattr(sys, "argv", [name, *map(str, options), "--out", str(tmp_path)])
        load(name).main()
        return capsys.readouterr().out

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in handlers.items():  # a training has its own
        signal.signal(number, handler)


def load(name):
    """examples/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_picture(path):
    return path.read_bytes()[:4] == b"\x89PNG"


def numbers(line):
    return [float(n) for n in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", line)]


def header_output(name):
    """The indented lines that the docstring of an example promises to be printed."""
    header = (EXAMPLES / f"{name}.py").read_text().split('"""')[1]
    return [line.split() for line in header.split("Printed:")[1].strip().splitlines()]


def test_three_faces_of_phi(example, tmp_path):
    """Exactly the numbers of the header: four times the same Phi, and every derivative as measured."""
    lines = example("02_three_faces_of_phi").splitlines()
    assert [line.split() for line in lines] == header_output("02_three_faces_of_phi")
    assert len({line.split()[-1] for line in lines[:4]}) == 1
    assert all(derivative == measured != 0 for derivative, measured in map(numbers, lines[5:]))
    assert is_picture(tmp_path / "three_faces_of_phi.png")


def test_increments(example, tmp_path):
    """With fewer images and steps: in every layer, each nudging is three times nearer to BPTT than the one before."""
    lines = example("04_increments", "--images", 3, "--steps", 6).splitlines()[2:]
    one_sided, symmetric, four_point = ([float(n) for n in line.split()[1:]] for line in lines)
    assert all(a > 3 * b > 9 * c > 0 for a, b, c in zip(one_sided, symmetric, four_point))
    assert is_picture(tmp_path / "increments.png")


def test_bias(example, tmp_path):
    """Slopes within 0.1 of the order of each nudging; float32 and few steps limit the error, far above float64's."""
    lines = example("05_bias", "--betas", 8).splitlines()
    found = {line.split("(")[0].rsplit(maxsplit=1)[0]: numbers(line)[-2:] for line in lines[1:5]}
    assert [order for _, order in found.values()] == [1, 2, 4, 6]
    assert all(abs(slope - order) < 0.1 for slope, order in found.values()), found
    best = [float(n) for n in re.findall(r"\de-\d+", lines[5])]
    assert best[0] * 100 < best[1] < best[2] / 10
    assert is_picture(tmp_path / "bias.png")


def test_holomorphic(example, tmp_path):
    """Two points are the symmetric estimate; with 16, the gradient is exact to 1e-10 at beta = 1, where that is not."""
    lines = example("08_holomorphic", "--points", 2, 8, 16).splitlines()[1:]
    symmetric, two, eight, sixteen = ([float(n) for n in line.split()[-3:]] for line in lines)
    assert symmetric == two and all(a > 100 * b > 1e4 * c for a, b, c in zip(two[:2], eight, sixteen))
    assert sixteen[1] < 1e-10 and symmetric[1] > 1e-3
    assert is_picture(tmp_path / "holomorphic.png")


def test_your_own_synapse(example, tmp_path):
    """One number three times, derivatives as measured, EP = BPTT, and a nudge that arrives sooner and larger."""
    faces, moved, against_bptt, without, with_skip = map(numbers, example("09_your_own_synapse", "--steps", 6).splitlines())
    assert len(set(faces)) == 1 and faces[0] != 0 and moved[0] == moved[1] != 0
    assert 0 < against_bptt[-1] < 1e-9
    assert (without[1], with_skip[1]) == (4, 2) and with_skip[-1] > 2 * without[-1] > 0
    assert is_picture(tmp_path / "your_own_synapse.png")


def test_the_contract_finds_a_wrong_synapse():
    """A way down that forgets the share of a pixel, and a rule that forgets the mean, are no derivatives of Phi."""
    own = load("09_your_own_synapse")

    class WrongWayDown(own.Skip):
        def drive_pre(self, post, switches=None):
            return self.r**2 * super().drive_pre(post)

    class WrongRule(own.Skip):
        def hebbian(self, pre, post, switches=None):
            return {"g": 2 * super().hebbian(pre, post)["g"]}

    def holds(kind):
        faces, (derivative, measured) = own.contract(kind(np.arange(1.0, 3.0), (4, 4, 2), 2), np.random.default_rng(0))
        return np.allclose(faces, faces[0], rtol=1e-10) and np.isclose(derivative, measured, rtol=1e-6)

    assert holds(own.Skip) and not holds(WrongWayDown) and not holds(WrongRule)


def test_your_own_energy(example, tmp_path):
    """Derivatives, the slope of the loss, a loss that falls, and a file that gives the network back."""
    lines = example("15_your_own_energy", "--images", 100, "--epochs", 2).splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["Memory", "Inhibition"]
    claim, measured = numbers(lines[2])
    assert claim == pytest.approx(measured, rel=1e-5) and claim != 0
    (_, before, *_), (_, after, *_) = map(numbers, lines[3:5])
    assert after < before and lines[5].endswith("True") and (tmp_path / "network.npz").exists()


def test_time_that_flows(monkeypatch, capsys):
    """The same fixed points, E that never rises, ten slowest times whatever the radius; the error of a swing falls with b."""
    monkeypatch.setattr(sys, "argv", ["16", "--radii", "0.5", "0.8", "--periods", "10", "100"])
    load("16_time_that_flows").main()
    _, *rows, fast, slow, small = capsys.readouterr().out.splitlines()
    assert all(8 < float(row.split()[3]) < 13 and float(row.split()[6]) < 1e-5 and row.endswith("False") for row in rows)
    fast, slow, small = (numbers(line)[-1] for line in (fast, slow, small))
    assert fast > 5 * slow > 5 * small > 0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny ConvNet of the embedded images' size, saved; not trained."""
    path = tmp_path_factory.mktemp("model") / "tiny.npz"
    ep.convnet([4, 6, 6], paddings=[1, 1, 1], scale=3.0).save(path)
    return path


@pytest.fixture
def no_cifar(monkeypatch, tmp_path):
    monkeypatch.setenv("EP_DATA", str(tmp_path / "nowhere"))


def test_relax_and_nudge(example, model, no_cifar, tmp_path):
    """+beta makes the right class likelier and -beta less likely; the last layer moves most."""
    lines = example("03_relax_and_nudge", "--model", model, "--images", 4, "--steps-free", 25, "--steps-nudged", 4).splitlines()
    free, plus, minus = (float(line.split()[-1]) for line in lines[2:5])
    assert plus > free > minus
    first, *_, last = (float(n) for n in lines[5].split(":")[1].split())
    assert 0 < first < last
    assert is_picture(tmp_path / "relax_and_nudge.png")


def test_why_one_sided_fails(example, model, no_cifar, tmp_path):
    """While the free phase drifts, the difference to s_T is far off and two phases are not; once it has settled, neither is."""
    options = "--images 4 --beta 0.05 --steps-free 16 300 --steps-nudged 20 60".split()
    lines = example("06_why_one_sided_fails", "--model", model, *options).splitlines()[2:]
    angles = [[float(n) for n in line.replace("minus s_T", "minus-s_T").split()[4:7]] for line in lines if "at -beta" not in line]
    drift, one, symmetric, *converged = map(np.array, angles)
    assert (drift > 4 * one).all() and (drift > 4 * symmetric).all() and (symmetric < 25).all(), angles
    assert all((0 < angle).all() and (angle < 25).all() for angle in converged) and (converged[0] == converged[1]).all(), angles
    assert is_picture(tmp_path / "why_one_sided_fails.png")


def test_one_sided_does_not_fail_at_a_weak_gain(example, no_cifar, tmp_path):
    """There the difference to s_T is drift alone below the last layer; a deviation from s_T is near the gradient."""
    options = "--images 4 --beta 0.1 --steps-free 4 --steps-nudged 2 --train-images 32 --epochs 1".split()
    printed = example("06_why_one_sided_fails", *options).replace("minus s_T", "minus-s_T").replace("at -beta", "at--beta")
    lines = [line.split() for line in printed.splitlines()]
    states, deviations = ({line[3]: [float(n) for n in line[4:8]] for line in lines
                           if line[:2] == ["2", "1"] and (line[-1] == "deviations") == wanted} for wanted in (False, True))
    assert min(states["minus-s_T"][:3]) > 60 and "minus-s_T" not in deviations, lines
    assert max(deviations["one-sided"]) < 30, lines
    assert is_picture(tmp_path / "why_one_sided_fails.png")


def test_settling(example, no_cifar, tmp_path):
    """By default a network of each gain: sweeps of weak feedback are at the fixed point by the sixth, steps of strong are not."""
    lines = example("10_settling", *"--images 4 --steps 6 --train-images 32 --epochs 1".split()).splitlines()
    assert [line.split(", ")[0] for line in lines if line.startswith("small")] == ["small network of gain 0.005",
                                                                                "small network of gain 1"]
    weak, strong = (float(line.split()[1]) for line in lines if line.startswith("    6"))
    assert weak < 1e-5 < 1e-2 < strong
    assert "trained with T = 2: 0 answers differ from those after 6 steps" in lines
    assert is_picture(tmp_path / "settling.png")


def test_depth(example, tmp_path):
    """Three layers more, and the cosine of a residual network stays."""
    lines = example("13_depth", *"--blocks 1 4 --channels 4 --images 4".split()).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[n, kind] for n in ("4", "10") for kind in ("residual", "plain")]
    assert all(0.99 < float(line.split()[2]) <= 1.00005 for line in lines[1::2]), lines
    assert [line.split()[:2] for line in lines[1:3]] == [row[:2] for row in header_output("13_depth")[1:3]]
    assert is_picture(tmp_path / "depth.png")


def test_bias_when_trained(example, no_cifar, tmp_path):
    """Near 0 the orders hold, at the switches of s*; what two sweeps and one leave is more than that, and small all the same."""
    options = "--feedback 0.005 --images 4 --betas 2 --train-images 32 --epochs 1".split()
    lines = example("11_bias_when_trained", *options).splitlines()
    assert lines[0].startswith("small network of gain 0.005, trained on 32 images, embedded synthetic images, 4 images")
    one_sided, symmetric, _, as_trained = (float(re.findall(r"\d\.\de[-+]\d+", line)[0]) for line in lines[6:10])
    assert 10 * symmetric < one_sided and symmetric < as_trained < 0.1, lines
    assert is_picture(tmp_path / "bias_when_trained.png")


def test_feedback_gain(example, no_cifar, tmp_path):
    """Weaker feedback: fewer steps, a gradient nearer to backpropagation's, and two float32 states that no longer differ."""
    options = "--gains 1 0.01 --train-images 48 --epochs 1 --test-images 20 --images 6 --beta 0.1 --steps 80".split()
    *_, strong, weak = map(numbers, example("12_feedback_gain", *options).splitlines())
    assert [strong[0], weak[0]] == [1, 0.01]
    assert strong[1] > weak[1] and strong[2] > weak[2] >= 2  # steps, initial and trained
    assert strong[3] < weak[3] and weak[3] > 0.99  # with the feed-forward network's gradient
    for one_sided, symmetric, four_point in (strong[4:7], weak[4:7]):
        assert one_sided < symmetric and four_point > 0.9 and symmetric > 0.9, (strong, weak)
    assert weak[7] < 0.5 < weak[5], weak
    assert is_picture(tmp_path / "feedback_gain.png")


def test_read_noise(example, tmp_path):
    """Noise drowns layer 1 at a weak gain, by gamma^-(L - 1), and no law is needed where there is none; the law says how far."""
    lines = example("14_read_noise", *"--train-images 32 --epochs 1 --images 6 --draws 2".split()).splitlines()
    at = {line.split()[1][:-1]: k for k, line in enumerate(lines) if line.startswith("gain")}
    A = {gain: numbers(lines[k + 1])[0] for gain, k in at.items()}
    assert 0.3 < A["0.03"] / A["1"] * 0.03**2 < 3 and A["1"] < A["0.3"] < A["0.1"] < A["0.03"]
    tables = {gain: [numbers(line) for line in lines[k + 3:k + 7]] for gain, k in at.items()}
    for quiet, *noisy in tables.values():
        assert min(quiet[2::2]) > 0.98
        assert all(abs(row[6] - row[8]) < 0.35 for row in noisy), tables  # symmetric, measured and predicted
    assert tables["1"][2][6] > 3 * tables["0.03"][2][6]
    assert is_picture(tmp_path / "read_noise.png")


def small_network(monkeypatch, feedback, *options):
    """What examples/trained.py returns where nothing is shipped."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    trained = load("trained")
    monkeypatch.setattr(trained, "SHIPPED", Path("nowhere.npz"))
    parser = argparse.ArgumentParser()
    trained.add_options(parser.add_argument, images=3)
    args = parser.parse_args(["--train-images", "32", "--epochs", "1", *options])
    return trained, trained.network_and_images(args, feedback)


@pytest.mark.parametrize("feedback,options,gain", [(None, (), 0.005), (1.0, (), 1.0), (1.0, ("--feedback", "0.02"), 0.02)])
def test_a_small_network_is_trained_where_none_is_given(no_cifar, monkeypatch, feedback, options, gain):
    """Without --model and a shipped file: a network of the gain that is asked for, in float64, and a line that says which."""
    trained, (network, x, y, name) = small_network(monkeypatch, feedback, *options)
    assert name == f"small network of gain {gain:g}, trained on 32 images, embedded synthetic images"
    assert len(x) == len(y) == 3 and {str(w.dtype) for w in network.parameters().values()} == {"float64"}
    assert network.feedback == gain
    assert trained.free_phase(network) == (ep.Phase(2, "up") if gain < 1 else ep.Phase(15, "checkerboard"))
    if gain == 1:
        initial = ep.convnet([16, 32, 32, 32], scale=1.5).parameters()
        assert any((w != initial[key]).any() for key, w in network.parameters().items())


def test_the_small_network_settles(no_cifar, monkeypatch):
    """Trained at the weak gain, it learns, answers the same at its fixed point, and its estimate is the exact gradient's."""
    few = "--train-images", "3000", "--epochs", "4"  # after more of them only one or two of the images still have a gradient
    _, (network, *_) = small_network(monkeypatch, None, *few)
    network.set_parameters({name: w.astype("float32") for name, w in network.parameters().items()})
    dataset, phases = ep.datasets.load("synthetic"), ep.Phases(ep.Phase(2, "up"), ep.Phase(1, "down"), deviations=True)

    def gradient(network, x, y):
        return ep.eqprop_gradient(network, x, y, phases, nudging=ep.Nudging.symmetric(0.1))

    found = equilibrium.distance(network, dataset.test_images[:128], dataset.test_labels[:128], gradient, phases,
                                 prepare=lambda images, rng: dataset.normalise(images))
    assert found["accuracy_at_T"] > 0.9 and found["changed_images"] < 0.02 and found["settled_images"] == 1, found
    assert found["smallest_cosine"] > 0.99, found


def test_fashion_mnist(example, tmp_path):
    """Both networks learn something from 2,400 made-up images in IDX files, in one folder; without files, one sentence."""
    rng, folder = np.random.default_rng(0), tmp_path / "fashion"
    for split, n in (("train", 2400), ("t10k", 100)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (n, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels):
            image[2 * label + 2:2 * label + 8] += 150  # a bar whose height is the class
        write_idx(folder, split, images, labels)
    for network, images in (("mlp", 2400), ("convnet", 480)):
        options = "--network", network, "--data", folder, "--images", images, "--epochs", 2
        lines = example("07_fashion_mnist", *options).splitlines()
        assert float(lines[-1].split("test accuracy ")[1].split("%")[0]) > 25, lines
        log = [json.loads(line) for line in (tmp_path / network / "log.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in log] == [1, 2]
    assert is_picture(tmp_path / "fashion_mnist.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ep.EPError, match="no data set in .* the four IDX files"):
        example("07_fashion_mnist", "--data", tmp_path / "empty")
    np.savez(tmp_path / "other.npz", **{f"{a}_{split}": array for split in ("train", "test") for a, array in (
        ("x", np.zeros((2, 8, 8), np.uint8)), ("y", np.arange(2)))})
    with pytest.raises(ep.EPError, match="neither MNIST nor Fashion-MNIST"):
        example("07_fashion_mnist", "--data", tmp_path / "other.npz")
