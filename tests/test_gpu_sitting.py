"""gpu_sitting.py, on a CPU: files that travel in parts, and trainings that fit into a given time."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import ep
from ep.train import job as main_job

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "laboratory"))
import gpu_sitting  # noqa: E402


@pytest.fixture
def sitting(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["gpu_sitting.py", *map(str, words)])
        gpu_sitting.main()
        return capsys.readouterr().out
    return run


@pytest.mark.parametrize("size", [0, 1, 1000, 1001])
def test_files_in_parts(sitting, monkeypatch, tmp_path, size):
    """They are put together bit for bit, in the order of their numbers; a missing or damaged part is noticed."""
    monkeypatch.setattr(gpu_sitting, "SIZE", 50)
    data = np.random.default_rng(size).bytes(size)
    (tmp_path / "images.npz").write_bytes(data)
    sitting("split", tmp_path / "images.npz", "--out", tmp_path / "parts")
    parts = sorted((tmp_path / "parts").glob("*.part-*"))
    assert len(parts) == max(1, -(-size // 50)) and all(part.stat().st_size <= 50 for part in parts)
    sitting("join", tmp_path / "parts", "--out", tmp_path / "again")
    assert (tmp_path / "again" / "images.npz").read_bytes() == data
    parts[-1].write_bytes(b"else")
    with pytest.raises(ep.EPError, match="a part is missing or damaged"):
        sitting("join", tmp_path / "parts", "--out", tmp_path / "third")
    assert not (tmp_path / "third" / "images.npz").exists()


@pytest.mark.parametrize("name", gpu_sitting.TRAININGS)
def test_every_training_is_one_of_the_main_job(name):
    """And on a GPU it can be recorded: a fixed number of steps."""
    asked = main_job.parser("", {}).parse_args(gpu_sitting.TRAININGS[name].split())
    config = main_job.config_of(asked, ep.datasets.load("synthetic"), "cupy")
    assert config.tolerance == 0 and config.chunk == config.batch_size == 128 and config.feedback in (1.0, 0.001)


def test_as_many_epochs_as_fit(sitting, monkeypatch, tmp_path):
    """From a step of 0.1 s and an evaluation of 2 s: an epoch of 40 updates takes 6 s, and 48 s are left of a minute."""
    asked = []

    def train(command, **options):
        words = dict(zip(command, command[1:]))
        asked.append(words)
        folder = Path(words["--out"])
        folder.mkdir(parents=True)
        updates = int(words.get("--train-images", 5120)) // 128
        (folder / "log.jsonl").write_text(json.dumps(dict(seconds=0.1 * updates + 2.0)) + "\n")
        return type("Done", (), dict(returncode=0))

    monkeypatch.setattr(gpu_sitting.subprocess, "run", train)
    monkeypatch.setattr(gpu_sitting, "settings", lambda recipe, args: (128, 5120))
    out = sitting("train", "full-states", "--minutes", 1, "--out", tmp_path / "out")
    assert "8 epochs of 6.0 s fit" in out and [words.get("--train-images") for words in asked] == ["3840", "11520", None]
    assert asked[-1]["--epochs"] == "8" and (tmp_path / "out" / "parts" / "log.jsonl.part-000").exists()
    with pytest.raises(ep.EPError, match="no training has the name"):
        sitting("train", "else")


@pytest.mark.slow
def test_a_sitting_on_a_cpu(sitting, monkeypatch, tmp_path):
    """The whole of it with a small network, and a failure in one sentence."""
    monkeypatch.setattr(gpu_sitting, "PROBES", (1, 2))
    small = ("--dataset synthetic --channels 4 4 4 4 --scale 2 --initial-radius 0 --whitening 0 --batch-size 16 --steps-free 3 "
             "--steps-nudged 1 --test-images 16 --warm-up 1 --no-flip --pad 0")
    monkeypatch.setattr(gpu_sitting, "TRAININGS", {"small": f"{small} --train-images 32", "bad": f"{small} --beta nan"})
    monkeypatch.setattr(gpu_sitting, "settings", lambda recipe, args: (16, 32))
    sitting("train", "small", "--minutes", 0.01, "--device", "cpu", "--out", tmp_path / "out")
    sitting("join", tmp_path / "out" / "parts", "--out", tmp_path / "run")
    assert ep.load(tmp_path / "run" / "network.npz").feedback == 1.0
    with pytest.raises(ep.EPError, match="the training failed: error: .*beta"):
        sitting("train", "bad", "--device", "cpu", "--out", tmp_path / "bad")
