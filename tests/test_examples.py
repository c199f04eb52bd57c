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


def test_increments(example, tmp_path):
    """With fewer images and steps: in every layer, each nudging is three times nearer to BPTT than the one before."""
    lines = example("04_increments", "--images", 3, "--steps", 6).splitlines()[2:]
    one_sided, symmetric, four_point = ([float(n) for n in line.split()[1:]] for line in lines)
    assert all(a > 3 * b > 9 * c > 0 for a, b, c in zip(one_sided, symmetric, four_point))
    assert is_picture(tmp_path / "increments.png")


def test_bias(example, tmp_path):
    """Slopes within 0.1 of the order of each nudging; float32 and few steps limit the error, far above float64's."""
    lines = example("05_bias", "--betas", 8).splitlines()
    found = {line.split("(")[0].rsplit(maxsplit=1)[0]: numbers(line)[-2:] for line in lines[1:5]}
    assert [order for _, order in found.values()] == [1, 2, 4, 6]
    assert all(abs(slope - order) < 0.1 for slope, order in found.values()), found
    best = [float(n) for n in re.findall(r"\de-\d+", lines[5])]
    assert best[0] * 100 < best[1] < best[2] / 10
    assert is_picture(tmp_path / "bias.png")


def test_holomorphic(example, tmp_path):
    """Two points are the symmetric estimate; with 16, the gradient is exact to 1e-10 at beta = 1, where that is not."""
    lines = example("08_holomorphic", "--points", 2, 8, 16).splitlines()[1:]
    symmetric, two, eight, sixteen = ([float(n) for n in line.split()[-3:]] for line in lines)
    assert symmetric == two and all(a > 100 * b > 1e4 * c for a, b, c in zip(two[:2], eight, sixteen))
    assert sixteen[1] < 1e-10 and symmetric[1] > 1e-3
    assert is_picture(tmp_path / "holomorphic.png")
