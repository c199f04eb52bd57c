"""The type hints are there, mypy finds no fault with the package, and it finds the faults of those who use it wrongly."""

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ep
from ep import datasets

ROOT = Path(__file__).parents[1]
USED = '''
import numpy as np
import ep
from ep import datasets

phases = ep.Phases(20, ep.Phase(8, "up"))
x, y = np.zeros((4, 8, 8, 1), np.float32), np.zeros(4, int)
network = ep.convnet([4], input_shape=(8, 8, 1))
estimate = ep.eqprop_gradient(network, x, y, phases, nudging=ep.Nudging.symmetric(0.5))
update: np.ndarray = estimate.gradient["1.W"]
settled = ep.relax(ep.asymmetric(network), x, 20, start=estimate.free.states)
lines: str = datasets.banner(datasets.hold_out(datasets.load("synthetic"), 10))
last: float = settled.history[-1][1] + settled.residual
'''
MISUSED = {  # a line behind those, and what mypy says of it
    'ep.relax(network, x, "20")': 'expected "Phase | int"',
    "ep.eqprop_gradient(network, x, y, phases)": 'Missing named argument "nudging"',
    "ep.Phases(1.5, 2)": 'expected "Phase | int"',
    "estimate.gradients": '"Estimate" has no attribute "gradients"',
    "datasets.load(7)": 'expected "str"',
    "ep.Nudging.symmetric()": 'Missing positional argument "beta"',
}


PUBLIC = [(door.__name__, name) for door in (ep, datasets) for name in door.__all__ if callable(getattr(door, name))]


@pytest.mark.parametrize("door, name", PUBLIC)
def test_every_public_function_and_constructor_has_hints(door, name):
    """Each argument and, of a function, what it returns."""
    named = getattr(importlib.import_module(door), name)
    signature = inspect.signature(named)
    assert not [argument for argument, its in signature.parameters.items() if its.annotation is its.empty]
    assert inspect.isclass(named) or signature.return_annotation is not signature.empty


def mypy(*words):
    pytest.importorskip("mypy")
    environment = {**os.environ, "MYPYPATH": str(ROOT)}  # of an editable installation mypy finds nothing by itself
    command = [sys.executable, "-m", "mypy", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_mypy_accepts_the_package(tmp_path):
    assert mypy("--cache-dir", tmp_path).startswith("Success")


@pytest.mark.slow
def test_mypy_accepts_right_use_and_names_what_is_wrong(tmp_path):
    """Each misuse is one error, on its line; the lines before them have none."""
    (tmp_path / "used.py").write_text(USED + "\n".join(MISUSED) + "\n")
    said = mypy("--config-file", "", "--cache-dir", tmp_path / "cache", "--ignore-missing-imports", "--follow-imports", "silent",
                tmp_path / "used.py")  # an installed package is silent, and this one is found by MYPYPATH
    errors = [line for line in said.splitlines() if ": error: " in line]
    first = len(USED.splitlines()) + 1
    assert [int(line.split(":")[1]) for line in errors] == list(range(first, first + len(MISUSED))), said
    assert all(what in error for what, error in zip(MISUSED.values(), errors)), said
