"""The edges of a run: output that nobody reads, signals, folders that are claimed, and sentences that name the cause."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import EXAMPLES, TINY, refused, sentence, signal_in_step, without_time
from matplotlib.figure import Figure

import ep
from ep import EPError, datasets
from ep.npz import read_npz
from ep.train import curves, experiment, job, machine, runs
from ep.train.claim import claim, new_folder, release
from ep.train.step import Step

ONE = [*TINY, "--epochs", "1"]
JOB = f"{sys.executable} {EXAMPLES / 'cifar10_sym_ep.py'} {' '.join(ONE)} --preset cpu --dataset images.npz --out run"
slow = pytest.mark.slow


# --- optional output ----------------------------------------------------------------------------------------------------


def write_images(path):
    rng = np.random.default_rng(0)
    x = {f"x_{split}": rng.integers(0, 256, (48, 32, 32, 3), dtype=np.uint8) for split in ("train", "test")}
    np.savez(path, **x, y_train=np.arange(48) % 3, y_test=np.arange(48) % 3)


def in_shell(folder, script, **environment):
    """(exit code of the job, stdout, stderr): $JOB in `script` is the main job on a few images, whose run folder is `run`."""
    write_images(folder / "images.npz")
    whole = f"set -o pipefail; {script.replace('$JOB', JOB)}"
    done = subprocess.run(["bash", "-c", whole], cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=60,
                          env={**os.environ, "PYTHONPATH": str(Path(ep.__file__).parents[1]), **environment})
    return done.returncode, done.stdout, done.stderr


@slow
@pytest.mark.parametrize("script, environment, expected, said", [
    ("$JOB", dict(MPLBACKEND="nonsense"), 0, "WARNING: curves.png cannot be drawn"),
    ("$JOB | head -1", {}, 1, "error: [Errno 32] Broken pipe"),
    ("cp images.npz '$$\u00e9.npz'; $JOB --dataset './$$\u00e9.npz'", dict(PYTHONIOENCODING="ascii", PYTHONUTF8="0"), 0,
     "$$\\xe9.npz")])
def test_output_that_cannot_be_made_or_read(tmp_path, script, environment, expected, said):
    """A backend that is none, `| head`, and names that Matplotlib takes for formulas, or that the terminal cannot show."""
    code, out, err = in_shell(tmp_path, script, **environment)
    assert code == expected and said in out + err and "Traceback" not in out + err and "ignored" not in err, (out, err)
    assert (tmp_path / "run" / "result.json").exists() or code


def test_a_picture_is_worth_no_run(start, tmp_path, monkeypatch):
    """Whatever drawing it raises: one warning for all epochs."""
    monkeypatch.setattr(runs, "plot_curves", Mock(side_effect=RuntimeError("no pencil\nat all")))
    code, out, err = start(*TINY, "--out", tmp_path / "run")
    assert code == 0 and (tmp_path / "run" / "result.json").exists() and (out + err).count("no pencil") == 1


@slow
def test_curves_of_any_name_and_depth(tmp_path, monkeypatch):
    """A title that is no formula, and whose bytes are no characters; a curve for each of 40 layers."""
    names = ("train_loss", "test_loss", "residual", "train_accuracy", "test_accuracy", "fixed_point_accuracy",
             "accuracy_without_feedback", "largest_cosine_feed_forward",
             *(f"{key}_{n}" for key in ("cosine", "gradient_norm", "stuck") for n in range(40)))
    figures, plain = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *place, **options: (
        figures.append(figure), plain(figure, *place, **options)))
    curves.plot_curves([dict.fromkeys(names, 0.5) | dict(epoch=1)], "$$ and \\frac{ \udcff", tmp_path / "curves.png")
    assert 40 in [len(axis.lines) for axis in figures[0].axes]


# --- signals ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def handlers(monkeypatch):
    """Handlers of our own, which must be there again after a run."""
    def handler(number, frame):
        raise AssertionError("the run does not listen")

    before = {number: signal.signal(number, handler) for number in machine.SIGNALS}
    yield handler
    for number, old in before.items():
        signal.signal(number, old)


@pytest.mark.parametrize("number", machine.SIGNALS)
def test_signals_save_and_handlers_are_put_back(start, monkeypatch, tmp_path, handlers, number):
    """Of terminals, systems and batch systems; after a run that was stopped, and after one that went through."""
    signal_in_step(monkeypatch, number, at=2)
    code, _, err = start(*ONE, "--out", tmp_path / "run")
    assert code == 128 + number and runs.read_meta(tmp_path / "run" / "checkpoint.npz")["step"] == 2, err
    release(claim(tmp_path / "run"))
    assert all(signal.getsignal(one) is handlers for one in machine.SIGNALS)
    assert start("--resume", tmp_path / "run")[0] == 0
    assert all(signal.getsignal(one) is handlers for one in machine.SIGNALS)


def test_only_a_person_is_impatient(tmp_path, monkeypatch):
    """Batch systems send a second signal, and SIGXCPU every second: only Ctrl-C does not wait for the end of the step."""
    run, *_ = by_hand(tmp_path / "run", monkeypatch)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGXCPU, signal.SIGXCPU):
        run.on_signal(number, None)
    assert run.world.stop == signal.SIGUSR1
    with pytest.raises(KeyboardInterrupt):
        run.on_signal(signal.SIGINT, None)


@pytest.mark.parametrize("evaluated", ["evaluate", "equilibrium.distance"])
def test_a_signal_during_the_evaluation(start, monkeypatch, tmp_path, evaluated):
    """The run stops between two chunks of images, all updates of the epoch are saved, and it goes on as if nothing had been."""
    assert start(*TINY, "--chunk", "4", "--out", tmp_path / "whole")[0] == 0
    owner, name = (runs.equilibrium, "distance") if "." in evaluated else (runs, evaluated)
    plain = getattr(owner, name)

    def interrupted(network, images, *arguments, map, **options):
        def signalled(function, items):  # the signal arrives while the first chunk is being relaxed
            def one(item):
                signal.raise_signal(signal.SIGTERM)
                time.sleep(0.05)
                calls.append(item)
                return function(item)
            return map(one, items)
        return plain(network, images, *arguments, map=signalled, **options)

    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        code, out, err = start(*TINY, "--chunk", "4", "--out", tmp_path / "run")
    assert code == 143 and len(calls) < 4 and "stopped in epoch 1 after step 3" in out, (out, err)
    assert runs.read_meta(tmp_path / "run" / "checkpoint.npz")["step"] == 3
    assert start("--resume", tmp_path / "run")[0] == 0
    assert without_time(tmp_path / "run" / "log.jsonl") == without_time(tmp_path / "whole" / "log.jsonl")


def test_nohup_stays(start, monkeypatch, tmp_path, handlers):
    """A run that was started to survive the terminal survives it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal_in_step(monkeypatch, signal.SIGHUP)
    assert start(*ONE, "--out", tmp_path / "run")[0] == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def by_hand(folder, monkeypatch):
    """(run, gradient, dataset) with a network that no file can hold: its sigma is nobody else's."""
    monkeypatch.setattr(runs, "plot_curves", lambda *arguments: None)
    rng, shapes = np.random.default_rng(0), (((2, 2, 3), 5), ((5,), 3))
    dense = [ep.Dense(rng.normal(0, 0.5, (np.prod(pre), post)), np.zeros(post), pre) for pre, post in shapes]
    network = ep.Network(dense, ep.SHIFTED_SIGMOID._replace(name="mine"), ep.SquaredError())
    config = experiment.Config(cost="squared-error", channels=(), train_images=8, test_images=8, final_test_images=8,
                               batch_size=4, epochs=1, lr=(0.1,), steps_free=4)
    images, labels = rng.random((8, 2, 2, 3)), np.arange(8) % 3
    dataset = ep.datasets.Dataset(images, labels, images, labels, tuple("abc"), "made up", "made up")
    run = runs.Run.started(folder, config, network, experiment.build_optimizer(config, network))
    return run, experiment.gradient_function(config), dataset


def test_a_network_that_no_file_can_hold_in_another_thread(tmp_path, monkeypatch, capsys):
    """Only the main thread may listen to signals; others train without. That there is no network.npz is said, and the rest is."""
    run, gradient, dataset = by_hand(tmp_path / "run", monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run.train, gradient, dataset, lambda images, rng: images).result(60)
        pool.submit(run.finish).result(60)
    assert "no network.npz" in capsys.readouterr().out and not (tmp_path / "run" / "network.npz").exists()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["smallest_cosine"] is not None


# --- folders ------------------------------------------------------------------------------------------------------------


def test_a_folder_has_one_owner(tmp_path):
    """Until it is released, or its process ends; in another process too."""
    lock = claim(tmp_path)
    assert "another process" in sentence(claim, tmp_path)
    ask = f"from ep.train.claim import claim; claim({str(tmp_path)!r}); print('got it')"
    ask_elsewhere = partial(subprocess.run, [sys.executable, "-c", ask], capture_output=True, text=True)
    assert "another process" in ask_elsewhere().stderr
    release(lock)
    assert "got it" in ask_elsewhere().stdout
    release(claim(tmp_path))  # what the dead process has left locks nobody out
    assert "cannot write to" in sentence(claim, tmp_path / "no folder")


def test_many_starts_at_once_get_a_folder_each(tmp_path):
    """Of the same second: nobody shares, nobody fails."""
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(new_folder, [tmp_path / "runs" / "now"] * 8))
    assert len(set(paths)) == 8 and all(path.is_dir() for path in paths)


def test_a_run_in_use_is_refused(start, tmp_path):
    """Resumed while it is running: the second says why, and changes nothing."""
    assert start(*ONE, "--out", tmp_path / "run")[0] == 0
    before, lock = (tmp_path / "run" / "checkpoint.npz").read_bytes(), claim(tmp_path / "run")
    assert "another process is training" in refused(start("--resume", tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes() == before
    release(lock)


def test_a_failed_start_is_no_run(start, tmp_path, monkeypatch):
    """What it left in the folder does not stop the next one, and nobody is told to resume it."""
    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_checkpoint", Mock(side_effect=EPError("the disk is full", exit_code=1)))
        code, out, err = start(*ONE, "--out", tmp_path / "run")
    assert code == 1 and "resume" not in out + err and "still good" not in err
    assert start(*ONE, "--out", tmp_path / "run")[0] == 0


def test_a_folder_of_something_else_is_no_run(start, tmp_path):
    (tmp_path / "config.json").write_text("of something else")
    err = refused(start(*ONE, "--out", tmp_path))
    assert "config.json" in err and (tmp_path / "config.json").read_text() == "of something else"


# --- sentences ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of one epoch, to look at and to copy."""
    folder = tmp_path_factory.mktemp("finished")
    write_images(folder / "images.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["job", *ONE, "--dataset", str(folder / "images.npz"), "--out", str(folder / "run")])
        patch.setattr(runs, "plot_curves", lambda *arguments: None)
        job.main()
    return folder / "run"


def test_resuming_the_wrong_thing(start, finished, tmp_path):
    """A file of the run, another folder for the output, other images; the same folder or images twice are no contradiction."""
    for options, named in ((["--resume", finished / "network.npz"], "is a file"), (["--resume", tmp_path], "No such file"),
                           (["--resume", finished, "--dataset", "synthetic"], "dataset (npz in the run, synthetic asked for)"),
                           (["--resume", finished, "--out", tmp_path / "other"], "leave --out")):
        err = refused(start(*options))
        assert named in err and "damaged" not in err
    assert list(tmp_path.iterdir()) == []
    same = "--out", finished / ".." / "run", "--dataset", finished.parent / "images.npz"
    assert start("--resume", finished, *same)[0] == 0


@pytest.mark.parametrize("change", [
    lambda a: a["x_test"][:1].fill(0), lambda a: a.update(x_test=a["x_test"][1:], y_test=a["y_test"][1:]),
    lambda a: a["x_train"][-1:].fill(0), lambda a: a.update(classes=np.array(["a", "b", "d"])), dict.clear])
def test_other_images_are_not_resumed(start, finished, change):
    """Other pictures to train or test on, other names of classes, or no file any more; with the right ones it goes on."""
    images = finished.parent / "images.npz"
    before, arrays = images.read_bytes(), dict(np.load(images))
    change(arrays)
    np.savez(images, **arrays) if arrays else images.unlink()
    code, _, err = start("--resume", finished)
    images.write_bytes(before)
    assert code == 2 and ("not the images and classes" in err or "images.npz any more" in err and "--data" in err), err
    assert start("--resume", finished)[0] == 0


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "mnist", "fashion-mnist"])
def test_resuming_downloads_nothing_unasked(monkeypatch, tmp_path, dataset):
    """Where the folder of the images is gone; only --data says where they may be downloaded to."""
    monkeypatch.setattr(datasets.download, "fetch", Mock(side_effect=EPError("would download")))
    monkeypatch.delenv("EP_OFFLINE", raising=False)
    config = experiment.Config(dataset=dataset, data=str(tmp_path / "gone"))
    for data, named in ((None, "pass their folder with --data"), (tmp_path / "here", "would download")):
        assert named in sentence(runs.images_of, config, SimpleNamespace(data=data, no_download=False))
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("options, code", [
    ("--lr 1e30 --warm-up 0", 1), ("--optimizer sgd --lr 1e12", 1), ("--optimizer sgd --lr 1e12 --cost squared-error", 1),
    ("--lr 10", 0), ("--lr 1e-9", 0)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_that_cannot_be_right_are_no_success(start, tmp_path, options, code):
    """Parameters that have exploded, or are not finite: exit code 1. Units that are stuck, or have learned nothing: a result."""
    found, _, err = start(*ONE, *options.split(), "--out", tmp_path / "run")
    assert found == code, err
    assert not code or "try a smaller learning rate or scale" in err


def test_the_output_folder_has_a_name(start, tmp_path, monkeypatch):
    (tmp_path / "runs").touch()
    monkeypatch.chdir(tmp_path)
    assert re.search(r"output folder runs.\d+-.*-synthetic-symmetric", refused(start(*ONE)))


@pytest.mark.parametrize("text", ["-1e-1", "-.5", "-1.", "-2E+3", "-0.1"])
def test_negative_numbers_on_the_command_line(text):
    assert job.parser("", {}).parse_args(["--beta", text]).beta == float(text)


# --- what a run counts ----------------------------------------------------------------------------------------------------


def step(images, loss=0.0, correct=0, steps=0.0, residual=0.0, converged=0.0, history=(), stuck=(), squares=None):
    return Step({}, loss, correct, images, steps, residual, converged, list(history), list(stuck), squares or {})


def test_the_numbers_of_an_epoch():
    """Means over images, norms and shares over steps; the largest residual; the first step that passed 1e-6, where one did."""
    totals = {}
    runs.accumulate(totals, step(30, 2.0, 3, 4.0, 0.1, 0.5, [(1, 0.1), (3, 1e-7), (4, 1e-8)], [0.25],
                                 {"1.W": 9.0, "1.b": 16.0}), 1.5)
    runs.accumulate(totals, step(10, 6.0, 5, 8.0, 0.01, 1.0, [(8, 0.01)], [0.75], {"1.W": 1.0, "1.b": 0.0}), 2.5)
    assert runs.averages(totals) == pytest.approx(dict(
        train_loss=3.0, train_accuracy=0.2, seconds=4.0, steps_free=5.0, residual=0.1, converged=0.625, settled_step=3.0,
        gradient_norm_1=3.0, stuck_1=0.5))


@pytest.mark.parametrize("steps", [100, 50, 25, 10])
def test_the_radius_is_looked_at_every_so_many_updates(monkeypatch, steps):
    """However short the epochs are."""
    run, looks = object.__new__(runs.Run), []
    monkeypatch.setattr(runs.Run, "limit_radius", lambda self: looks.append(self.epoch * steps + self.step))
    vars(run).update(config=experiment.Config(radius_limit=0.9), world=runs.World(), saved_at=time.monotonic(), steps=steps,
                     clock=time.monotonic(), warned=set(), bar=Mock(), totals={})
    for run.epoch in range(100 // steps):
        for number in range(steps):
            run.on_step(number, step(2))
    assert looks == [20, 40, 60, 80, 100]


def test_a_result_has_the_seconds_of_all_epochs(start, tmp_path):
    assert start(*TINY, "--epochs", 2, "--out", tmp_path / "run")[0] == 0
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(log) == 2 and result["seconds"] == pytest.approx(sum(line["seconds"] for line in log))




# --- more epochs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], pytest.param(["--optimizer", "sgd", "--connections", "asymmetric"], marks=slow),
                                     pytest.param(["--connections", "asymmetric"], marks=slow)])
def test_a_finished_run_is_extended(start, tmp_path, monkeypatch, options):
    """More epochs for the same folder: the log goes on, the rate is annealed to the new end, and every file says so.
    Until it is finished, the outcome of the shorter run has another name."""
    run = tmp_path / "run"
    assert start(*TINY, *options, "--out", run)[0] == 0
    before, old = read_npz(run / "checkpoint.npz"), without_time(run / "log.jsonl")
    with monkeypatch.context() as patch:
        signal_in_step(patch, signal.SIGTERM)
        assert start("--resume", run, "--epochs", 4)[0] == 143
    assert not (run / "result.json").exists() and not (run / "network.npz").exists()
    assert json.loads((run / "result-2-epochs.json").read_text())["epochs"] == 2 and ep.load(run / "network-2-epochs.npz")
    code, out, err = start("--resume", run)
    assert code == 0, err
    log, result = without_time(run / "log.jsonl"), json.loads((run / "result.json").read_text())
    assert [line["epoch"] for line in log] == [1, 2, 3, 4] and log[:2] == old and result["epochs"] == 4
    after = read_npz(run / "checkpoint.npz")
    assert all((after[key] != before[key]).any() for key in after if key.startswith("parameter/"))  # not at a rate of 0
    for settings in (json.loads((run / "config.json").read_text()), runs.read_meta(run / "checkpoint.npz")["config"]):
        assert (settings["epochs"], settings["anneal_epochs"], settings["extended"]) == (4, 4, [2])
    for key in (key for key in log[0] if key.startswith("distance_")):  # Kolen-Pollack: by weight decay alone, as predicted
        assert log[3][key] == pytest.approx(log[3][key.replace("distance", "decay")], rel=1e-3)
        assert log[3][key] < log[1][key]
    assert start("--resume", run)[0] == 0 and without_time(run / "log.jsonl") == log


def test_only_finished_runs_are_extended(start, tmp_path, monkeypatch):
    """And none is shortened: resuming an unfinished run stays bit for bit."""
    with monkeypatch.context() as patch:
        signal_in_step(patch, signal.SIGTERM)
        assert start(*TINY, "--out", tmp_path / "run")[0] == 143
    err = refused(start("--resume", tmp_path / "run", "--epochs", 5))
    assert "epochs (2 in the run, 5 asked for)" in err and "finished" in err
    assert start("--resume", tmp_path / "run")[0] == 0
    assert "shortened to 1" in refused(start("--resume", tmp_path / "run", "--epochs", 1))


def test_what_an_extension_does_to_the_annealing():
    """To the last epoch: to the new one. To another: as it was."""
    config = experiment.Config(epochs=3)
    more = experiment.extended(config, 5)
    assert (more.epochs, more.anneal_epochs, more.extended) == (5, 5, (3,))
    assert experiment.extended(more, 9).extended == (3, 5) and experiment.extended(config, 3) is config
    assert experiment.extended(experiment.Config(epochs=120, anneal_epochs=100), 200).anneal_epochs == 100
