"""Random numbers, a distance, examples and their run folders, for every test. Random numbers are seeded, and of the host."""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import ep
from ep.backend import to_host
from ep.errors import EPError
from ep.train import runs

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES / "laboratory"))
from one_sided_states import held  # noqa: E402, F401

TINY = ("--dataset synthetic --channels 4 4 4 4 --train-images 48 --test-images 32 --batch-size 16 --epochs 2 --steps-free 4 "
        "--steps-nudged 2 --threads 1 --device cpu").split()  # a training of the main job


def sentence(call, *arguments, **options):
    """The one sentence that a call ends in."""
    with pytest.raises(EPError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def normal(xp, shape, seed, dtype="float64"):
    """Standard normal numbers; complex if dtype is."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng.standard_normal(shape)
    return xp.asarray(a, dtype=dtype)


def flat(a):
    """All numbers of an array, list or dictionary of arrays, as one host vector."""
    if isinstance(a, dict):
        a = [a[name] for name in sorted(a)]
    if isinstance(a, (list, tuple)):
        return np.concatenate([flat(one) for one in a])
    return to_host(a).ravel()


def relative(a, b):
    """|a - b| / |b|, Euclidean, over everything in them."""
    return float(np.linalg.norm(flat(a) - flat(b)) / np.linalg.norm(flat(b)))


def example(xp, connections="symmetric", dtype="float64", **options):
    """(a network of three convolutions, a batch of four images, their labels on the host)."""
    network = ep.convnet([3, 4, 5], (16, 16, 2), 3, **dict(dict(scale=1.5, dtype=dtype, feedback=0.4), **options))
    network = ep.CONNECTIONS[connections](network).to(xp)
    return network, normal(xp, (4, 16, 16, 2), 0, dtype), np.array([0, 1, 2, 0])
def without_time(log):
    """The lines of a log.jsonl, but for how long they took."""
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in log.read_text().splitlines()]


def signal_in_step(monkeypatch, number, at=1):
    """A signal in this training step of the run that comes next; returns a list that gets an entry for each step."""
    plain, calls = runs.accumulate, []

    def accumulate(*arguments):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(number)
        plain(*arguments)

    monkeypatch.setattr(runs, "accumulate", accumulate)
    return calls


def refused(outcome):
    """The one sentence of a program that refuses its options: of (exit code, stdout, stderr)."""
    code, _, err = outcome
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    return err


def conv_loops(x, W, stride=1, padding=0):
    """`ops.conv` by its definition."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    N, H, W_in, _ = x.shape
    k, C_out = W.shape[0], W.shape[3]
    y = np.zeros((N, (H - k) // stride + 1, (W_in - k) // stride + 1, C_out), np.result_type(x, W))
    for n, i, j in np.ndindex(y.shape[:3]):
        for a, b in np.ndindex(k, k):
            y[n, i, j] += x[n, stride * i + a, stride * j + b] @ W[a, b]
    return y
