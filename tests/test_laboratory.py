"""The laboratory: how its trainings are run, and the scripts that have no file of tests of their own."""

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import ep
from ep.radius import calibrate_radius

LABORATORY = Path(__file__).parents[1] / "examples" / "laboratory"
sys.path.insert(0, str(LABORATORY))
import trainings  # noqa: E402


def test_each_starts_after_what_it_needs(tmp_path):
    """Real processes: two threads are never exceeded, a failed one is told by its last words, and who needs it is left out."""
    ended = {}

    def training(name, code, *needs, threads=1):
        return trainings.Training(tmp_path / name, lambda: [sys.executable, "-c", code], partial(ended.setdefault, name),
                                  tuple(tmp_path / f"{need}.txt" for need in needs), threads)

    first = f"open({str(tmp_path / 'first.txt')!r}, 'w')"
    trainings.work([training("waits", "pass", "first", threads=9), training("first", first), training("never", "pass", "fails"),
                    training("fails", "print(1); raise SystemExit('error: no images')")], workers=2)
    assert list(ended.items())[-1] == ("waits", 0) and ended == dict(first=0, fails=1, waits=0)
    assert trainings.last_words(tmp_path / "fails") == "no images"


class Endless:
    """A process that never ends, unless it is told to."""

    started = []

    def __init__(self, command, **options):
        self.signals = []
        self.started.append(self)

    def poll(self):
        return None

    def terminate(self):
        self.signals.append(signal.SIGTERM)

    def wait(self):
        assert self.signals


def test_what_is_running_is_told_to_save(monkeypatch, tmp_path):
    """By SIGTERM; no more are started than there are workers, and the handler is the old one again."""
    monkeypatch.setattr(trainings.subprocess, "Popen", Endless)
    monkeypatch.setattr(Endless, "started", [])
    handler = signal.getsignal(signal.SIGTERM)
    many = [trainings.Training(tmp_path / str(n), lambda: [], str) for n in range(3)]
    monkeypatch.setattr(trainings.time, "sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit, match="143"):
        trainings.work(many, workers=2)
    assert [process.signals for process in Endless.started] == [[signal.SIGTERM]] * 2
    assert signal.getsignal(signal.SIGTERM) == handler


def test_an_interrupted_training_is_resumed(tmp_path):
    """With its own settings: none of its options is given again."""
    assert trainings.main_job(tmp_path, ["--beta", "1"], None)[3:7] == ["--beta", "1", "--out", tmp_path]
    (tmp_path / "checkpoint.npz").touch()
    assert trainings.main_job(tmp_path, ["--beta", "1"], "DIR")[3:7] == ["--resume", tmp_path, "--data", "DIR"]


def called(*words):
    """What a script of the laboratory, or of Python's -m, prints."""
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_which_side(monkeypatch, capsys, tmp_path):
    """A row for every nudging, from its trainings; a second call trains nothing. The two sides are different trainings."""
    import which_side
    monkeypatch.setattr(which_side, "IMAGES", "--images 96 --validation-images 32".split())
    monkeypatch.setattr(which_side, "TRAINING", [*which_side.TRAINING, *"--dataset synthetic --epochs 1".split()])
    monkeypatch.setattr(which_side, "SEEDS", (0,))
    monkeypatch.setattr(sys, "argv", ["which_side.py", "--out", str(tmp_path)])
    which_side.main()
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "which_side.jsonl").read_text().splitlines()]
    assert len({row["gradient_norm_1"] for row in rows}) == len(rows) == len(printed.splitlines()) - 2 == 11
    assert (tmp_path / "which_side.png").exists()
    monkeypatch.setattr(trainings, "process_of", lambda training: pytest.fail("trained again"))
    which_side.main()
    assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_noisy_training(monkeypatch, capsys, tmp_path):
    """A line for each device that the options choose, from trainings that differ."""
    import noisy_training
    monkeypatch.setattr(noisy_training, "ROWS", [noisy_training.ROWS[k] for k in (2, 3, 9, 11)])  # the second has another gain
    monkeypatch.setattr(sys, "argv", ["x.py", *"--channels 2 3 4 --train-images 16 --test-images 8 --epochs 1 --batch-size 8 "
                                      "--gains 1 --out".split(), str(tmp_path)])
    noisy_training.main()
    rows = [json.loads(line) for line in (tmp_path / "noisy_training.jsonl").read_text().splitlines()]
    assert len({row["smallest_cosine"] for row in rows}) == len(rows) == 3 and {row["updates"] for row in rows} == {2}
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_one_sided_states(monkeypatch, capsys, tmp_path):
    """At a large beta switches change: frozen ones are nearer to the exact gradient, and those of deviations are frozen."""
    import one_sided_states
    images = ep.datasets.load("synthetic")
    network = ep.convnet([6, 8, 8], (32, 32, 3), 10, scale=(6.0, 1.0, 1.0, 4.0), seed=3)
    calibrate_radius(network, images.normalise(images.test_images[:12]), 0.8)
    network.save(tmp_path / "net.npz")
    monkeypatch.setattr(one_sided_states, "BETAS", (1e-4, 1.0))
    monkeypatch.setattr(sys, "argv", ["x.py", str(tmp_path / "net.npz"), *"--dataset synthetic --images 12".split()])
    one_sided_states.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    small, large = ({" ".join(words[2:-3]): float(words[-3]) for words in rows if float(words[1]) == beta}
                    for beta in one_sided_states.BETAS)
    assert len(rows) == 2 * len(small) == 12
    assert small["no drift: settled first"] > 0.95 > small["states, as in training"]  # drift, divided by a small beta
    assert large["states, as in training"] < large["frozen switches"] - 0.02


@pytest.mark.slow
def test_gradient_quality(tmp_path):
    """On the network of a run, with the run's own phases: more steps are nearer to the converged gradient."""
    options = "--dataset synthetic --preset cpu --channels 4 4 4 4 --train-images 48 --test-images 32 --epochs 1"
    called("-m", "ep.train", *options.split(), "--out", tmp_path / "run")
    called(LABORATORY / "gradient_quality.py", "--run", tmp_path / "run", "--out", tmp_path, "--threads", 1,
           *"--images 20 --steps-free 3 300 --steps-nudged 2 60 --beta 0.025 0.1".split())
    found = json.loads((tmp_path / "gradient_quality.json").read_text())
    assert [(row["T"], row["K"], row["beta"]) for row in found["table"]] == [
        (T, K, beta) for T in (3, 300) for K in (2, 60) for beta in (0.025, 0.1)]
    assert [found["settings"][key] for key in ("schedule", "schedule_nudged", "nudged_phases")] == ["up", "down", "deviations"]
    assert found["table"][1]["batch"] < found["table"][6]["batch"] <= 1.0000001


@pytest.mark.slow
def test_benchmark(monkeypatch, capsys, tmp_path):
    """A row for every convolution and training step of small networks, with the shares of sgemm that are drawn."""
    import benchmark
    monkeypatch.setattr(benchmark, "NETWORKS", {name: lambda: ep.convnet([4, 4, 4, 4]) for name in benchmark.NETWORKS})
    monkeypatch.setattr(benchmark, "machine", lambda args: dict(sgemm={1: 100.0}, blas="made up"))
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--quick", "--repeat", "1", "--threads", "1", "--out", str(tmp_path)])
    benchmark.main()
    found = json.loads((tmp_path / "benchmark.json").read_text())
    names = [row["name"] for row in found["training_steps"]]
    assert len(names) == len(set(names)) == 2 * (len(benchmark.PATHS) + 1)
    assert all(0 < row["share"] < 10 for row in found["operations"] + found["training_steps"]) and len(found["operations"]) > 20
    assert (tmp_path / "benchmark.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["benchmark", "gpu_report", "gradient_quality", "paper_table", "sweep", "which_side"])
def test_every_script_starts(name):
    assert "--out" in called(LABORATORY / f"{name}.py", "--help")
