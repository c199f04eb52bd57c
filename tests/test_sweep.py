"""sweep.py: the trainings that are asked for, each with its settings, trained once, and a table that is true of them."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ep
from ep.train import commandline as cli
from ep.train.checkpoint import read_meta
from ep.train.claim import claim, release

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "laboratory"))
import sweep  # noqa: E402


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """run(options) -> (exit code, stdout, stderr) of the sweep in this process, on 40 made-up images in tmp_path."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (56, 8, 8, 3), dtype=np.uint8), np.arange(56) % 2
    np.savez(tmp_path / "images.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    monkeypatch.chdir(tmp_path)

    def run(options):
        words = shlex.split(f"--data images.npz --images 24 --validation-images 16 --out out {options}")
        monkeypatch.setattr(sys, "argv", ["sweep.py", *words])
        code = 0
        try:
            cli.run(sweep.main)
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


SHARED = "-- --preset cpu --channels 2 3 --scale 2 --epochs 1 --batch-size 8"


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_sweep(run, monkeypatch, tmp_path):
    """Four real trainings: each has its own settings, the table their numbers; a second call trains none."""
    code, out, err = run(f"--grid beta=0.1,0.5 seed=0,1 {SHARED}")
    assert code == 0, err
    rows = rows_of(tmp_path / "out" / "table.csv")
    assert [(row["beta"], row["seed"]) for row in rows] == [("0.1", "0"), ("0.1", "1"), ("0.5", "0"), ("0.5", "1")]
    for row in rows:
        files = (tmp_path / "out" / row["folder"] / f"{name}.json" for name in ("config", "result"))
        config, result = (json.loads(file.read_text()) for file in files)
        assert (config["beta"], config["seed"], config["validation_images"]) == (float(row["beta"]), int(row["seed"]), 16)
        assert (config["train_images"], config["channels"]) == (24, [2, 3]) and "held out" in result["source"]
        assert float(row["held_out_accuracy"]) == result["test_accuracy"] and result["test_images"] == 16
        assert float(row["smallest_cosine"]) == result["smallest_cosine"]
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    accuracy = {beta: [float(row["held_out_accuracy"]) for row in rows if row["beta"] == beta] for beta in ("0.1", "0.5")}
    best = max(accuracy, key=lambda beta: np.mean(accuracy[beta]))
    assert len(lines) == 4 and lines[2].startswith(f"| {best} | 2 | **{np.mean(accuracy[best]):.1%}**"), lines
    assert (tmp_path / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(sweep.trainings, "process_of", lambda training: pytest.fail("trained again"))
    assert run(f"--grid beta=0.1,0.5 seed=0,1 {SHARED}")[0] == 0
    assert (tmp_path / "out" / "table.md").read_text().splitlines() == lines
    code, _, err = run(f"--grid beta=0.1,0.5 seed=0,1 {SHARED} --weight-decay 0.3")
    assert code == 2 and "holds a training with other settings (weight_decay): choose another --out" in err


def pretended(monkeypatch, failing=()):
    """Trainings are not made: each leaves what it would leave; returns the list of their folders' names."""
    made = []

    def work(trainings, workers):
        for training in trainings:
            training.folder.mkdir(parents=True, exist_ok=True)
            made.append(training.folder.name)
            if training.folder.name in failing:
                (training.folder / "output.txt").write_text("...\nerror: the gradient of 1.W is not finite\n")
            else:
                (training.folder / "result.json").write_text(json.dumps(dict.fromkeys(sweep.NUMBERS.values(), 0.5)))

    monkeypatch.setattr(sweep.trainings, "work", work)
    return made


def test_a_training_that_fails_is_a_row(run, monkeypatch, tmp_path):
    """The others are made, and the row says why; where all fail, so does the sweep."""
    pretended(monkeypatch, failing=["lr=9"])
    code, out, err = run(f"--grid lr=0.1,9 {SHARED}")
    assert code == 0 and "the gradient of 1.W is not finite" in (tmp_path / "out" / "table.md").read_text().splitlines()[3]
    assert rows_of(tmp_path / "out" / "table.csv")[1]["failed"] == "the gradient of 1.W is not finite"
    code, _, err = run(f"--grid lr=9 {SHARED}")
    assert code == 1 and "every training failed" in err


@pytest.mark.slow
def test_a_sweep_that_is_stopped_stops_its_trainings(run, tmp_path):
    """SIGTERM: the training saves and ends, nobody holds its folder any more, and the same command goes on with it."""
    options = shlex.split("--data images.npz --images 24 --validation-images 16 --out out --grid beta=0.1")
    command = [sys.executable, sweep.__file__, *options, *shlex.split(SHARED.replace("--epochs 1", "--epochs 2000"))]
    environment = os.environ | dict(PYTHONPATH=str(Path(ep.__file__).parents[1]))
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as sweeping:
        folder = tmp_path / "out" / "beta=0.1"
        while sweeping.poll() is None and not ((folder / "log.jsonl").exists() and (folder / "log.jsonl").stat().st_size):
            time.sleep(0.05)
        sweeping.send_signal(signal.SIGTERM)
        assert sweeping.wait(30) == 143
    release(claim(folder))
    log = (folder / "log.jsonl").read_text()
    assert 0 < log.count("\n") <= read_meta(folder / "checkpoint.npz")["epoch"] + 1 < 2000


def test_values_as_words():
    """Several numbers of one option, and options without a value."""
    parser = sweep.job.parser("", {})
    settings = {action.dest: action for action in parser._actions}
    assert sweep.as_words("lr", "3e-3 9e-3", settings) == ["--lr", "3e-3", "9e-3"]
    assert sweep.as_words("flip", "yes", settings) + sweep.as_words("flip", "no", settings) == ["--flip", "--no-flip"]
    with pytest.raises(ep.EPError, match="flip is yes or no"):
        sweep.as_words("flip", "maybe", settings)


@pytest.mark.parametrize("options, sentence", [
    ("--grid beta", "expected NAME=VALUE,VALUE, got 'beta'"),
    ("--grid colour=red", "colour is no setting that can be swept: expected one of"),
    ("--grid nudging=symmetric,sideways", "invalid choice: 'sideways'"),
    ("--grid beta=0.1,0", "beta must be a finite number other than 0"),
    ("--grid optimizer=sgd,adam warm-up=3", "--warm-up is for --optimizer adam"),
    ("--grid threads=1", "threads is no setting"), ("--grid beta=0.1 beta=0.2", "beta is given twice"),
    ("--grid lr=0.1 -- --lr=0.2", "lr is swept, and given behind the --, too"),
    ("--grid lr=0.1 -- --thr 1", "--threads is not for behind the --")])
def test_mistakes_end_before_the_first_training(run, monkeypatch, tmp_path, options, sentence):
    """Also one that only the last of the trainings makes: one sentence, exit code 2, and nothing is written."""
    made = pretended(monkeypatch)
    code, _, err = run(options if " -- " in options else f"{options} {SHARED}")
    assert (code, made) == (2, []) and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
