"""paper_table.py: settings are chosen first, every row is a real training that leaves its log, and none is trained twice."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import ep
from ep.nudging import NUDGINGS
from ep.train import experiment

LABORATORY = Path(__file__).parents[1] / "examples" / "laboratory"
sys.path.insert(0, str(LABORATORY))
import paper_table as table  # noqa: E402


@pytest.fixture
def run(monkeypatch, capsys):
    """run(*options) -> (exit code, stdout, stderr) of the script in this process."""
    def run(*options):
        monkeypatch.setattr(sys, "argv", ["paper_table.py", *map(str, options)])
        code = 0
        try:
            table.cli.run(table.main)
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("nudged_phases, conventions", [("deviations", "here"), ("states", "here"), ("states", "paper")])
@pytest.mark.parametrize("name", NUDGINGS)
def test_the_phases_that_are_counted_are_those_that_run(name, nudged_phases, conventions):
    """`second_phases` against the relaxations that the gradient makes, settled and not."""
    network = ep.convnet([3, 4], (8, 8, 2), 3, paddings=[1, 1], scale=1.5, feedback=0.3)
    x, y = np.random.default_rng(0).random((4, 8, 8, 2), dtype=np.float32), np.arange(4) % 3
    for T, tolerance in (2, 0.0), (200, 1e-3):
        config = experiment.Config(nudging=name, nudged_phases=nudged_phases, conventions=conventions, steps_free=T,
                                   tolerance=tolerance, steps_nudged=5)
        estimate = experiment.estimator(config)(network, x, y)
        ran = sum(phase is not estimate.free for phase in estimate.nudged)
        assert estimate.free.converged == (tolerance > 0)
        assert ran == table.second_phases(config, float(estimate.free.converged)) > 0
    assert table.second_phases(experiment.Config(nudging=name, algorithm="bptt"), 0.0) == 1


def test_rows_differ_only_by_what_they_name():
    """No row and no trial replaces a setting of the common part, and no trial one of its row; a trial's share is what it says."""

    def names(text):
        return {word for word in text.split() if word.startswith("--")}

    for name, row in table.ROWS.items():
        assert not names(row.options) & names(table.COMMON[row.block]), name
        for trial in row.trials:
            assert trial and not names(trial) & (names(row.options) | names(table.COMMON[row.block])), name
            assert not names(trial) & names(table.TRIAL[row.block]), name
        assert "--validation-images" in table.TRIAL[row.block] and row.as_row in ("", *table.ROWS)


def test_every_estimator_of_a_comparison_has_as_many_trials_and_seeds():
    """Nudgings at the preset's gain, and at full feedback, where the controls have nothing to choose; squared error."""
    nudgings = ("one-sided", "random-sign", "symmetric", "four-point")
    full = [f"full-{nudging}-{kind}" for nudging in ("one-sided", "symmetric", "four-point") for kind in ("states", "deviations")]
    squared = [name for name in table.ROWS if "squared" in name]
    for group, seeds in (nudgings, 3), (full, 3), (squared, 1):
        assert {(len(table.ROWS[name].trials), table.ROWS[name].seeds) for name in group} == {(3, seeds)}
    assert len(squared) == 3


@pytest.mark.parametrize("nudging, algorithm, steps", [("symmetric", "eqprop", 50), ("four-point", "eqprop", 100),
                                                       ("one-sided", "eqprop", 37.5), ("random-sign", "eqprop", 37.5),
                                                       ("symmetric", "bptt", 25)])
def test_cost_counts_the_phases_that_run(nudging, algorithm, steps):
    """One-sided nudging takes the settled state for its phase at beta = 0, so that one costs nothing there."""
    config = experiment.Config(train_images=100, epochs=2, batch_size=32, nudging=nudging, algorithm=algorithm, steps_nudged=25,
                               nudged_phases="states")
    cost = table.cost_of(config, [dict(steps_free=30, converged=1.0), dict(steps_free=50, converged=0.0)])
    assert cost == dict(updates=8, visits=200, steps_free=40, steps_second=steps)


def tiny(monkeypatch, **rows):
    common = "--dataset synthetic --preset cpu --channels 4 4 4 4 --train-images 32 --test-images 32 --batch-size 16 --epochs 2"
    blocks = {"full": f"{common} --scale 2", "preset": common, "squared": ""}
    monkeypatch.setattr(table, "COMMON", blocks)
    monkeypatch.setattr(table, "TRIAL", dict.fromkeys(table.COMMON, "--test-images 16 --epochs 1"))
    monkeypatch.setattr(table, "ROWS", {name.replace("_", "-"): row for name, row in rows.items()})


def leave(out, stem, accuracy):
    (out / stem).parent.mkdir(parents=True, exist_ok=True)
    (out / f"{stem}.json").write_text(json.dumps(dict(result=dict(test_accuracy=accuracy))))


def test_the_best_trial_is_taken(monkeypatch, tmp_path):
    """The highest held-out accuracy, the first of several, and none before all are there; a row may take over another's."""
    row = table.Row("preset", "--nudging symmetric", 1, ("--beta 0.1", "--beta 0.3", "--beta 1.0"))
    tiny(monkeypatch, symmetric=row, other=table.Row("preset", "--pad 1", as_row="symmetric"))
    for trial, accuracy in zip(row.trials, (0.4, 0.6, 0.6)):
        assert table.best("symmetric", tmp_path) is None
        leave(tmp_path, table.trial_stem("symmetric", trial), accuracy)
    assert table.best("symmetric", tmp_path) == "--beta 0.3"
    job = table.Job("other-2", "other", 2)
    assert table.options_of(job, tmp_path) == f"{table.COMMON['preset']} --pad 1 --beta 0.3 --seed 2"
    trial = table.Job("x", "symmetric", 0, trial="--beta 1.0")
    assert table.options_of(trial, tmp_path).endswith("--nudging symmetric --test-images 16 --epochs 1 --beta 1.0 --seed 0")


def test_the_plan_has_trials_before_their_rows():
    """Block by block, each training once, and none before what it needs; --block leaves the others out."""
    jobs = table.plan(Namespace(block=None))
    places = {job.stem: place for place, job in enumerate(jobs)}
    assert len(places) == len(jobs)
    assert all(places[need] < places[job.stem] for job in jobs for need in job.needs)
    blocks = [table.ROWS[job.row].block for job in jobs]
    assert blocks == sorted(blocks, key=list(table.COMMON).index)
    assert {job.stem for job in jobs if job.row == "symmetric" and not job.trial} == {f"symmetric-{seed}" for seed in range(3)}
    assert {table.ROWS[job.row].block for job in table.plan(Namespace(block="full"))} == {"full"}


@pytest.mark.slow
def test_table_of_trainings(run, monkeypatch, tmp_path):
    """Numbers of the tables are those of the logs, the rows have the trial that was best, and a second call trains nothing."""
    tiny(monkeypatch, full_bptt=table.Row("full", "--algorithm bptt --steps-free 4 --steps-nudged 2"),
         symmetric=table.Row("preset", "--nudging symmetric", 2, ("--beta 0.1", "--beta 0.9"), paper="88.3%"))
    places = ("--out", tmp_path / "out", "--runs", tmp_path / "runs", "--workers", 2)
    code, out, err = run(*places)
    assert code == 0 and "**" in out, err
    stems = {str(path.relative_to(tmp_path / "out"))[:-len(".jsonl")] for path in (tmp_path / "out").rglob("*.jsonl")}
    trials = {"choices/symmetric-beta-0.1-0", "choices/symmetric-beta-0.9-0"}
    assert stems == {"symmetric-0", "symmetric-1", "full-bptt-0"} | trials
    read = {stem: json.loads((tmp_path / "out" / f"{stem}.json").read_text()) for stem in stems}
    log = {stem: list(map(json.loads, (tmp_path / "out" / f"{stem}.jsonl").read_text().splitlines())) for stem in stems}
    assert {len(log[stem]) for stem in stems if "/" not in stem} == {2} and len(log["choices/symmetric-beta-0.9-0"]) == 1
    held_out = [read[f"choices/symmetric-beta-{beta}-0"]["result"]["test_accuracy"] for beta in (0.1, 0.9)]
    beta = (0.1, 0.9)[int(held_out[1] > held_out[0])]
    config = read["symmetric-1"]["config"]
    assert config["beta"] == beta and read["symmetric-1"]["seed"] == config["seed"] == 1 and "data" not in config

    cells = [cell.strip() for cell in (tmp_path / "out" / "table.md").read_text().splitlines()[2].split("|")[1:-1]]
    last = [log[f"symmetric-{seed}"][-1] for seed in (0, 1)]
    assert cells[0] == "symmetric" and f"--beta {beta}" in cells[1] and cells[2] == "2" and cells[-1] == "88.3%"
    assert cells[3].startswith(f"**{np.mean([line['test_accuracy'] for line in last]):.1%}**")
    assert cells[4].startswith("{:.1%}, {:.1%} (of 32".format(*(np.mean([line[key] for line in last]) for key in (
        "accuracy_at_T", "fixed_point_accuracy"))))
    assert cells[5] == f"{min(line['smallest_cosine'] for line in last):.3f}"
    regime = ("cosine_one_pass", "largest_cosine_feed_forward", "spectral_radius", "largest_spectral_radius")
    one_pass, feed_forward, radius, largest = (f"{np.mean([line[key] for line in last]):.2f}" for key in regime)
    assert cells[6] == f"{one_pass}, {feed_forward}" and cells[8] == f"{radius} ({largest})"
    assert cells[7] == f"{np.mean([line['accuracy_without_feedback'] for line in last]):.1%}"
    assert cells[9] == f"{max(line['residual'] for line in last):.0e}" and cells[10:12] == ["4", "2 + 2"]
    assert "full-bptt" in (tmp_path / "out" / "full.md").read_text().splitlines()[2]
    assert f"**`--beta {beta}` {max(held_out):.1%}**" in (tmp_path / "out" / "choices.md").read_text()
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(table.trainings, "process_of", lambda training: pytest.fail("trained again"))
    before = (tmp_path / "out" / "table.md").read_text()
    assert run(*places)[0] == 0 and (tmp_path / "out" / "table.md").read_text() == before


@pytest.mark.slow
def test_backpropagation_beside_ep_without_feedback(run, monkeypatch, tmp_path):
    """The two feed-forward rows, EP at gain 0 and PyTorch, learn the same."""
    pytest.importorskip("torch")
    tiny(monkeypatch, feed_forward=table.Row("preset", "--feedback 0 --nudging symmetric --beta 0.01 --steps-free 1"),
         pytorch=table.Row("preset", ""))
    more = "--dataset synthetic --preset cpu --channels 8 8 16 16 --train-images 960 --test-images 200 --batch-size 16 --epochs 2"
    monkeypatch.setattr(table, "COMMON", {"full": "", "preset": f"{more} --warm-up 5", "squared": ""})
    code, out, err = run("--out", tmp_path / "out", "--runs", tmp_path / "runs", "--workers", 2)
    assert code == 0, err
    ours, theirs = (table.result_of(tmp_path / "out" / f"{name}-0")["result"] for name in ("feed-forward", "pytorch"))
    assert ours["test_accuracy"] > 0.2 and abs(ours["test_accuracy"] - theirs["test_accuracy"]) < 0.07
    assert "Largest difference" in out and theirs["test_images"] == 200


@pytest.mark.slow
def test_a_failed_training_is_one_sentence(run, monkeypatch, tmp_path):
    """Its command is given, the exit code is that of a failure while running, and what does not need it is trained."""
    tiny(monkeypatch, symmetric=table.Row("preset", "--nudging symmetric", 1, ("--beta 0.1 --lr 1 2 3",)),
         bptt=table.Row("preset", "--algorithm bptt --steps-free 4 --steps-nudged 2"))
    places = ("--out", tmp_path / "out", "--runs", tmp_path / "runs", "--workers", 1)
    code, _, err = run(*places)
    assert code == 1 and err.splitlines()[-1].startswith("error: 1 of the trainings failed") and "--lr 1 2 3" in err
    assert [path.stem for path in (tmp_path / "out").rglob("*.json")] == ["bptt-0"]
    code, _, err = run("--only-draw", "--out", tmp_path / "empty")
    assert code == 2 and "no finished row" in err


def test_every_row_of_a_table_has_its_logs():
    """In the tables that the book includes, each number of seeds is that of the committed logs."""
    tables = LABORATORY.parents[1] / "docs" / "paper_table"
    for file in filter(lambda file: (tables / file).exists(), table.FILES.values()):
        for line in [line for line in (tables / file).read_text().splitlines()[2:] if line.startswith("|")]:
            name, seeds = (cell.strip() for cell in line.split("|")[1:4:2])
            assert len(list(tables.glob(f"{name}-[0-9].jsonl"))) == int(seeds.split()[0]), name
