"""The numbered examples run, in seconds, and their printed numbers say what their titles claim.

The reductions are ordinary options (fewer images, fewer steps): the same code as the full run.
"""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch, capsys, tmp_path):
    """example(name, *options) -> what examples/NAME.py prints; its figures are in tmp_path."""
    def run(name, *options):
        monkeypatch.syspath_prepend(str(EXAMPLES))  # they may share a module
        monkeypatch.setattr(sys, "argv", [name, *map(str, options), "--out", str(tmp_path)])
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main()
        return capsys.readouterr().out
    return run


def is_picture(path):
    return path.read_bytes()[:4] in (b"\x89PNG", b"GIF8")


def numbers(line):
    return [float(n) for n in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", line)]


def header_output(name):
    """The indented lines that the docstring of an example promises to be printed."""
    header = (EXAMPLES / f"{name}.py").read_text().split('"""')[1]
    return [line.split() for line in header.split("Printed:")[1].strip().splitlines()]


def test_three_faces_of_phi(example, tmp_path):
    """Exactly the numbers of the header: four times the same Phi, and every derivative as measured."""
    lines = example("02_three_faces_of_phi").splitlines()
    assert [line.split() for line in lines] == header_output("02_three_faces_of_phi")
    assert len({line.split()[-1] for line in lines[:4]}) == 1
    assert all(derivative == measured != 0 for derivative, measured in map(numbers, lines[5:]))
    assert is_picture(tmp_path / "three_faces_of_phi.png")
