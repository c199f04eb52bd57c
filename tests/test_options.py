"""Every option of every program acts: with it a run leaves another trace than without it; where it could not, it is refused.

A trace is what a run printed, what it called the library with, what it trained, as text. The same command line leaves the same
trace twice; so an option that is ignored leaves that of the run without it. The settings of the main job are taken from their
declarations (ep/train/settings.py), all other options from the programs' own parsers: a new one without a row fails. The
laboratory has tests of its own.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import json
import re
import runpy
import shlex
import signal
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

import ep
from ep import backend, datasets
from ep.datasets.dataset import Dataset
from ep.datasets.synthetic import synthetic_images
from ep.npz import read_npz
from ep.train import commandline as cli, equilibrium, experiment, job, loop, runs, settings
from ep.train.settings import OPTIONS, Config, flag

EXAMPLES = Path(__file__).parents[1] / "examples"
MAIN = "cifar10_sym_ep"
NONE = {"01_eqprop_by_hand", "trained"}  # without a command line; `trained` lends others its options
SETTLING = dict(accuracy_at_T=1.0, fixed_point_accuracy=1.0, fixed_point_images=1, changed_images=0.0, cosine_1=1.0,
                smallest_cosine=1.0, spectral_radius=0.5, largest_spectral_radius=0.5, cosine_one_pass=1.0,
                largest_cosine_feed_forward=1.0, accuracy_without_feedback=1.0)


def source_of(name):
    return EXAMPLES / f"{name}.py"


def load(name):
    """An example as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
        spec = importlib.util.spec_from_file_location(f"options_of_{name}", source_of(name))
        spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


# --- what a run leaves ----------------------------------------------------------------------------------------------------


def tiny(side=8, channels=3, train=24, test=16, name="synthetic"):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (train + test, side, side, channels)).astype(np.uint8)
    labels = (np.arange(train + test) % 10).astype(np.uint8)
    return Dataset(images[:train], labels[:train], images[train:], labels[train:], tuple("abcdefghij"), name, "made up",
                   mean=(0.5,) * channels, std=(1.0,) * channels)


def text(value):
    """An argument as text. Of settings only that they are settings: what is made of an option is looked for, not the option."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}:{zlib.crc32(np.ascontiguousarray(value)):x}"
    if isinstance(value, ep.Network):
        parts = [(type(one).__name__, one.post_shape, one.pool.name if hasattr(one, "pool") else None)
                 for one in value.synapses]
        return text(dict(value.parameters(), gain=value.feedback, sigma=[one.name for one in value.activations], parts=parts))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text(key)}: {text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(map(text, value)) + ")"
    if dataclasses.is_dataclass(value) and not isinstance(value, experiment.Config):
        return f"{type(value).__name__}(" + ", ".join(f"{name}={text(one)}" for name, one in vars(value).items()) + ")"
    return str(value) if isinstance(value, (str, Path, int, float, complex, np.generic, type(None))) else type(value).__name__


class Spy:
    """The trace of a run, line by line: calls of functions that are replaced while it runs, and what it prints."""

    def __init__(self, patch):
        self.patch, self.lines = patch, []

    def note(self, name, *arguments, **options):
        self.lines.append(f"{name}{text(arguments)}{text(options) if options else ''}")

    def noted(self, name, result, *arguments):
        """The result, after a line about it."""
        self.note(name, *arguments)
        return result

    def __call__(self, owner, *names, instead=None):
        """Record every call of owner.name, which does what it did, or `instead`."""
        for name in names:
            plain = getattr(owner, name)

            @functools.wraps(plain)
            def recorded(*arguments, name=name, does=instead or plain, **options):
                self.note(name, *arguments, **options)
                return does(*arguments, **options)

            self.patch.setattr(owner, name, recorded)


def run(module, arguments, patches):
    """The trace of module.main() with a command line; an EPError goes through."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        patch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
        patch.setattr(time, "perf_counter", itertools.count().__next__)  # a second for each look at the clock
        spy = Spy(patch)
        patch.setattr("builtins.print", lambda *words, **options: spy.lines.append(" ".join(map(str, words))))
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        patches(spy, module)
        try:
            module.main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return "\n".join(spy.lines)


def lines(trace, name):
    """What is behind the name in the lines of a trace that begin with it."""
    return [line.removeprefix(name) for line in trace.splitlines() if line.startswith(name)]


def differ(without, with_it, expected):
    """Whether the traces differ, and as expected: by words that are in the second alone (!words: in the first), and by checks."""
    def found(one):
        if callable(one):
            return one(without, with_it)
        before, after = (with_it, without) if one[:1] == "!" else (without, with_it)
        return one.lstrip("!") in after and (not one or one.lstrip("!") not in before)

    return without != with_it and all(map(found, expected if isinstance(expected, tuple) else (expected,)))


# --- the main job ---------------------------------------------------------------------------------------------------------


def of_training(spy, module):
    """Of a training of the library: a data set of 8x8 pixels, no distance to equilibrium, no picture."""
    spy(datasets, "load", instead=lambda name, *places: tiny(name=name if name == "cifar10" else "synthetic"))
    spy(backend, "device_module", instead=lambda device: np)
    for owner in (ep, loop):
        spy(owner, "worker_threads")
    spy(datasets, "augment", instead=lambda batch, *how, plain=datasets.augment: spy.noted("images", plain(batch, *how), *batch))
    spy(runs, "evaluate")
    spy(experiment, "eqprop_gradient", "papers_gradient", "bptt_gradient")
    spy.patch.setattr(equilibrium, "distance", lambda *arguments, **options: dict(SETTLING))
    spy.patch.setattr(runs, "plot_curves", lambda *arguments: None)
    spy.patch.setattr(runs.Run, "lap", lambda self: 0.0)  # of seconds, which the screen shows
    started, finish = runs.Run.started.__func__, runs.Run.finish

    def noted_start(cls, folder, config, network, optimizer, world=None):
        spy.note("started", folder)
        spy.note("optimizer", type(optimizer).__name__, optimizer.rates, optimizer.weight_decay)
        for name, w in network.parameters().items():
            spy.note("initial", name, w)
        return started(cls, folder, config, network, optimizer, world)

    def noted_end(self):
        for line in (self.folder / "log.jsonl").read_text().splitlines():
            spy.note("log", {key: value for key, value in json.loads(line).items() if key != "seconds"})
        for name, array in read_npz(self.folder / "checkpoint.npz").items():
            if name != "meta":
                spy.note("end", name, array)
        finish(self)

    spy.patch.setattr(runs.Run, "started", classmethod(noted_start))
    spy.patch.setattr(runs.Run, "finish", noted_end)


BASE = ("--preset cpu --channels 2 3 --scale 1 3 --initial-drive 0 --train-images 24 --test-images 16 --batch-size 8 "
        "--epochs 1 --lr 0.01 --no-flip --pad 0 --out run --threads 1")
ASYMMETRIC = "--connections asymmetric"
SYNCHRONOUS = "--steps-free 9 --steps-nudged 6 --schedule synchronous --schedule-nudged synchronous"
BESIDE = {  # what is given in both runs
    "--feedback-update": ASYMMETRIC, "--conventions": "--nudged-phases states", "--tolerance": "--steps-free 50",
    "--scale": "--initial-radius 0", "--initial-radius": "--feedback 1", "--radius-limit": "--batch-size 1",
    "--network": "--preset cpu",
    "--blocks": "--preset cpu --network resnet", "--schedule": "--channels 2 3 4",
    "--steps-nudged": "--schedule-nudged synchronous",
    "--preset": "--dataset cifar10 --whitening 0 --steps-free 9 --steps-nudged 6",
    "--validation-images": "--test-images 8 --train-images 16", "--algorithm": SYNCHRONOUS}


def results(trace):
    """What was trained, without what was called for it."""
    return [lines(trace, name) for name in ("initial", "images", "log", "end")]


def starts_elsewhere(without, with_it):
    return lines(without, "initial") != lines(with_it, "initial")


def moves(without, with_it):
    """From the same initial parameters to others."""
    return not starts_elsewhere(without, with_it) and lines(without, "end") != lines(with_it, "end")


SETTINGS = {  # option and value: what is seen of it; of a choice (--cost) every other value is tried
    "--train-images 16": tuple(f"!{text(image)}" for image in tiny().train_images[16:]),
    "--validation-images 8": (text(tiny().train_images[-8:]), "!" + text(tiny().test_images[:8])),
    "--test-images 8": (text(tiny().test_images[:8]), "!" + text(tiny().test_images)),
    "--flip": (moves, "Generator, 0, True"), "--pad 2": (moves, "Generator, 2, False"), "--network": "(Identity, ",
    "--blocks 2": "!12.W", "--activation": moves, "--channels 3 4": "[3, 3, 3, 4]", "--scale 2 3": starts_elsewhere,
    "--initial-drive 0.5": starts_elsewhere, "--initial-radius 0.5": starts_elsewhere, "--radius-limit 0.01": moves,
    "--whitening 2": starts_elsewhere, "--feedback 0.5": (moves, "gain: 0.5"), "--cost": "!readout.W",
    "--connections": "2.B", "--seed 1": starts_elsewhere, "--algorithm": ("bptt_gradient", "!eqprop_gradient"),
    "--nudging": moves, "--beta 0.7": (moves, "points=(-0.7, 0.7)"), "--nudged-phases": (moves, "deviations=False"),
    "--conventions": moves, "--feedback-update": moves, "--steps-free 3": (moves, "free=Phase(steps=3"),
    "--schedule": moves, "--tolerance 0.1": "!steps_free: 50.0", "--chunk 4": "float32[4, 8, 8, 3]",
    "--steps-nudged 2": (moves, "nudged=Phase(steps=2"), "--schedule-nudged": moves, "--omega 1.3": (moves, "omega=1.3"),
    "--optimizer": (moves, "!optimizer(Adam"), "--lr 0.05": (moves, "1: 0.05"), "--weight-decay 0.5": (moves, ", 0.5)"),
    "--warm-up 0": moves, "--batch-size 12": "uint8[12, ", "--epochs 2": "epoch 2:"}
SURROUNDINGS = {
    "--preset paper": (moves, "papers_gradient"), "--dataset cifar100": "load(cifar100", "--no-download": "None, False)",
    "--data somewhere": "load(auto, somewhere", "--out elsewhere": "started(elsewhere)", "--device cpu": "device_module(cpu)",
    "--threads 3": "worker_threads(3)",
    "--resume run": ("!started(", "!evaluate(", lambda a, b: results(a)[2:] == results(b)[2:])}
INERT = {  # the settings beside which an option of this kind has no effect
    settings.RESIDUAL: "--network convnet", settings.UNCALIBRATED: "--initial-drive 0.5",
    settings.PROPORTIONS: "--feedback 1 --initial-radius 0.5", settings.ASYMMETRIC: "",
    settings.NUDGES: f"{SYNCHRONOUS} --algorithm bptt", settings.TWO_STATES: "--nudged-phases deviations",
    settings.NOT_OWN: f"{SYNCHRONOUS} --algorithm bptt {ASYMMETRIC}", settings.ADAM: "--optimizer sgd"}
VALUES = {option: [value] for option, _, value in (row.partition(" ") for row in SETTINGS | SURROUNDINGS)} | {
    flag(name): list(option.read) for name, option in OPTIONS.items() if not callable(option.read)}


# --- the other programs ---------------------------------------------------------------------------------------------------


def patched(side=8, **constants):
    """What examples share: small images, networks that are not trained, constants replaced by smaller ones, no pictures."""
    def small(*arguments, **options):
        return ep.convnet([2, 3], (8, 8, 3), seed=1, scale=3.0, paddings=[1, 1], feedback=arguments[3] if arguments else 1.0)

    def patches(spy, module):
        for name, value in constants.items():
            spy.patch.setattr(module, name, value)
        spy(datasets, "load", instead=lambda *arguments, **options: tiny(side))
        spy(ep, "load", "train_epoch", "evaluate", "eqprop_gradient", "worker_threads")
        spy(equilibrium, "exact_gradient")
        spy(module, *{"synthetic_images"} & vars(module).keys())
        spy(module, *{"plot", "film"} & vars(module).keys(), instead=nothing)
        if "trained" in sys.modules:
            spy(sys.modules["trained"], "train", instead=small)
    return patches


def nothing(*arguments):
    pass


def own_synapse(spy, module):
    patched()(spy, module)
    spy.patch.setattr(ep, "Phases", lambda free, nudged, plain=ep.Phases: plain(12, 8))


def fashion_mnist(spy, module):
    of_training(spy, module)
    spy(datasets, "load", instead=lambda *arguments: tiny(28, 1, name="fashion-mnist"))
    spy(module, "plot", instead=nothing)


def predict(spy, module):
    spy.patch.setattr(ep, "load", lambda path, plain=ep.load: plain("tiny.npz"))
    patched()(spy, module)
    spy(module.pictures, "read", instead=lambda path, shape: tiny().test_images[0])


SHARED = {  # of examples/trained.py: one network, where without the options there may be two
    "--model tiny.npz": ("network tiny.npz", "!train(", lambda _, b: len(lines(b, "load(tiny.npz")) == 1),
    "--feedback 0.3": ("5, 0.3", lambda _, b: len(lines(b, "train(")) == 1), "--data somewhere": "somewhere",
    "--train-images 7": ", 7, 5, ", "--epochs 3": ", 3000, 3, "}
OTHERS = {  # example: (its patches, its base options, {option and value: what is seen of it})
    "02_three_faces_of_phi": (patched(32), "", {"--out elsewhere": "elsewhere/three_faces_of_phi.png"}),
    "03_relax_and_nudge": (patched(), "--images 3 --steps-free 8 --steps-nudged 3", SHARED | {
        "--images 9": "", "--beta 0.1": "", "--steps-free 5": "after 5 steps", "--steps-nudged 5": "",
        "--out elsewhere": "elsewhere/relax_and_nudge.png"}),
    "04_increments": (patched(32), "--images 2 --steps 4", {
        "--beta 0.5": "", "--steps 5": "", "--images 3": "train: 3", "--out elsewhere": "elsewhere/increments.png"}),
    "05_bias": (patched(T=6, synthetic_images=lambda train, test: synthetic_images(1, 1)), "--betas 4", {
        "--betas 5": "", "--out elsewhere": "elsewhere/bias.png"}),
    "06_why_one_sided_fails": (patched(), "--images 3 --steps-free 8 --steps-nudged 3", SHARED | {
        "--images 5": "of 5 right", "--beta 0.1": "", "--steps-free 5": "free=Phase(steps=5", "--steps-nudged 5":
        "nudged=Phase(steps=5", "--out elsewhere": "elsewhere/why_one_sided_fails.png"}),
    "07_fashion_mnist": (fashion_mnist, "--epochs 1 --threads 1 --out runs/fashion", {
        "--network convnet": "Conv, (", "--data somewhere": "somewhere", "--images 16": "!float32[8, 784]",
        "--epochs 2": "epoch 2:",
        "--threads 3": "worker_threads(3)", "--out elsewhere": ("started(elsewhere/mlp)", "plot(elsewhere")}),
    "08_holomorphic": (patched(PHASES=ep.Phases(8, 5)), "--points 2", {
        "--points 2 4": "", "--out elsewhere": "elsewhere/holomorphic.png"}),
    "09_your_own_synapse": (own_synapse, "--steps 5", {
        "--steps 6": "at step 6", "--out elsewhere": "elsewhere/your_own_synapse.png"}),
    "10_settling": (patched(), "--images 3 --steps 4", SHARED | {
        "--images 5": ", 5 images", "--steps 5": "", "--out elsewhere": "elsewhere/settling.png"}),
    "11_bias_when_trained": (patched(), "--images 3 --steps-free 8 --steps-nudged 3 --betas 2", SHARED | {
        "--images 5": "\n5 images", "--steps-free 5": "", "--steps-nudged 5": "", "--betas 3": "",
        "--out elsewhere": "elsewhere/bias_when_trained.png"}),
    "12_feedback_gain": (patched(32, CHANNELS=(2, 2, 2, 2)), "--threads 1 --gains 0.1 --train-images 16 --epochs 1 "
                         "--test-images 4 --images 2 --steps 6", {
        "--gains 0.1 0.01": "gain: 0.01", "--data somewhere": "somewhere", "--train-images 24": "uint8[24, ",
        "--epochs 2": lambda a, b: len(lines(b, "train_epoch")) == 2 * len(lines(a, "train_epoch")),
        "--test-images 6": "uint8[6, ", "--images 3": "[3, 32, 32, 3]", "--beta 0.4": "0.4", "--steps 7": "free=Phase(steps=7",
        "--threads 3": "worker_threads(3)", "--out elsewhere": "elsewhere/feedback_gain.png"}),
    "13_depth": (patched(32), "--blocks 1 --channels 2 --images 2", {
        "--blocks 2 3": "(6, 8)", "--channels 3": "", "--feedback 0.1": "", "--images 3": "",
        "--out elsewhere": "elsewhere/depth.png"}),
    "14_read_noise": (patched(32, CHANNELS=(2, 2, 2), BETAS=[0.125], AT=0.125, NOISES={0.0: "", 1e-3: ""}),
                      "--train-images 16 --epochs 1 --images 2 --draws 1", {
        "--train-images 24": "uint8[24, ", "--epochs 2": lambda a, b: len(lines(b, "train_epoch")) == 2 * len(
            lines(a, "train_epoch")), "--images 3": "[3, 16, 16, 3]", "--draws 2": "", "--out elsewhere":
        "elsewhere/read_noise.png"}),
    "15_your_own_energy": (patched(32), "--images 50 --epochs 1", {
        "--images 75": "", "--epochs 2": "epoch 2:", "--out elsewhere": "elsewhere/network.npz"}),
    "16_time_that_flows": (patched(), "--radii 0.5 --periods 10", {
        "--radii 0.6": "", "--periods 20": "period 20", "--b 0.03": "swings of 0.03"}),
    "asymmetric_alignment": (patched(32, ANGLES=(90.0, 0.0), SEEDS=(0,), T=12, K=6), "", {
        "--out elsewhere": "elsewhere/asymmetric_alignment.png"}),
    "predict": (predict, "", {
        "files a.png": "read(a.png", "--model tiny.npz": "load(tiny.npz)", "--data somewhere": "somewhere", "--count 3": "",
        "--steps 3": "", "--out elsewhere.png": "elsewhere.png"}),
}


PROGRAMS = {MAIN: (of_training, BASE, SETTINGS | SURROUNDINGS)} | OTHERS


# --- the tests ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """traced(program, words) -> its trace, in a folder with a network, and with two runs to resume where it needs them."""
    @functools.cache
    def trace(name, words):
        module, network = load(name), ep.convnet([2, 3], (8, 8, 3), seed=2, scale=3.0, paddings=[1, 1])
        network.about = tiny().about()
        with contextlib.chdir(tmp_path_factory.mktemp("traced")):
            network.save("tiny.npz")
            for seed, folder in enumerate(("run", "other")) if "--resume" in words else ():
                run(load(MAIN), shlex.split(f"{BASE} --seed {seed} --out {folder}"), of_training)
            return run(module, shlex.split(words), PROGRAMS[name][0])

    return trace


def slow_but_for_the_main_job(name, *others):
    return pytest.param(name, *others, marks=() if name == MAIN else pytest.mark.slow)


@pytest.mark.parametrize("name", list(map(slow_but_for_the_main_job, PROGRAMS)))
def test_the_same_command_line_leaves_the_same_trace(traced, name):
    assert traced(name, PROGRAMS[name][1]) == traced.__wrapped__(name, PROGRAMS[name][1])


@pytest.mark.parametrize("name, option", [slow_but_for_the_main_job(name, row) for name, (_, _, rows) in PROGRAMS.items()
                                          for row in rows], ids=lambda one: one.split()[0])
def test_an_option_acts(traced, name, option):
    """By the value in its row; a choice of the main job by every value but that of the run without the option."""
    option, _, value = (row := option).partition(" ")
    _, base, rows = PROGRAMS[name]
    base = f"{base} {BESIDE.get(option, '')}".strip() if name == MAIN else base
    kept = {"--resume": ""}.get(option, base)  # in the place of
    typed = option if option[0] == "-" else ""  # the name of a positional argument is not
    without = traced(name, base)
    traces = [traced(name, f"{kept} {typed} {one}") for one in (VALUES[option] if name == MAIN else [value])]
    if len(traces) > 1:
        traces.remove(without)
    assert [differ(without, trace, rows[row]) for trace in traces] == [True] * len(traces)


@pytest.mark.parametrize("option, only", [(flag(name), only) for name, option in OPTIONS.items() for only in option.only])
def test_what_is_refused_would_be_ignored(traced, monkeypatch, option, only):
    """One sentence names the option and what it is for; and if it is let through, the training is the one without it.

    But for a factor, which calibration takes back to rounding or to a percent, and for a contradiction, which `Phases` refuses.
    """
    value = "own" if only is settings.NOT_OWN else VALUES[option][-1]
    words = f"{BASE} {INERT[only]} {option} {value}"
    with pytest.raises(ep.EPError, match=re.escape(f"{option} is for {only.purpose}")):
        traced(MAIN, words)
    monkeypatch.setattr(experiment, "refuse_what_would_be_ignored", lambda config, given: None)
    if only not in (settings.UNCALIBRATED, settings.PROPORTIONS, settings.TWO_STATES):
        assert results(traced.__wrapped__(MAIN, words)) == results(traced(MAIN, f"{BASE} {INERT[only]}"))


BAD = {cli.count: ("0", "-1", "1.5"), cli.whole: ("-1", "x"), cli.pixels: ("-1", "1e3"),
       cli.number: ("nan", "inf", "x"), cli.positive: ("0", "-1", "nan"),
       cli.not_negative: ("-1", "inf"), cli.radius: ("-1", "1", "nan")}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_setting_is_what_its_declaration_says(name):
    """Without the option the default is what --help says, with it its value is set, and wrong words are refused by its name."""
    parser, (default, read, *_) = job.parser("", {}), OPTIONS[name]
    action, = (action for action in parser._actions if action.dest == name)
    images = tiny(name="mine")
    config = job.config_of(parser.parse_args([]), images)
    assert config == experiment.resolve(images) and getattr(Config, name) == default
    said = re.search(r"\(default: ([^ ]*)\)$", action.help)
    assert (said is None) == (name in experiment.VARYING)
    assert said is None or (said[1] == str(default) and getattr(config, name) == default)
    args = parser.parse_args(f"{BESIDE.get(flag(name), '')} {flag(name)} {VALUES[flag(name)][-1]}".split())
    given = getattr(args, name)
    assert getattr(job.config_of(args, images), name) == (tuple(given) if isinstance(given, list) else given)
    for bad in () if read is bool else BAD[read] if callable(read) else ("sideways",):
        with pytest.raises(ep.EPError, match=f"^argument {flag(name)}: (expected|invalid choice).*'{bad}'"):
            parser.parse_args([f"{flag(name)}={bad}"])


class Caught(Exception):
    """Thrown by a parser that is asked to parse, to get hold of it."""


def actions_of(name):
    """The options of an example, as argparse keeps them, taken from its parser."""
    module = load(name)

    def parse_args(parser, *arguments):
        raise Caught(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        with pytest.raises(Caught) as caught:
            module.main()
    return [action for action in caught.value.args[0]._actions if action.dest != "help"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_option_has_a_row(name):
    """No option without a row, and no row without an option; positional arguments go by their names."""
    options = {action.option_strings[0] if action.option_strings else action.dest for action in actions_of(name)}
    assert options == {row.split()[0] for row in PROGRAMS[name][2]}


def test_every_example_is_here(monkeypatch):
    """Files without a command line are named, and cifar10_asym_ep.py is the main job with asymmetric connections."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"cifar10_asym_ep", *PROGRAMS, *NONE}
    assert not any("parse_args" in source_of(name).read_text() for name in NONE)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    calls, example = [], importlib.import_module(MAIN)
    monkeypatch.setattr(example, "main", lambda *arguments, **chosen: calls.append(chosen))
    runpy.run_path(str(EXAMPLES / "cifar10_asym_ep.py"), run_name="__main__")
    assert calls == [dict(connections="asymmetric")]
    assert [job.parser("", chosen).parse_args([]).connections for chosen in (calls[0], {})] == ["asymmetric", None]


@pytest.mark.parametrize("name, options, sentence", [
    ("06_why_one_sided_fails", "--steps-free 5 6 --steps-nudged 3", "one --steps-nudged for each --steps-free"),
    ("10_settling", "--model tiny.npz --epochs 3", "--train-images, --epochs and --feedback are for a network"),
    ("predict", "a.png --count 2", "--count and --data are for test images"),
    ("predict", "a.png --data b", "--count and --data are for test images"),
    (MAIN, "--dataset synthetic --data somewhere", "embedded in the package")])
def test_an_option_that_would_be_ignored_is_refused(traced, monkeypatch, name, options, sentence):
    """In one sentence; those of settings are above."""
    monkeypatch.setitem(PROGRAMS, name, ((lambda spy, module: None) if name == MAIN else PROGRAMS[name][0], "", {}))
    with pytest.raises(ep.EPError, match=sentence):
        traced(name, options)
