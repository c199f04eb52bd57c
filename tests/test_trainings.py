"""laboratory/trainings.py: several processes at a time, each after what it needs, stopped so that they save, and resumed."""

import signal
import sys
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "laboratory"))
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

    def send_signal(self, number):
        self.signals.append(number)

    def wait(self):
        assert self.signals


def test_what_is_running_is_told_to_save(monkeypatch, tmp_path):
    """After so many minutes, and by SIGTERM; no more are started than there are workers, and the handler is the old one again."""
    monkeypatch.setattr(trainings.subprocess, "Popen", Endless)
    monkeypatch.setattr(Endless, "started", [])
    handler = signal.getsignal(signal.SIGTERM)
    many = [trainings.Training(tmp_path / str(n), lambda: [], str) for n in range(3)]
    trainings.work(many, workers=2, minutes=0.001)
    monkeypatch.setattr(trainings.time, "sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit, match="143"):
        trainings.work(many, workers=2)
    assert [process.signals for process in Endless.started] == [[signal.SIGTERM]] * 4
    assert signal.getsignal(signal.SIGTERM) == handler


def test_an_interrupted_training_is_resumed(tmp_path):
    """With its own settings: none of its options is given again."""
    assert trainings.main_job(tmp_path, ["--beta", "1"], None)[3:7] == ["--beta", "1", "--out", tmp_path]
    (tmp_path / "checkpoint.npz").touch()
    assert trainings.main_job(tmp_path, ["--beta", "1"], "DIR")[3:7] == ["--resume", tmp_path, "--data", "DIR"]
