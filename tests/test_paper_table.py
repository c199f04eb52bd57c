"""paper_table.py: every row is a real training that leaves its log; finished ones are never trained again."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ep.train import experiment

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(monkeypatch, capsys):
    """run(module, *options) -> (exit code, stdout, stderr) of an example in this process."""
    def run(module, *options):
        monkeypatch.setattr(sys, "argv", ["example.py", *map(str, options)])
        code = 0
        try:
            module.cli.run(module.main)
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def test_rows_differ_only_by_what_they_name():
    """Three seeds for the four rows that need a spread; no row replaces a setting of the common part."""
    table = example("paper_table")
    assert {name for name, row in table.ROWS.items() if row.seeds == 3} == {"one-sided", "random-sign", "symmetric", "bptt"}
    for name, row in table.ROWS.items():
        assert not {word for word in row.options.split() if word.startswith("--")} & set(table.COMMON.split()), name


@pytest.mark.parametrize("nudging, algorithm, steps", [("symmetric", "eqprop", 50), ("four-point", "eqprop", 100),
                                                       ("one-sided", "eqprop", 37.5), ("random-sign", "eqprop", 37.5),
                                                       ("symmetric", "bptt", 25)])
def test_cost_counts_the_phases_that_run(nudging, algorithm, steps):
    """One-sided nudging takes the settled state for its phase at beta = 0, so that one costs nothing there."""
    config = experiment.Config(train_images=100, epochs=2, batch_size=32, nudging=nudging, algorithm=algorithm, steps_nudged=25,
                               nudged_phases="states")
    cost = example("paper_table").cost_of(config, [dict(steps_free=30, converged=1.0), dict(steps_free=50, converged=0.0)])
    assert cost == dict(updates=8, visits=200, steps_free=40, steps_second=steps)


def test_table_of_trainings(run, monkeypatch, tmp_path):
    """Two rows, one with two seeds: numbers of the table are those of the logs, and a second call trains nothing."""
    table = example("paper_table")
    monkeypatch.setattr(table, "COMMON", "--dataset synthetic --preset small --channels 4 4 4 4 --train-images 32 "
                                         "--test-images 32 --batch-size 16 --epochs 2 --steps-free 4 --steps-nudged 2")
    monkeypatch.setattr(table, "ROWS", {"symmetric": table.Row("--nudging symmetric", 2, "88.3%"),
                                        "bptt-squared": table.Row("--algorithm bptt --cost squared-error")})
    places = ("--out", tmp_path / "out", "--runs", tmp_path / "runs")
    code, out, _ = run(table, *places)
    assert code == 0 and "**" in out
    logs = {path.stem: list(map(json.loads, path.read_text().splitlines())) for path in (tmp_path / "out").glob("*.jsonl")}
    assert {name: len(log) for name, log in logs.items()} == {"symmetric-0": 2, "symmetric-1": 2, "bptt-squared-0": 2}
    mean = np.mean([logs[f"symmetric-{seed}"][-1]["test_accuracy"] for seed in (0, 1)])
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert f"**{mean:.1%}**" in lines[2] and "| 4 | 64 | 4 + 4 |" in lines[2] and "88.3%" in lines[2]
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "out" / "symmetric-1.json").read_text())
    assert record["seed"] == 1 and "--seed 1" in record["options"] and "data" not in record["config"]

    monkeypatch.setattr(table.subprocess, "Popen", lambda *arguments, **options: pytest.fail("trained again"))
    assert run(table, *places)[0] == 0 and (tmp_path / "out" / "table.md").read_text().splitlines() == lines


def test_a_failed_training_is_one_sentence(run, monkeypatch, tmp_path):
    """Its command is given, and the exit code is that of a failure while running."""
    table = example("paper_table")
    monkeypatch.setattr(table, "COMMON", f"--dataset cifar10 --no-download --data {tmp_path}")
    code, _, err = run(table, "--row", "symmetric", "--out", tmp_path / "out", "--runs", tmp_path / "runs")
    assert code == 1 and err.splitlines()[-1].startswith("error: the training symmetric, seed 0, failed")
    code, _, err = run(table, "--only-draw", "--out", tmp_path / "out", "--runs", tmp_path / "runs")
    assert code == 2 and "no finished training" in err


def test_the_page_of_results_shows_the_table_as_it_was_written():
    """docs/notebook.md repeats table.md line for line, and every row of it has its logs."""
    docs = EXAMPLES.parent / "docs"
    page, table = (docs / "notebook.md").read_text().splitlines(), example("paper_table")
    for folder, rows in ((docs / "paper_table", table.ROWS), (docs / "paper_table" / "settled", table.SETTLED)):
        lines = (folder / "table.md").read_text().splitlines()
        assert [line for line in lines if line not in page] == []
        for line in lines[2:]:
            name, seeds = (cell.strip() for cell in line.split("|")[1:4:2])
            assert len(list(folder.glob(f"{name}-?.jsonl"))) == int(seeds.split()[0]) <= rows[name].seeds
