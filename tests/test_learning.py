"""The main job learns what it is supposed to learn: the default run on the embedded images (about three minutes)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).parents[1] / "examples" / "cifar10_sym_ep.py"


@pytest.mark.slow
def test_symmetric_ep_learns_the_embedded_images(tmp_path):
    """At least 90% test accuracy, where simple methods stay below the limits of test_synthetic.py."""
    subprocess.run([sys.executable, JOB, "--dataset", "synthetic", "--device", "cpu", "--out", tmp_path / "run"], check=True)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test_accuracy"] >= 0.90
