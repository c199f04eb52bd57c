"""Every option of every example acts: for each there is a check that fails if the option is ignored.

CHECKS has a row for each option: the value that is given, what else is given in both runs (`beside`), and a check of what the
two runs did, without the option and with it. What they did is what they called the library with, what they trained, and
what they printed. The options are taken from the examples' own parsers, so a new one without a row fails, and so does a row
without an option.
"""

import argparse
import functools
import importlib.util
import json
import runpy
import shlex
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ep
from ep import backend, datasets, eqprop
from ep.datasets import idx
from ep.datasets.dataset import Dataset
from ep.datasets.synthetic import synthetic_images
from ep.npz import read_npz
from ep.train import checkpoint, equilibrium, experiment, job, loop, runs

EXAMPLES = Path(__file__).parents[1] / "examples"
PLACES = [str(EXAMPLES), str(EXAMPLES / "laboratory")]
MAIN = "cifar10_sym_ep"
NONE = {"01_eqprop_by_hand", "pytorch_twin", "trained", "trainings"}  # without a command line; `trained` lends others its options
SETTLING = dict.fromkeys(("accuracy_at_T", "fixed_point_accuracy", "smallest_cosine"), 1.0) | dict(
    fixed_point_images=1, changed_images=0.0, cosine_1=1.0)


def source_of(name):
    return next(EXAMPLES.rglob(f"{name}.py"))


def load(name):
    """An example as a module; skipped where it needs a package that is not installed."""
    if name == "backpropagation":
        pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*PLACES, *sys.path])
        spec = importlib.util.spec_from_file_location(f"options_of_{name}", source_of(name))
        spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def imports(name):
    """The words of the import lines of an example."""
    lines = source_of(name).read_text().splitlines()
    return {word for line in lines if line.startswith(("import ", "from ")) for word in line.replace(",", "").split()}


# --- two small runs -------------------------------------------------------------------------------------------------------


def tiny(side=8, channels=3, train=24, test=16, name="synthetic"):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (train + test, side, side, channels)).astype(np.uint8)
    labels = (np.arange(train + test) % 10).astype(np.uint8)
    return Dataset(images[:train], labels[:train], images[train:], labels[train:], tuple("abcdefghij"), name, "made up",
                   mean=(0.5,) * channels, std=(1.0,) * channels)


class Spy:
    """Calls of functions that are replaced while an example runs: calls["name"] is a list of (arguments, options)."""

    def __init__(self, patch):
        self.patch, self.calls = patch, {}

    def __call__(self, owner, name, instead=None):
        """Record every call of owner.name, which does what it did, or `instead`."""
        plain = instead or getattr(owner, name)

        @functools.wraps(getattr(owner, name))
        def recorded(*arguments, **options):
            self.calls.setdefault(name, []).append((arguments, options))
            return plain(*arguments, **options)

        self.patch.setattr(owner, name, recorded)


class Ran(SimpleNamespace):
    """What a run did: calls of `Spy`, printed, and for trainings log, parameters, initial (parameters), meta, folder."""

    def of(self, name, argument, call=0):
        """An argument of a recorded call, by its position or its name."""
        arguments, options = self.calls[name][call]
        return arguments[argument] if isinstance(argument, int) else options[argument]


def run(module, arguments, calls):
    """Run module.main() with a command line, and return `Ran`; an EPError goes through."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module.__name__, *arguments])
        patch.setattr(sys, "path", [*PLACES, *sys.path])
        spy, printed = Spy(patch), []
        patch.setattr("builtins.print", lambda *words, **options: printed.append(" ".join(map(str, words))))
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        calls(spy, module)
        try:
            module.main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Ran(calls=spy.calls, printed="\n".join(printed))


def of_training(spy, module):
    """Of a training of the library: a data set of 8x8 pixels, no distance to equilibrium, no picture."""
    spy(datasets, "load", lambda name, *arguments: tiny(name="cifar10" if name == "cifar10" else "synthetic"))
    spy(idx, "load", lambda *arguments: tiny(28, 1, name="fashion-mnist"))
    spy(backend, "device_module", lambda device: np)
    for owner, name in ((ep, "worker_threads"), (loop, "worker_threads"), (datasets, "augment"), (datasets, "hold_out"),
                        (runs, "evaluate"), (eqprop, "eqprop_gradient"), (experiment, "bptt_gradient"),
                        (runs.Run, "on_step")):
        spy(owner, name)
    spy(equilibrium, "distance", lambda *arguments, **options: dict(SETTLING))
    spy(runs, "plot_curves", lambda *arguments: None)
    started = runs.Run.started.__func__

    def with_initial_parameters(cls, folder, config, network, optimizer, world=None):
        before = {name: w.copy() for name, w in network.parameters().items()}
        spy.calls["started"] = [((folder, config, before, optimizer), {})]
        return started(cls, folder, config, network, optimizer, world)

    spy.patch.setattr(runs.Run, "started", classmethod(with_initial_parameters))


def read(ran, folder):
    """`Ran` with what the training left in its folder."""
    arrays = read_npz(folder / "checkpoint.npz")
    ran.log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    ran.parameters = {name.removeprefix("parameter/"): w for name, w in arrays.items() if name.startswith("parameter/")}
    ran.arrays, ran.meta, ran.folder = set(arrays), checkpoint.read_meta(folder / "checkpoint.npz"), folder
    if "started" in ran.calls:
        ran.initial, ran.optimizer = ran.of("started", 2), ran.of("started", 3)
    return ran


BASE = ("--channels 2 3 --scale 1 3 --initial-drive 0 --train-images 24 --test-images 16 --batch-size 8 --epochs 1 --lr 0.01 "
        "--no-flip --pad 0")


@pytest.fixture(scope="module")
def main_job(tmp_path_factory):
    """main_job("--option value ...") -> `Ran` of the main job; each command line is trained once."""
    module = load(MAIN)

    @functools.cache
    def trained(options):
        words, folder = shlex.split(f"{BASE} {options}"), tmp_path_factory.mktemp("run")
        place = Path(words[words.index("--out") + 1]) if "--out" in words else folder / "run"
        resumed = Path(words[words.index("--resume") + 1]) if "--resume" in words else None
        words = shlex.split(options) if resumed else words if "--out" in words else [*words, "--out", str(place)]
        return read(run(module, words, of_training), resumed or place)

    return trained


# --- checks of the main job: (value, check(without, with) -> bool, what else is given in both) ---------------------------------


def phases(ran):
    name = "bptt_gradient" if "bptt_gradient" in ran.calls else "eqprop_gradient"
    return ran.of(name, "phases" if name == "bptt_gradient" else 3)


def nudging(ran):
    return ran.of("eqprop_gradient", "nudging")


def moved(a, b):
    """Whether the two trainings ended at different parameters, though they started from the same ones."""
    return all((a.initial[name] == b.initial[name]).all() for name in a.initial) and any(
        (a.parameters[name] != b.parameters[name]).any() for name in a.parameters)


def path_of(ran):
    """Largest distance that a weight of layer 1 went."""
    return abs(ran.parameters["1.W"] - ran.initial["1.W"]).max()


def seen(ran):
    """Batches that went into the network: (stored, augmented) images, all together."""
    return [(arguments[0], datasets.augment(*arguments)) for arguments, _ in ran.calls["augment"]]


def updates(ran):
    return len(ran.calls["on_step"])


def calibrated(ran):
    """Standard deviation of the drives of layer 1 at the initial weights, per unit."""
    network = ep.convnet([2, 3], (8, 8, 3), paddings=[1, 0])
    network.set_parameters(ran.initial)
    drives = network.synapses[0].drive_post(tiny().normalise(tiny().train_images))[0]
    return drives.std((0, 1, 2))


def mirrored(ran):
    pairs = [(a, b) for stored, found in seen(ran) for a, b in zip(stored, found)]
    kept = [(a == b).all() for a, b in pairs]
    return not all(kept) and all(k or (a[:, ::-1] == b).all() for k, (a, b) in zip(kept, pairs))


def cropped(ran):
    """Every pixel column of the augmented images is one of the stored ones, but not all images are as stored."""
    return any(not (a == b).all() for stored, found in seen(ran) for a, b in zip(stored, found)) and all(
        arguments[2] == 2 for arguments, _ in ran.calls["augment"])


def trained_on(ran):
    return {image.tobytes() for stored, _ in seen(ran) for image in stored}


def evaluated_on(ran):
    return ran.of("evaluate", 1)


def resumed(a, b):
    return b.meta == a.meta and "on_step" not in b.calls and "started" not in b.calls and "test accuracy" in b.printed


ASYMMETRIC, STATES = "--connections asymmetric", "--nudged-phases states"
MAIN_JOB = {
    "--preset": ("paper", lambda a, b: phases(b).free.schedule == "synchronous" != phases(a).free.schedule, "--dataset cifar10"),
    "--nudging": ("one-sided", lambda a, b: nudging(b).points == (0.0, nudging(a).points[1]) and moved(a, b)),
    "--algorithm": ("bptt", lambda a, b: "bptt_gradient" in b.calls and "eqprop_gradient" not in b.calls and moved(a, b)),
    "--cost": ("squared-error", lambda a, b: "readout.W" in a.parameters and "readout.W" not in b.parameters),
    "--feedback": ("0.5", lambda a, b: b.of("eqprop_gradient", 0).feedback == 0.5 != a.of("eqprop_gradient", 0).feedback
                   and moved(a, b)),
    "--connections": ("asymmetric", lambda a, b: "2.B" in b.parameters and "2.B" not in a.parameters),
    "--feedback-update": ("own", lambda a, b: moved(a, b), ASYMMETRIC),
    "--beta": ("0.7", lambda a, b: nudging(b).points == (-0.7, 0.7) and moved(a, b)),
    "--steps-free": ("3", lambda a, b: phases(b).free.steps == 3 == b.log[0]["steps_free"] and moved(a, b)),
    "--steps-nudged": ("2", lambda a, b: phases(b).nudged.steps == 2 and moved(a, b), "--schedule-nudged synchronous"),
    "--schedule": ("synchronous", lambda a, b: phases(b).free.schedule == "synchronous" and moved(a, b)),
    "--schedule-nudged": ("synchronous", lambda a, b: phases(b).nudged.schedule == "synchronous" and moved(a, b)),
    "--nudged-phases": ("states", lambda a, b: not phases(b).deviations and moved(a, b)),
    "--conventions": ("paper", lambda a, b: phases(b).conventions == ep.PAPERS_CODE and moved(a, b), STATES),
    "--tolerance": ("0.1", lambda a, b: b.log[0]["steps_free"] < a.log[0]["steps_free"] == 50, "--steps-free 50"),
    "--channels": ("3 4", lambda a, b: b.parameters["2.W"].shape == (3, 3, 3, 4)),
    "--network": ("resnet", lambda a, b: b.of("eqprop_gradient", 0).recipe["builder"] == "resnet" and "18.W" in b.parameters
                  and "3.W" not in a.parameters),
    "--blocks": ("2", lambda a, b: max(b.of("eqprop_gradient", 0).depths) == 5 and "8.W" not in b.parameters
                 and max(a.of("eqprop_gradient", 0).depths) == 13, "--network resnet"),
    "--scale": ("2 3", lambda a, b: np.allclose(b.initial["1.W"], 2 * a.initial["1.W"])),
    "--initial-drive": ("0.5", lambda a, b: np.allclose(calibrated(b), 0.5, rtol=1e-3) and (calibrated(a) < 0.45).all()),
    "--optimizer": ("sgd", lambda a, b: "optimizer/velocity/1.W" in b.arrays and "optimizer/velocity/1.W" not in a.arrays),
    "--lr": ("0.05", lambda a, b: b.optimizer.rates["1"] == 0.05 and path_of(b) > 3 * path_of(a)),
    "--weight-decay": ("0.5", lambda a, b: b.optimizer.weight_decay == 0.5 and moved(a, b)),
    "--warm-up": ("0", lambda a, b: path_of(b) > 10 * path_of(a)),
    "--batch-size": ("12", lambda a, b: updates(b) == 2 and updates(a) == 3),
    "--chunk": ("4", lambda a, b: {len(x) for (_, x, *_), _ in b.calls["eqprop_gradient"][1:]} == {4}),
    "--epochs": ("2", lambda a, b: len(b.log) == 2 and updates(b) == 6),
    "--train-images": ("16", lambda a, b: updates(b) == 2 and trained_on(b) == {x.tobytes() for x in tiny().train_images[:16]}),
    "--test-images": ("8", lambda a, b: b.log[0]["test_images"] == 8 == len(evaluated_on(b)) and len(evaluated_on(a)) == 16),
    "--validation-images": ("8", lambda a, b: (evaluated_on(b) == tiny().train_images[-8:]).all()
                            and (evaluated_on(a) == tiny().test_images[:8]).all(), "--test-images 8 --train-images 16"),
    "--pad": ("2", lambda a, b: cropped(b) and not cropped(a) and moved(a, b)),
    "--flip": ("", lambda a, b: mirrored(b) and not mirrored(a) and moved(a, b)),
    "--seed": ("1", lambda a, b: (a.initial["1.W"] != b.initial["1.W"]).all() and any(
        (x != z).any() for (x, _), (z, _) in zip(seen(a)[1:], seen(b)[1:]))),
    "--dataset": ("cifar100", lambda a, b: (a.of("load", 0), b.of("load", 0)) == ("auto", "cifar100")),
    "--data": ("somewhere", lambda a, b: (a.of("load", 1), b.of("load", 1)) == (None, Path("somewhere"))),
    "--no-download": ("", lambda a, b: (a.of("load", 2), b.of("load", 2)) == (True, False)),
    "--out": ("FOLDER", lambda a, b: b.of("started", 0) == b.folder and (b.folder / "log.jsonl").exists()),
    "--resume": ("RUN", resumed),
    "--device": ("cpu", lambda a, b: (a.of("device_module", 0), b.of("device_module", 0)) == ("auto", "cpu")),
    "--threads": ("3", lambda a, b: b.of("worker_threads", 0) == 3),
}


@pytest.mark.parametrize("option", MAIN_JOB)
def test_an_option_of_the_main_job_acts(main_job, tmp_path, option):
    value, check, *beside = MAIN_JOB[option]
    beside = " ".join(beside)
    without = main_job(beside)
    value = str(tmp_path / "elsewhere") if value == "FOLDER" else str(without.folder) if value == "RUN" else value
    assert check(without, main_job(f"{beside} {option} {value}"))


# --- the other examples -----------------------------------------------------------------------------------------------------


def image_example(spy, module):
    """Of an example that looks at a trained network: images of 8x8 pixels, networks that are not trained, no pictures."""
    def small(dataset, images, epochs, feedback, steps=()):
        return ep.convnet([2, 3], (8, 8, 3), seed=1, scale=3.0, paddings=[1, 1], feedback=feedback)

    trained = sys.modules["trained"]
    spy(datasets, "load", lambda *arguments, **options: tiny())
    spy(trained, "train", small)
    spy(ep, "load")
    for name in ("plot", "film"):
        if hasattr(module, name):
            spy(module, name, lambda *arguments: None)


def maths_example(**constants):
    """Of an example that makes its own network: its constants replaced by smaller ones, no pictures."""
    def calls(spy, module):
        for name, value in constants.items():
            assert hasattr(module, name)
            spy.patch.setattr(module, name, value)
        spy(datasets, "load", lambda *arguments: tiny(32))
        if hasattr(module, "synthetic_images"):
            spy(module, "synthetic_images")
        spy(module, "plot", lambda *arguments: None)
    return calls


def own_synapse(spy, module):
    spy(module, "plot", lambda *arguments: None)
    spy.patch.setattr(ep, "Phases", lambda free, nudged, plain=ep.Phases: plain(12, 8))


def differs(a, b):
    return a.printed != b.printed


def drawn(path):
    """What is drawn goes to this path in the folder of --out."""
    return lambda a, b: b.calls["plot"][0][0][-1] == Path("elsewhere") / path


def measured(a, b):
    """The numbers that are drawn are others, but for times: those are so always."""
    return a.of("plot", 1)["residual"][0][:2] != b.of("plot", 1)["residual"][0][:2]


def argument(name, position, value, of=None):
    """The call has this argument, which it had not without the option; of: what is looked at of it."""
    def check(a, b):
        before, after = (ran.of(name, position) for ran in (a, b))
        return (of or (lambda x: x))(after) == value != (of or (lambda x: x))(before)
    return check


def lines(count):
    """So many lines more are printed."""
    return lambda a, b: len(b.printed.splitlines()) - len(a.printed.splitlines()) == count


def fashion_mnist(spy, module):
    of_training(spy, module)
    spy(module, "plot", lambda *arguments: None)


def feedback_gain(spy, module):
    spy.patch.setattr(module, "CHANNELS", (2, 2, 2, 2))
    spy(datasets, "load", lambda *arguments, **options: tiny(32))
    for owner, name in ((ep, "train_epoch"), (ep, "evaluate"), (ep, "eqprop_gradient"), (equilibrium, "exact_gradient"),
                        (ep, "worker_threads"), (module, "plot")):
        spy(owner, name)


def gradient_quality(spy, module):
    spy(datasets, "load", lambda *arguments, **options: tiny())
    small = ep.convnet([2, 3], (8, 8, 3), scale=3.0, paddings=[1, 1])
    spy(ep, "convnet", lambda seed: small)
    for owner, name in ((ep, "load"), (ep, "worker_threads"), (ep, "eqprop_gradient")):
        spy(owner, name)
    spy(module, "write", lambda *arguments: None)


def table_differs(a, b):
    return a.of("write", 1) != b.of("write", 1)


def cells(ran, column):
    return ran.of("write", 1)[0][column]


def cell(column, value):
    return lambda a, b: cells(b, column) == value != cells(a, column)


def not_trained(spy, module, results):
    """Trainings are processes: none is started, but each leaves results, {name of a file: what is in it}."""
    def process(training):
        spy.calls.setdefault("commands", []).append(" ".join(map(str, training.command())))
        training.folder.mkdir(parents=True, exist_ok=True)
        for name, content in results.items():
            (training.folder / name).write_text(json.dumps(content) + "\n")
        return SimpleNamespace(poll=lambda: 0, returncode=0)

    spy.patch.setattr(module.trainings, "process_of", process)
    spy.patch.setattr(module.trainings.time, "sleep", lambda seconds: None)
    spy.patch.setattr(module.trainings, "tqdm", functools.partial(module.trainings.tqdm, disable=True))
    spy(module.trainings, "work")


def paper_table(spy, module):
    not_trained(spy, module, {"config.json": vars(experiment.Config()), "result.json": dict(test_accuracy=0.5),
                              "log.jsonl": dict(converged=0.0, steps_free=8)})
    spy(module, "draw", lambda args: args.out.mkdir(exist_ok=True))
    spy.patch.setattr(module, "ROWS", {name: module.ROWS[name] for name in ("symmetric", "bptt", "bptt-gain-1")})
    Path("out").mkdir(exist_ok=True)
    for end, text in (("json", "{}"), ("jsonl", "")):  # finished long ago
        Path("out", f"bptt-0.{end}").write_text(text)


def commands(ran):
    return ran.calls.get("commands", []) + [" ".join(map(str, arguments[0])) for arguments, _ in ran.calls.get("run", [])]


def sweep(spy, module):
    not_trained(spy, module, {"result.json": dict.fromkeys(module.NUMBERS.values(), 0.5)})
    spy(datasets, "load", lambda *arguments: tiny(32))
    spy(module, "drawn")
    spy(module, "plot", lambda *arguments: None)


def every_command(words):
    return lambda a, b: commands(a) and commands(b) and all(words in command for command in commands(b)) and not any(
        words in command for command in commands(a))


def which_side(spy, module):
    """sweep.py is not started, but leaves what it would leave."""
    def process(command, **options):
        out = Path(command[command.index("--out") + 1])
        for beta in module.BETAS[out.name]:
            for seed in (0, 1, 2):
                folder = out / f"nudging={out.name},beta={beta},seed={seed}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "log.jsonl").write_text(json.dumps(dict(test_accuracy=0.5, stuck_4=0.5)) + "\n")
        return SimpleNamespace(returncode=0)

    spy(module.subprocess, "run", process)


def predict(spy, module):
    network = ep.convnet([2, 3], (8, 8, 3), scale=3.0, paddings=[1, 1])
    network.about = tiny().about()
    spy(ep, "load", lambda path: network)
    spy(datasets, "load", lambda *arguments, **options: tiny())
    spy(module.pictures, "read", lambda path, shape: tiny().test_images[0])
    spy(module, "plot", lambda *arguments: None)


def benchmark(spy, module):
    class Step:
        def __init__(self, *arguments):
            spy.calls.setdefault("Step", []).append((arguments, {}))

        def measured(self, *arguments):
            spy.calls.setdefault("measured", []).append((arguments, {}))
            return {}

    spy.patch.setattr(module, "Step", Step)
    spy(module, "machine", lambda args: dict(sgemm={}))
    spy(module.subprocess, "run", lambda command, **options: SimpleNamespace(stdout='{"megabytes": 1}'))  # of `memory`
    for name in ("operations", "scaling", "against_pytorch", "against_backpropagation", "write"):
        spy(module, name, lambda *arguments: {})
    spy.patch.setitem(module.CHILDREN, "bptt", lambda args: spy.calls.setdefault("bptt", []).append(((args,), {})))


def gpu_report(spy, module):
    """No part is run, and none has been."""
    shutil.rmtree("gpu", ignore_errors=True)
    spy(module.subprocess, "run", lambda command, **options: SimpleNamespace(returncode=0, stdout="{}", stderr=""))
    spy.patch.setitem(module.PARTS, "memory", lambda args: spy.calls.setdefault("memory", []).append(((args,), {})))


def backpropagation(spy, module):
    spy(datasets, "load", lambda *arguments, **options: tiny())
    spy(module.torch, "set_num_threads", lambda threads: None)


SHARED = {  # of examples/trained.py
    "--model": ("MODEL", lambda a, b: "train" in a.calls and "train" not in b.calls and "network tiny.npz" in b.printed),
    "--data": ("somewhere", argument("load", 1, Path("somewhere"))),
    "--feedback": ("0.3", lambda a, b: b.of("train", 3) == 0.3 != a.of("train", 3)),
    "--train-images": ("7", lambda a, b: (a.of("train", 1), b.of("train", 1)) == (3000, 7) and "on 7 images" in b.printed),
    "--epochs": ("3", lambda a, b: (a.of("train", 2), b.of("train", 2)) == (5, 3)),
}
OTHERS = {  # example: (its patches, its base options, {option: (value, check)})
    "02_three_faces_of_phi": (maths_example(), "", {"--out": ("elsewhere", drawn("three_faces_of_phi.png"))}),
    "03_relax_and_nudge": (image_example, "--images 3 --steps-free 8 --steps-nudged 3", SHARED | {
        "--images": ("9", differs), "--beta": ("0.1", differs),
        "--steps-free": ("5", lambda a, b: "after 5 steps" in b.printed),
        "--steps-nudged": ("5", lambda a, b: len(b.of("plot", 3)["+beta"]) - len(a.of("plot", 3)["+beta"]) == 2),
        "--out": ("elsewhere", drawn("relax_and_nudge.png"))}),
    "04_increments": (maths_example(), "--images 2 --steps 4", {
        "--beta": ("0.5", differs), "--steps": ("5", lambda a, b: len(b.of("plot", 0)) == 5 != len(a.of("plot", 0))),
        "--images": ("3", argument("synthetic_images", "train", 3)), "--out": ("elsewhere", drawn("increments.png"))}),
    "05_bias": (maths_example(T=6, synthetic_images=lambda train, test: synthetic_images(1, 1)), "--betas 4", {
        "--betas": ("5", argument("plot", 0, 5, len)), "--out": ("elsewhere", drawn("bias.png"))}),
    "06_why_one_sided_fails": (image_example, "--images 3 --steps-free 8 --steps-nudged 3", SHARED | {
        "--images": ("5", lambda a, b: "of 5 right" in b.printed), "--beta": ("0.1", differs),
        "--steps-free": ("5", lambda a, b: b.of("plot", 0)[0][1].free.steps == 5 != a.of("plot", 0)[0][1].free.steps),
        "--steps-nudged": ("5", lambda a, b: b.of("plot", 0)[0][1].nudged.steps == 5 != a.of("plot", 0)[0][1].nudged.steps),
        "--out": ("elsewhere", drawn("why_one_sided_fails.png"))}),
    "08_holomorphic": (maths_example(PHASES=ep.Phases(8, 5)), "--points 2", {
        "--points": ("2 4", lines(1)), "--out": ("elsewhere", drawn("holomorphic.png"))}),
    "09_your_own_synapse": (own_synapse, "--steps 5", {
        "--steps": ("6", lambda a, b: "at step 6" in b.printed), "--out": ("elsewhere", drawn("your_own_synapse.png"))}),
    "10_settling": (image_example, "--images 3 --steps 4", SHARED | {
        "--images": ("5", lambda a, b: ", 5 images" in b.printed), "--steps": ("5", lambda a, b: len(b.of("plot", 0)[0][2]) == 5),
        "--out": ("elsewhere", drawn("settling.png"))}),
    "13_depth": (maths_example(), "--blocks 1 --channels 2 --images 2", {
        "--blocks": ("2 3", argument("plot", 0, [6, 8])), "--channels": ("3", measured), "--feedback": ("0.1", measured),
        "--images": ("3", measured), "--out": ("elsewhere", drawn("depth.png"))}),
    "11_bias_when_trained": (image_example, "--images 3 --steps-free 8 --steps-nudged 3 --betas 2", SHARED | {
        "--images": ("5", lambda a, b: "\n5 images" in b.printed and "\n5 images" not in a.printed),
        "--steps-free": ("5", differs), "--steps-nudged": ("5", differs),
        "--betas": ("3", argument("plot", 0, 3, len)), "--out": ("elsewhere", drawn("bias_when_trained.png"))}),
    "12_feedback_gain": (feedback_gain, "--threads 1 --gains 0.1 --train-images 16 --epochs 1 --test-images 4 --images 2 "
                         "--steps 6", {
        "--gains": ("0.1 0.01", lambda a, b: [row["gain"] for row in b.of("plot", 0)] == [0.1, 0.01]),
        "--data": ("somewhere", argument("load", 1, Path("somewhere"))),
        "--train-images": ("24", lambda a, b: len(b.of("train_epoch", 1)) == 24), "--epochs": ("2", lambda a, b: len(
            b.calls["train_epoch"]) == 2 * len(a.calls["train_epoch"])),
        "--test-images": ("6", lambda a, b: len(b.of("evaluate", 1)) == 6), "--images": ("3", lambda a, b: len(
            b.of("exact_gradient", 1)) == 3), "--beta": ("0.4", argument("plot", 1, 0.4)),
        "--steps": ("7", lambda a, b: b.of("eqprop_gradient", 3).nudged.steps == b.of("eqprop_gradient", 3).free.steps == 7),
        "--threads": ("3", argument("worker_threads", 0, 3)), "--out": ("elsewhere", drawn("feedback_gain.png"))}),
    "07_fashion_mnist": (fashion_mnist, "--epochs 1 --out runs/fashion", {
        "--network": ("convnet", lambda a, b: b.parameters["1.W"].ndim == 4 != a.parameters["1.W"].ndim),
        "--data": ("somewhere", argument("load", 1, Path("somewhere"))),
        "--images": ("16", lambda a, b: sum(len(x) for (_, x, *_), _ in b.calls["eqprop_gradient"]) == 16),
        "--epochs": ("2", lambda a, b: len(b.log) == 2 == 2 * len(a.log)),
        "--lr": ("0.01", lambda a, b: b.optimizer.rates["1"] == 0.01 and moved(a, b)),
        "--validation-images": ("8", lambda a, b: (evaluated_on(b) == tiny(28, 1).train_images[-8:]).all() and len(
            evaluated_on(a)) == 16),
        "--threads": ("3", argument("worker_threads", 0, 3)),
        "--out": ("elsewhere", lambda a, b: b.of("started", 0) == b.of("plot", 0) / "mlp" == Path("elsewhere/mlp"))}),
    "asymmetric_alignment": (maths_example(ANGLES=(90.0, 0.0), SEEDS=(0,), T=12, K=6), "", {
        "--out": ("elsewhere", drawn("asymmetric_alignment.png"))}),
    "gradient_quality": (gradient_quality, "--images 4 --steps-free 6 --steps-nudged 3 --threads 1 --schedule synchronous", {
        "--run": ("MODEL", lambda a, b: "convnet" in a.calls and "convnet" not in b.calls
                  and b.of("load", 0, 0) == Path("tiny.npz")),
        "--feedback-update": ("own", argument("eqprop_gradient", "transposed", False)),
        "--against": ("bptt", table_differs), "--steps-free": ("7", cell("T", 7)), "--steps-nudged": ("4", cell("K", 4)),
        "--tolerance": ("0.9", lambda a, b: cells(b, "steps") < cells(a, "steps") == 6),
        "--tolerance-nudged": ("0.9", lambda a, b: cells(b, "steps_nudged") < cells(a, "steps_nudged") == 3),
        "--schedule": ("up", table_differs), "--schedule-nudged": ("down", table_differs),
        "--nudged-phases": ("states", table_differs), "--nudging": ("one-sided", table_differs), "--beta": ("0.9", table_differs),
        "--images": ("5", lambda a, b: b.printed.splitlines()[-2].startswith("5 images") or "\n5 images" in b.printed),
        "--data": ("somewhere", argument("load", 1, Path("somewhere"))), "--seed": ("3", argument("convnet", "seed", 3)),
        "--threads": ("2", argument("worker_threads", 0, 2)), "--out": ("elsewhere", argument("write", 0, Path("elsewhere")))}),
    "paper_table": (paper_table, "--out out --runs runs --workers 4", {
        "--block": ("gains", lambda a, b: len(commands(b)) == 4 and all("--optimizer sgd" in c for c in commands(b))),
        "--row": ("symmetric", lambda a, b: len(commands(b)) == 6 and all("--nudging symmetric" in c for c in commands(b))),
        "--seed": ("1", lambda a, b: len([c for c in commands(b) if "--seed 1 " in c]) == 2 and not any(
            "--seed 2" in c for c in commands(b)) and any("--seed 2" in c for c in commands(a))),
        "--only-draw": ("", lambda a, b: commands(a) and not commands(b)),
        "--data": ("somewhere", every_command("--data somewhere")),
        "--out": ("elsewhere", lambda a, b: Path("elsewhere/bptt-0.json").exists()),
        "--runs": ("others", every_command("--out others/")),
        "--workers": ("2", argument("work", 1, 2)),
        "--minutes": ("9", argument("work", 2, 9.0))}),
    "which_side": (which_side, "", {
        "--data": ("somewhere", every_command("--data somewhere")), "--images": ("7", every_command("--images=7")),
        "--dataset": ("synthetic", every_command("--dataset synthetic")),
        "--validation-images": ("7", every_command("--validation-images=7")), "--epochs": ("7", every_command("--epochs 7")),
        "--seeds": ("3", every_command("seed=0,1,2")), "--jobs": ("7", every_command("--jobs=7")),
        "--out": ("elsewhere", lambda a, b: Path("elsewhere/which_side.png").exists())}),
    "sweep": (sweep, "--images 16 --validation-images 8 --random beta=0.1..1 --trials 2", {
        "--grid": ("beta=0.1,0.2,0.3 cost=squared-error,cross-entropy", lambda a, b: len(commands(b)) == 6
                   and "drawn" not in b.calls and any("--beta 0.3 --cost squared-error" in command for command in commands(b))),
        "--random": ("feedback=0.1..1", every_command("--feedback")),
        "--trials": ("3", lambda a, b: len(commands(b)) == 3 == len(commands(a)) + 1),
        "--seed": ("4", lambda a, b: b.of("drawn", 2) == 4 and not set(commands(a)) & set(commands(b))),
        "--images": ("12", every_command("--train-images 12")),
        "--validation-images": ("6", every_command("--validation-images 6")),
        "--data": ("somewhere", lambda a, b: every_command("--data somewhere")(a, b) and b.of("load", 1) == Path("somewhere")),
        "--jobs": ("3", argument("work", 1, 3)),
        "--out": ("elsewhere", lambda a, b: len(list(Path("elsewhere").glob("beta=*"))) == 2
                  and Path("elsewhere/table.csv").exists()),
        "shared": ("-- --epochs 7", every_command("--epochs 7"))}),
    "predict": (predict, "", {
        "files": ("a.png", lambda a, b: b.of("read", 0) == Path("a.png") and "read" not in a.calls),
        "--model": ("MODEL", argument("load", 0, Path("tiny.npz"))),
        "--data": ("somewhere", lambda a, b: (a.of("load", 1, 1), b.of("load", 1, 1)) == (None, Path("somewhere"))),
        "--count": ("3", argument("plot", 0, 3, len)), "--steps": ("3", argument("plot", 2, 3, len)),
        "--out": ("elsewhere.png", argument("plot", 4, Path("elsewhere.png")))}),
    "gpu_report": (gpu_report, "--parts memory --out gpu", {
        "--out": ("elsewhere", lambda a, b: Path("elsewhere/memory.json").exists()),
        "--data": ("somewhere", every_command("--data somewhere")), "--epochs": ("3", every_command("--epochs 3")),
        "--parts": ("steps", every_command("--child steps")), "--quick": ("", every_command("--quick")),
        "--tf32": ("", lambda a, b: [ran.calls["run"][0][1]["env"]["CUPY_TF32"] for ran in (a, b)] == ["0", "1"]),
        "--only-draw": ("", lambda a, b: commands(a) and not commands(b)),
        "--child": ("memory", lambda a, b: len(b.calls["memory"]) == 1 and not commands(b))}),
    "benchmark": (benchmark, "", {
        "--quick": ("", lambda a, b: "scaling" in a.calls and "scaling" not in b.calls),
        "--rounds": ("4", lambda a, b: all(" ".join(call[0][0]).endswith("--rounds 4") for call in b.calls["run"])),
        "--repeat": ("7", lambda a, b: any(call[0][3] == 7 for call in b.calls["measured"])),
        "--threads": ("5", argument("Step", 2, 5)), "--out": ("elsewhere", argument("write", 0, Path("elsewhere"))),
        "--child": ("bptt", lambda a, b: len(b.calls["bptt"]) == 1 and "write" not in b.calls)}),
    "backpropagation": (backpropagation, "RUN", {
        "run": ("OTHER", differs), "--data": ("somewhere", argument("load", 1, Path("somewhere"))),
        "--epochs": ("1", lambda a, b: len(a.printed.splitlines()) == 2 and len(b.printed.splitlines()) == 1),
        "--threads": ("2", argument("set_num_threads", 0, 2))}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name, option", [(name, option) for name, (_, _, checks) in OTHERS.items() for option in checks])
def test_an_option_of_another_example_acts(main_job, tmp_path, monkeypatch, name, option):
    """In an empty folder, so that nothing is there but what the example makes."""
    module, (calls, base, checks) = load(name), OTHERS[name]
    monkeypatch.chdir(tmp_path)
    ep.convnet([2, 3], (8, 8, 3), seed=2, scale=3.0, paddings=[1, 1]).save("tiny.npz")
    value, check = checks[option]
    places = dict(MODEL="tiny.npz")
    if name == "backpropagation":
        places |= dict(RUN=str(main_job("--epochs 2").folder), OTHER=str(main_job("--epochs 2 --seed 1").folder))
    with_it = value if option == "run" else f"{base} {f'{option} {value}' if option.startswith('--') else value}"
    if option == "--grid":  # in the place of
        with_it = with_it.replace("--random beta=0.1..1 --trials 2", "")
    found = []
    for words in (shlex.split(base), shlex.split(with_it)):
        ran = run(module, [places.get(word, word) for word in words], calls)
        if "started" in ran.calls:
            read(ran, ran.of("started", 0))
            ran.calls["evaluate"] = ran.calls.get("evaluate", [])
        found.append(ran)
        for folder in ("runs", "out"):
            if Path(folder).exists():
                Path(folder).rename(f"{folder}-{len(found)}")
    assert check(*found)


# --- nothing is left out ----------------------------------------------------------------------------------------------------


class Caught(Exception):
    """Thrown by a parser that is asked to parse, to get hold of it."""


def actions_of(name):
    """The options of an example, as argparse keeps them, taken from its parser."""
    module = load(name)

    def parse_args(parser, *arguments):
        raise Caught(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        try:
            module.main()
        except Caught as caught:
            return [action for action in caught.args[0]._actions if action.dest != "help"]
    raise AssertionError(f"{name} has no parser")


@pytest.mark.parametrize("name", [MAIN, *OTHERS])
def test_every_option_has_a_check(name):
    """No option without a check, and no check without an option; positional arguments go by their names."""
    options = {action.option_strings[0] if action.option_strings else action.dest for action in actions_of(name)}
    assert options == (MAIN_JOB if name == MAIN else OTHERS[name][2]).keys()


def test_every_example_is_here():
    """Files without a command line are named; cifar10_asym_ep.py is the main job itself (below)."""
    names = {path.stem for path in EXAMPLES.rglob("*.py")}
    assert names == {MAIN, "cifar10_asym_ep", *OTHERS, *NONE}
    for name in NONE:
        assert "parse_args" not in source_of(name).read_text()


def test_the_asymmetric_recipe_is_the_main_job(monkeypatch):
    """With asymmetric connections, and every option of it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    calls, example = [], importlib.import_module("cifar10_sym_ep")
    monkeypatch.setattr(example, "main", lambda *arguments, **chosen: calls.append(chosen))
    runpy.run_path(str(EXAMPLES / "cifar10_asym_ep.py"), run_name="__main__")
    assert calls == [dict(connections="asymmetric")]
    monkeypatch.setattr(sys, "argv", ["x"])
    assert job.options("", calls[0]).connections == "asymmetric" and job.options("", {}).connections is None


@pytest.mark.parametrize("name, calls, options, sentence", [
    ("06_why_one_sided_fails", image_example, "--steps-free 5 6 --steps-nudged 3", "one --steps-nudged for each --steps-free"),
    ("10_settling", image_example, "--model tiny.npz --epochs 3", "--train-images, --epochs and --feedback are for a network"),
    ("sweep", sweep, "--grid beta=0.1 --trials 3", "--trials and --seed are for --random"),
    ("sweep", sweep, "--grid beta=0.1 -- --train-images 8", "--train-images is not for behind the --: use --images"),
    ("predict", predict, "a.png --count 2", "--count and --data are for test images"),
    ("predict", predict, "a.png --data b", "--count and --data are for test images"),
    ("gradient_quality", gradient_quality, "--run tiny.npz --seed 0", "--seed is for the initial network"),
    (MAIN, lambda spy, module: None, "--dataset synthetic --data somewhere", "embedded in the package")])
def test_an_option_that_would_be_ignored_is_refused(tmp_path, monkeypatch, name, calls, options, sentence):
    """In one sentence; those of the main job's settings are in test_experiment.py."""
    module = load(name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ep.EPError, match=sentence):
        run(module, shlex.split(options), calls)
