"""Trainings, each a process of its own: several at a time, interrupted and resumed. Nothing to run here.

paper_table.py and sweep.py say which trainings there are and what becomes of each; `work` runs them. Every training has one
thread, but for those that say otherwise, so that a machine with n cores makes n of them at once.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ep.train import machine


class Training(NamedTuple):
    """A process in a run folder, whose output it leaves there as output.txt."""

    folder: Path
    command: Callable[[], list]  # asked for when it starts: it may depend on what those before it have found
    ended: Callable[[int], str]  # told the exit code; returns a line to print
    needs: tuple = ()  # files that have to be there before it starts
    threads: int = 1


def main_job(folder, options, data, threads=1):
    """The command of a training by the main job: one that was interrupted is resumed."""
    recipe = ["--resume", folder] if (folder / "checkpoint.npz").exists() else [*options, "--out", folder]
    images = ["--data", data] if data else []
    return [sys.executable, "-m", "ep.train", *recipe, *images, "--no-download", "--threads", threads, "--device", "cpu"]


def work(trainings, workers):
    """Run the trainings in their order, `workers` threads at a time. Whatever ends this early, each of them saves and stops.

    The same call goes on. What needs files that never come is left out.
    """
    waiting, running = list(trainings), []
    with machine.listening(stop), tqdm(total=len(waiting), unit="training", desc=f"{workers} at a time") as bar:
        try:
            while begin(waiting, running, workers) or running:
                time.sleep(0.2)
                for training, process in [one for one in running if one[1].poll() is not None]:
                    running.remove((training, process))
                    bar.write(f"{training.folder.name}: {training.ended(process.returncode)}")
                    bar.update()
        finally:
            for _, process in running:
                process.terminate()
            for _, process in running:
                process.wait()


def stop(number, frame):
    """A handler that ends a program as any error does, so that it can stop what it has started."""
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def begin(waiting, running, workers):
    """Start those of the waiting that are ready, as far as there are threads for them; whether any was started."""
    started = len(running)
    for training in list(waiting):
        busy = sum(other.threads for other, _ in running)
        if all(path.exists() for path in training.needs) and (not running or busy + training.threads <= workers):
            waiting.remove(training)
            running.append((training, process_of(training)))
    return len(running) > started


def process_of(training):
    """The running process; in a session of its own, so that Ctrl-C reaches it once, from `work`."""
    training.folder.mkdir(parents=True, exist_ok=True)
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
    with open(training.folder / "output.txt", "w", encoding="utf-8") as output:
        return subprocess.Popen(list(map(str, training.command())), stdout=output, stderr=subprocess.STDOUT,
                                env=os.environ | one_thread, start_new_session=True)


def last_words(folder):
    """The last line of its output: where it has failed, the reason."""
    return (folder / "output.txt").read_text(encoding="utf-8").strip().splitlines()[-1].removeprefix("error: ")
