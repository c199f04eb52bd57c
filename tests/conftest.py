"""The option --slow; `xp`: every numerical test runs on NumPy, and on CuPy where that works; programs in this process."""

import functools
import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from ep.backend import device_module
from ep.datasets import synthetic
from ep.errors import EPError
from ep.train import job, machine, runs

synthetic_images = functools.cache(synthetic.synthetic_images)

pytest.register_assert_rewrite("helpers", "cases")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: give --slow to run it"))


@pytest.fixture(scope="session", params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request):
    """numpy, and cupy where a GPU works with it (REQUIRE_GPU=1: its absence is a failure, not a reason to skip)."""
    if request.param == "numpy":
        return np
    try:
        return device_module("cuda")
    except EPError as error:
        if os.environ.get("REQUIRE_GPU") == "1":
            pytest.fail(f"REQUIRE_GPU=1, but {error}")
        pytest.skip(str(error))


@pytest.fixture
def program(monkeypatch, capsys):
    """program(main, *options) -> (exit code, stdout, stderr), in this process.

    To save time the embedded images are drawn once for all tests, and curves.png only where a test looks at it.
    """
    monkeypatch.setattr(synthetic, "synthetic_images", synthetic_images)
    monkeypatch.setattr(runs, "plot_curves", lambda *arguments: None)

    def program(main, *options):
        monkeypatch.setattr(sys, "argv", ["program", *map(str, options)])
        code = 0
        try:
            machine.run(main)
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return program


@pytest.fixture
def start(program):
    """start(*options) -> (exit code, stdout, stderr) of the main job."""
    return functools.partial(program, job.main)


@pytest.fixture
def example(program, monkeypatch):
    """example(name, *options) -> (exit code, stdout, stderr) of examples/NAME.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))  # they share a module
    return lambda name, *options: program(importlib.import_module(name).main, *options)
