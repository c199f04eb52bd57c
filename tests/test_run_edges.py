"""The edges of a run: output that nobody reads, signals, folders that are claimed, and sentences that name the cause."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_main_job import EXAMPLES, TINY, job, start, synthetic_images, without_time  # noqa: F401 (start is a fixture)

import ep
from ep import EPError
from ep.datasets import synthetic
from ep.npz import read_npz
from ep.train import curves, experiment, machine, runs
from ep.train.claim import LOCK, claim, new_folder, release

ONE = [*TINY, "--epochs", "1"]
JOB = f"{sys.executable} {EXAMPLES / 'cifar10_sym_ep.py'} {' '.join(ONE)} --dataset images.npz --out run"


# --- optional output ----------------------------------------------------------------------------------------------------


def in_shell(folder, script, **environment):
    """(exit code of the job, stdout, stderr): $JOB in `script` is the main job on a few images, whose run folder is `run`."""
    rng = np.random.default_rng(0)
    x = {f"x_{split}": rng.integers(0, 256, (48, 32, 32, 3), dtype=np.uint8) for split in ("train", "test")}
    np.savez(folder / "images.npz", **x, y_train=np.arange(48) % 3, y_test=np.arange(48) % 3)
    whole = f"set -o pipefail; {script.replace('$JOB', JOB)}"
    done = subprocess.run(["bash", "-c", whole], cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=60,
                          env={**os.environ, "PYTHONPATH": str(Path(ep.__file__).parents[1]), **environment})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("script, environment, warned", [
    ("$JOB", dict(MPLBACKEND="nonsense"), "curves.png"), ("$JOB 2>&-", {}, None), ("$JOB 2>/dev/full", {}, "standard error"),
    ("$JOB | head -1", {}, "standard output"), ("$JOB >/dev/full", {}, "standard output"), ("$JOB >&- 2>&-", {}, None)])
def test_output_that_nobody_reads(tmp_path, script, environment, warned):
    """A backend that is none, closed and full streams, `| head`: the run is finished, and it is said once, where it can be."""
    code, out, err = in_shell(tmp_path, script, **environment)
    assert code == 0, err
    assert (tmp_path / "run" / "result.json").exists() and "Traceback" not in out + err and "BrokenPipe" not in err
    if warned:
        assert (out + err).count("WARNING") == 1 and warned in (out + err).split("WARNING")[1]


@pytest.mark.slow
def test_names_that_matplotlib_or_ascii_cannot_print(tmp_path):
    """A data set called $$, with characters that the terminal does not have: trained, drawn, and printed with escapes."""
    script = "cp images.npz '$$\u00e9.npz'; $JOB --dataset './$$\u00e9.npz'"
    code, out, err = in_shell(tmp_path, script, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert code == 0, err
    assert "$$\\xe9.npz" in out and (tmp_path / "run" / "curves.png").exists() and "WARNING: curves" not in out


def test_a_picture_is_worth_no_run(start, tmp_path, monkeypatch):  # noqa: F811
    """Whatever drawing it raises: one warning for all epochs."""
    def broken(*arguments):
        raise RuntimeError("no pencil\nat all")

    monkeypatch.setattr(runs, "plot_curves", broken)
    code, out, err = start(*TINY, "--out", tmp_path / "run")
    assert code == 0 and (tmp_path / "run" / "result.json").exists() and (out + err).count("no pencil") == 1


def test_titles_are_no_formulas(tmp_path):
    curves.plot_curves([json.loads(line) for line in FINISHED_LOG], "$$ and \\frac{", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


FINISHED_LOG = ['{"epoch": 1, "train_accuracy": 0.1, "test_accuracy": 0.1, "fixed_point_accuracy": 0.1, "train_loss": 2.0, '
                '"test_loss": 2.0, "residual": 0.1, "cosine_1": 1.0, "gradient_norm_1": 1.0, "stuck_1": 0.0}']


class Broken(io.StringIO):
    """A stream that fails as it is told; `calls` counts."""

    def __init__(self, error):
        super().__init__()
        self.error, self.calls = error, 0

    def write(self, text):
        self.calls += 1
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(5, "Input/output error"),
                                   ValueError("I/O operation on closed file")])
def test_a_stream_that_fails_is_left(monkeypatch, error):
    """It is written to once more at most, the other stream says so once, and both are put back."""
    out, err = Broken(error), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with machine.lasting_output():
        for _ in range(3):
            print("hello", flush=True)
    assert out.calls == 1 and err.getvalue().count("WARNING") == 1 and "standard output" in err.getvalue()
    assert (sys.stdout, sys.stderr) == (out, err)


def test_both_streams_may_fail(monkeypatch):
    """And a handler that prints while its stream is being written to is no error."""
    monkeypatch.setattr(sys, "stdout", Broken(OSError(5, "x")))
    monkeypatch.setattr(sys, "stderr", Broken(OSError(5, "x")))
    with pytest.raises(SystemExit) as stop:
        machine.run(partial(ep.mlp, 784))
    assert stop.value.code == 2
    monkeypatch.setattr(sys, "stdout", stream := Broken(RuntimeError("reentrant call")))
    with machine.lasting_output():
        print("hello")
    assert sys.stdout is stream


def test_characters_that_a_stream_does_not_have(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with machine.lasting_output():
        print("caf\u00e9")
    assert raw.getvalue() == b"caf\\xe9\n"


# --- signals ------------------------------------------------------------------------------------------------------------


def raising(monkeypatch, number, at=1):
    """The signal arrives in the given training step."""
    plain, calls = runs.accumulate, []

    def accumulate(*arguments):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(number)
        plain(*arguments)

    monkeypatch.setattr(runs, "accumulate", accumulate)


@pytest.fixture
def handlers(monkeypatch):
    """Handlers of our own, which must be there again after a run."""
    def handler(number, frame):
        raise AssertionError("the run does not listen")

    before = {number: signal.signal(number, handler) for number in runs.SIGNALS}
    yield handler
    for number, old in before.items():
        signal.signal(number, old)


def main(monkeypatch, capsys, *options):
    """(exit code, stdout, stderr) like `start`, but handlers are left as the run leaves them."""
    monkeypatch.setattr(synthetic, "synthetic_images", synthetic_images)
    monkeypatch.setattr(runs, "plot_curves", lambda *arguments: None)
    monkeypatch.setattr(sys, "argv", ["job", *map(str, options)])
    try:
        machine.run(job.main)
        code = 0
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("number", runs.SIGNALS)
def test_signals_save_and_handlers_are_put_back(monkeypatch, capsys, tmp_path, handlers, number):
    """SIGHUP too: a terminal that is closed; after a run that was stopped, that failed, and that went through."""
    raising(monkeypatch, number, at=2)
    code, out, err = main(monkeypatch, capsys, *TINY, "--out", tmp_path / "run")
    assert code == 128 + number and runs.read_meta(tmp_path / "run" / "checkpoint.npz")["step"] == 2, err
    assert all(signal.getsignal(one) is handlers for one in runs.SIGNALS)
    assert not (tmp_path / "run" / LOCK).exists()
    assert main(monkeypatch, capsys, "--resume", tmp_path / "run")[0] == 0
    assert all(signal.getsignal(one) is handlers for one in runs.SIGNALS)


def test_nohup_stays(monkeypatch, capsys, tmp_path, handlers):
    """A run that was started to survive the terminal survives it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raising(monkeypatch, signal.SIGHUP)
    assert main(monkeypatch, capsys, *ONE, "--out", tmp_path / "run")[0] == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def by_hand(folder, epochs=1, network=None):
    """(run, gradient, dataset) with a network that no builder made."""
    rng = np.random.default_rng(0)
    if network is None:
        shapes = ((2, 2, 3), 5), ((5,), 3)
        dense = [ep.Dense(rng.normal(0, 0.5, (np.prod(pre), post)), np.zeros(post), pre) for pre, post in shapes]
        network = ep.Network(dense, ep.SIGMOID, ep.SquaredError())
    config = experiment.Config(cost="squared-error", channels=(), train_images=8, test_images=8, final_test_images=8,
                               batch_size=4, epochs=epochs, lr=(0.1,), steps_free=4)
    images, labels = rng.random((8, 2, 2, 3)), np.arange(8) % 3
    dataset = ep.datasets.Dataset(images, labels, images, labels, tuple("abc"), "made up", "made up")
    run = runs.Run.started(folder, config, network, experiment.build_optimizer(config, network))
    return run, experiment.gradient_function(config), dataset


def test_a_network_without_a_recipe_is_trained(tmp_path, capsys):
    """Its distance to equilibrium is logged, its outcome written, and that there is no network.npz is said."""
    run, gradient, dataset = by_hand(tmp_path / "run")
    run.train(gradient, dataset, lambda images, rng: images)
    run.finish()
    assert "no network.npz" in capsys.readouterr().out and not (tmp_path / "run" / "network.npz").exists()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["smallest_cosine"] is not None


def test_a_run_in_another_thread(tmp_path):
    """Only the main thread may listen to signals; the others train without."""
    run, gradient, dataset = by_hand(tmp_path / "run")
    failures = []

    def work():
        try:
            run.train(gradient, dataset, lambda images, rng: images)
            run.finish()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not failures and (tmp_path / "run" / "result.json").exists()


# --- folders ------------------------------------------------------------------------------------------------------------


def test_a_folder_has_one_owner(tmp_path):
    """Until it is released, or its process ends; in another process too."""
    lock = claim(tmp_path)
    with pytest.raises(EPError, match="another process"):
        claim(tmp_path)
    ask = f"from ep.train.claim import claim; claim({str(tmp_path)!r}); print('got it')"
    ask_elsewhere = partial(subprocess.run, [sys.executable, "-c", ask], capture_output=True, text=True)
    assert "another process" in ask_elsewhere().stderr
    release(lock)
    assert list(tmp_path.iterdir()) == [] and "got it" in ask_elsewhere().stdout
    release(claim(tmp_path))  # what the dead process has left locks nobody out


def test_many_starts_at_once_get_a_folder_each(tmp_path):
    """Of the same second: nobody shares, nobody fails."""
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(new_folder(tmp_path / "runs" / "now"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 8 and all(path.is_dir() for path in paths)


def test_two_runs_of_the_same_second(start, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "default_folder", lambda config: Path("runs/now"))
    for _ in range(2):
        assert start(*ONE)[0] == 0
    assert [(tmp_path / "runs" / name / "result.json").exists() for name in ("now", "now-2")] == [True, True]


@pytest.mark.parametrize("options", ["--out", "--resume"])
def test_a_run_in_use_is_refused(start, tmp_path, options):  # noqa: F811
    """Started or resumed twice at the same time: the second says why, and changes nothing."""
    assert start(*ONE, "--out", tmp_path / "run")[0] == 0
    before, lock = (tmp_path / "run" / "checkpoint.npz").read_bytes(), claim(tmp_path / "run")
    code, _, err = start(*(ONE if options == "--out" else ()), options, tmp_path / "run")
    assert code == 2 and "another process is training" in err
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes() == before
    release(lock)


def test_a_failed_start_is_no_run(start, tmp_path, monkeypatch):  # noqa: F811
    """What it left in the folder does not stop the next one, and nobody is told to resume it."""
    def full(*arguments):
        raise EPError("the disk is full", exit_code=1)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_checkpoint", full)
        code, out, err = start(*ONE, "--out", tmp_path / "run")
    assert code == 1 and "resume" not in out + err and "still good" not in err
    assert (tmp_path / "run" / "config.json").exists()
    assert start(*ONE, "--out", tmp_path / "run")[0] == 0
    foreign = tmp_path / "project"
    foreign.mkdir()
    for text in ('{"name": "of something else"}', "[1]", "no JSON"):
        (foreign / "config.json").write_text(text)
        code, _, err = start(*ONE, "--out", foreign)
        assert code == 2 and "config.json" in err and (foreign / "config.json").read_text() == text


# --- sentences ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of one epoch, to look at and to copy."""
    folder = tmp_path_factory.mktemp("finished")
    assert in_shell(folder, "$JOB")[0] == 0
    return folder / "run"


def test_what_is_wrong_with_a_file_is_said(finished, tmp_path, monkeypatch):
    """A folder for a file, a file for a folder, none, one that may not be read: none of them is damaged."""
    network = finished / "network.npz"
    for path, named in ((finished, "is a folder"), (network / "x", "a file stands"), (finished / "none.npz", "no such file")):
        with pytest.raises(EPError, match=named) as caught:
            ep.load(path)
        assert "damaged" not in str(caught.value)

    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "load", refused)
    with pytest.raises(EPError, match="cannot be read: Permission denied"):
        ep.load(network)


def test_resuming_the_wrong_thing(start, finished, tmp_path):  # noqa: F811
    """A file of the run, another folder for the output, fewer epochs; the same folder twice is no contradiction."""
    for options, named in ((["--resume", finished / "network.npz"], "is a file"), (["--resume", tmp_path], "no such file"),
                           (["--resume", finished, "--out", tmp_path / "other"], "leave --out")):
        code, _, err = start(*options)
        assert code == 2 and named in err and "damaged" not in err
    assert list(tmp_path.iterdir()) == []
    assert start("--resume", finished, "--out", finished / ".." / "run")[0] == 0


@pytest.mark.parametrize("error, said", [(MemoryError("8 GiB"), "out of memory"), (KeyboardInterrupt(), "interrupted")])
def test_no_checkpoint_is_promised_where_there_is_none(start, tmp_path, monkeypatch, error, said):  # noqa: F811
    """Before the first one, and in programs that make none."""
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(job.loop, "rehearse", fail)
    code, _, err = start(*ONE, "--out", tmp_path / "run")
    assert code in (1, 130) and said in err and "checkpoint" not in err


# --- more epochs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--optimizer", "sgd", "--connections", "asymmetric"], ["--connections", "asymmetric"]])
def test_a_finished_run_is_extended(start, tmp_path, options):  # noqa: F811
    """More epochs for the same folder: the log goes on, the rate is annealed to the new end, and every file says so."""
    run = tmp_path / "run"
    assert start(*TINY, *options, "--out", run)[0] == 0
    before, old = read_npz(run / "checkpoint.npz"), without_time(run / "log.jsonl")
    code, out, err = start("--resume", run, "--epochs", 4)
    assert code == 0 and "2 to 4 epochs" in out, err
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


def test_only_finished_runs_are_extended(start, tmp_path, monkeypatch):  # noqa: F811
    """And none is shortened: resuming an unfinished run stays bit for bit."""
    with monkeypatch.context() as patch:
        raising(patch, signal.SIGTERM)
        assert start(*TINY, "--out", tmp_path / "run")[0] == 143
    code, _, err = start("--resume", tmp_path / "run", "--epochs", 5)
    assert code == 2 and "epochs (2 in the run, 5 asked for)" in err and "finished" in err
    assert start("--resume", tmp_path / "run")[0] == 0
    code, _, err = start("--resume", tmp_path / "run", "--epochs", 1)
    assert code == 2 and "2" in err and "shortened to 1" in err


def test_what_an_extension_does_to_the_annealing():
    """To the last epoch: to the new one. To another: as it was."""
    config = experiment.Config(epochs=3)
    more = experiment.extended(config, 5)
    assert (more.epochs, more.anneal_epochs, more.extended) == (5, 5, (3,))
    assert experiment.extended(more, 9).extended == (3, 5) and experiment.extended(config, 3) is config
    assert experiment.extended(experiment.Config(epochs=120, anneal_epochs=100), 200).anneal_epochs == 100
