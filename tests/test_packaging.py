"""What a user installs: an sdist and a wheel hold the package, and the main job runs from them without a checkout."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ep").rglob("*")
           if path.suffix == ".py" or path.name == "py.typed"}


def called(*command, **options):
    """What a command prints; the test fails if the command does, and shows what it said."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with an sdist of the checkout and a wheel that is built from the sdist, not from the checkout."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    called(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


@pytest.mark.slow
def test_an_sdist_and_a_wheel_hold_the_package_and_nothing_else(built):
    [sdist], [wheel] = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(sdist) as file:
        packed = {name.partition("/")[2] for name in file.getnames()}
    assert SOURCES | {"README.md", "LICENSE", "pyproject.toml", "setup.cfg"} <= packed
    installed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert installed == SOURCES


@pytest.mark.slow
def test_the_main_job_runs_from_a_wheel(built, tmp_path):
    """In an empty environment, with the dependencies that the wheel names, in an empty folder: trained, and resumed."""
    called(sys.executable, "-m", "venv", tmp_path / "empty")
    python = tmp_path / "empty" / ("Scripts" if os.name == "nt" else "bin") / "python"
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    elsewhere = dict(cwd=tmp_path, env=clean)
    called(python, "-m", "pip", "install", "--quiet", *built.glob("*.whl"), **elsewhere)
    home = called(python, "-c", "import ep; print(ep.__file__)", **elsewhere)
    assert Path(home.strip()).is_relative_to(tmp_path / "empty")

    options = "--dataset synthetic --train-images 64 --test-images 32 --epochs 1 --channels 4 8 8 8 --threads 1".split()
    printed = called(python, "-m", "ep.train", *options, "--out", "run", **elsewhere)
    assert "SYNTHETIC DATA" in printed and "test accuracy" in printed
    assert json.loads((tmp_path / "run" / "result.json").read_text())["epochs"] == 1
    called(python, "-m", "ep.train", "--resume", "run", "--epochs", "2", **elsewhere)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["epochs"] == 2
    assert called(python, "-m", "ep.train", "--help", **elsewhere).startswith("usage: python -m ep.train ")
