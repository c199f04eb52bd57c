"""gpu_report.py on the double of a GPU: every part that needs no other program runs, and what it finds is drawn."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
from cupy_on_cpu import running

pytestmark = [pytest.mark.gpu, pytest.mark.parametrize("xp", ["cupy"], indirect=True),
              pytest.mark.skipif(running() == "rules", reason="the rules have no device to wait for")]


PATH = Path(__file__).parents[1] / "examples" / "laboratory" / "gpu_report.py"
spec = importlib.util.spec_from_file_location("gpu_report", PATH)
spec.loader.exec_module(gpu_report := importlib.util.module_from_spec(spec))


@pytest.mark.parametrize("part", ["rates", "passes", "memory"])
def test_parts(xp, part, tmp_path):
    args = gpu_report.options(["--quick", "--out", str(tmp_path)])
    result = gpu_report.PARTS[part](args)
    if part == "passes":
        assert all(math.isfinite(row["ms"]) and row["MB"] > 0 for row in result["rows"]) and len(result["rows"]) > 15
    (tmp_path / f"{part}.json").write_text(json.dumps(result))
    gpu_report.draw(tmp_path)
    assert f"## {part}" in (tmp_path / "report.md").read_text()


def test_a_part_that_fails_is_kept_and_tried_again(xp, tmp_path, capsys):
    """No CIFAR-10 there: the sentence is in PART.failed.txt, the other parts go on, and the part is tried again."""
    for _ in range(2):
        gpu_report.main(["--quick", "--out", str(tmp_path), "--data", str(tmp_path / "nowhere"), "--parts", "epochs"])
        assert "epochs: failed, see epochs.failed.txt" in capsys.readouterr().out
    assert not (tmp_path / "epochs.json").exists() and (tmp_path / "epochs.failed.txt").read_text()
