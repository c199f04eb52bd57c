"""gpu_report.py on the double of a GPU: every part that needs no other program runs, and what it finds is drawn."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ep.errors import EPError

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "laboratory"))
import gpu_report  # noqa: E402


def on_a_gpu(test):
    marks = (pytest.mark.gpu, pytest.mark.parametrize("xp", ["cupy"], indirect=True))
    for mark in marks:
        test = mark(test)
    return test


def test_without_a_gpu_nothing_is_written(monkeypatch, tmp_path):
    """Nor is what another GPU has measured taken for this one's: by default it goes where nothing is tracked."""
    def none(device):
        raise EPError("no GPU")

    monkeypatch.setattr(gpu_report, "device_module", none)
    with pytest.raises(EPError, match="no GPU") as caught:
        gpu_report.main(["--quick", "--out", str(tmp_path / "out")])
    assert caught.value.exit_code == 2 and list(tmp_path.iterdir()) == []
    assert gpu_report.options([]).out.parent.name == "runs"


@pytest.mark.parametrize("gpu, made", [("this one", 0), ("another one", 1), (None, 1)])
def test_a_part_belongs_to_a_gpu(monkeypatch, tmp_path, gpu, made):
    """What is finished counts for the GPU that its file names."""
    commands = []
    monkeypatch.setattr(gpu_report, "versions", lambda: dict(gpu="this one"))
    monkeypatch.setattr(gpu_report.subprocess, "run", lambda command, **options: commands.append(command) or SimpleNamespace(
        returncode=0, stdout="{}", stderr=""))
    (tmp_path / "memory.json").write_text(json.dumps(dict(gpu=gpu)))
    gpu_report.main(["--out", str(tmp_path), "--parts", "memory"])
    assert len(commands) == made and json.loads((tmp_path / "memory.json").read_text())["gpu"] == "this one"


@on_a_gpu
@pytest.mark.parametrize("part", ["rates", "passes", "steps", "agreement", "memory", "paper"])
def test_parts(xp, part, tmp_path):
    args = gpu_report.options(["--quick", "--out", str(tmp_path)])
    result = gpu_report.PARTS[part](args)
    if part == "passes":
        assert all(math.isfinite(row["ms"]) and row["MB"] > 0 for row in result["rows"]) and len(result["rows"]) > 15
    (tmp_path / f"{part}.json").write_text(json.dumps(result))
    gpu_report.draw(tmp_path)
    assert f"## {part}" in (tmp_path / "report.md").read_text()


@on_a_gpu
def test_a_part_that_fails_is_kept_and_tried_again(xp, tmp_path, capsys):
    """No CIFAR-10 there: the sentence is in PART.failed.txt, the other parts go on, and the part is tried again."""
    for _ in range(2):
        with pytest.raises(EPError, match="epochs: failed"):
            gpu_report.main(["--quick", "--out", str(tmp_path), "--data", str(tmp_path / "nowhere"), "--parts", "epochs"])
        assert "epochs: failed, see epochs.failed.txt" in capsys.readouterr().out
    assert not (tmp_path / "epochs.json").exists() and (tmp_path / "epochs.failed.txt").read_text()
