"""Do the paper's findings hold where the phases settle, at full feedback and at weak feedback?

    python examples/laboratory/paper_table.py --data DIR --workers 14     # everything that is not finished yet
    python examples/laboratory/paper_table.py --only-draw                 # tables and figure from what is finished
    python examples/laboratory/paper_table.py --data DIR --block full     # only one of the three comparisons

Block `full`: full feedback (gain 1), settled, `--preset recurrent --optimizer adam`, in a smaller network: every nudging, by the
difference of two states (the paper's rule) and by deviations, BPTT, and two controls that are not EP: one backward pass at the
fixed point, and feed-forward backpropagation of the same network without feedback. Rows `-larger` start at a larger spectral
radius. Block `preset`: `--preset cpu --optimizer adam --whitening 0` (gain 0.01). Every nudging, BPTT, and feed-forward
backpropagation of the same network; feedback weights of their own. Block `squared`: the same with squared error, half as long.
Within a block every training has the same network, initial weights, images, order, augmentation and number of updates; only what
its row names differs.

Settings are chosen first: a row with `trials` trains one short run for each of them, evaluated on images held out of the training
images, and takes the best. Every estimator of a comparison has the same number of trials, with the exceptions that ROWS names.

Each training is a process of its own with one thread (two for the longest). A finished one leaves ROW-SEED.json (its
configuration and outcome) and ROW-SEED.jsonl (its log, a line per epoch) in --out, trials in its folder choices/, and is never
trained again. An unfinished one continues from its checkpoint in --runs. All of them took about five hours of busy cores. The
files are drawn as full.md, table.md, squared.md, choices.md and comparison.png.
"""

import json
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import trainings

import ep
from ep.train import commandline as cli, experiment, loop, runs

HERE = Path(__file__).resolve().parent
COMMON = {  # block -> what all of its trainings share
    "full": "--dataset cifar10 --preset recurrent --optimizer adam --channels 16 32 64 64 --train-images 8000 --epochs 2 "
            "--batch-size 32 --no-flip --pad 0",
    "preset": "--dataset cifar10 --preset cpu --optimizer adam --whitening 0 --epochs 2",
    "squared": "--dataset cifar10 --preset cpu --optimizer adam --whitening 0 --cost squared-error --epochs 1"}
TRIAL = {  # block -> what a trial has instead
    "full": "--validation-images 2000 --epochs 1",
    "preset": "--train-images 15000 --validation-images 5000 --epochs 1 --warm-up 60",
    "squared": "--train-images 10000 --validation-images 5000 --warm-up 40"}
FILES = {"full": "full.md", "preset": "table.md", "squared": "squared.md"}  # block -> its table


class Row(NamedTuple):
    block: str
    options: str  # what differs from the block's COMMON
    seeds: int = 1
    trials: tuple = ()  # options of which the best on held-out images is added
    as_row: str = ""  # a row whose choice is taken over
    paper: str = ""  # CIFAR-10 test accuracy of Laborieux et al. 2021, full scale, gain 1
    threads: int = 1  # they change no result; for the longest trainings, so that the others do not wait for them


BETAS = ("--beta 0.1", "--beta 0.3", "--beta 1.0")  # the preset's, one between, the paper's
SQUARED_RATES = ("--lr 4e-3 1.2e-2", "--lr 4e-3", "--lr 2e-3")  # the preset's, and without the higher one of the classes
SQUARED = (f"--beta 0.1 {SQUARED_RATES[0]}", f"--beta 0.5 {SQUARED_RATES[0]}",  # the paper's beta: 0.5
           f"--beta 0.5 {SQUARED_RATES[1]}")
ASYMMETRIC = "--nudging symmetric --connections asymmetric --feedback-update"
BPTT = "--algorithm bptt --steps-free 6 --steps-nudged 4"  # synchronous: about as far as 2 sweeps up and 1 down
STATES = ("--beta 0.1", "--beta 0.2", "--beta 0.5")
DEVIATIONS = ("--beta 0.01", "--beta 0.02", "--beta 0.1")
ONE_PASS = "--nudging symmetric --nudged-phases deviations --beta 0.02 --steps-nudged 1"
ROWS = {  # in block `preset` rates are the preset's, and nothing is chosen for BPTT and backpropagation, which have no beta
    "one-sided": Row("preset", "--nudging one-sided", 3, BETAS),
    "random-sign": Row("preset", "--nudging random-sign", 3, BETAS),
    "symmetric": Row("preset", "--nudging symmetric", 3, BETAS, paper="88.3%"),
    "four-point": Row("preset", "--nudging four-point", 3, BETAS),
    "bptt": Row("preset", BPTT, 3, paper="about 89%", threads=2),
    "feed-forward": Row("preset", "--feedback 0 --nudging symmetric --beta 0.01 --steps-free 1", 3),  # EP at gain 0 is that
    "pytorch": Row("preset", ""),  # examples/laboratory/backpropagation.py, with the recipe of `feed-forward`
    "one-sided-squared": Row("squared", "--nudging one-sided", 1, SQUARED, paper="14%"),
    "symmetric-squared": Row("squared", "--nudging symmetric", 1, SQUARED),
    "bptt-squared": Row("squared", "--algorithm bptt --steps-free 7 --steps-nudged 5", 1, SQUARED_RATES, threads=2),
    "asymmetric-own": Row("preset", f"{ASYMMETRIC} own --weight-decay 0.02", 1, as_row="symmetric"),
    "asymmetric-kolen-pollack": Row("preset", f"{ASYMMETRIC} kolen-pollack --weight-decay 0.2", 1, as_row="symmetric",
                                    paper="86.8%"),  # decay aligns W and B: this one needs more of it
    "asymmetric-exact": Row("preset", f"{ASYMMETRIC} exact --weight-decay 0.02", 1, as_row="symmetric"),
}
for kind, betas in ("states", STATES), ("deviations", DEVIATIONS):
    for nudging in ("one-sided", "symmetric", "four-point"):
        ROWS[f"full-{nudging}-{kind}"] = Row("full", f"--nudging {nudging} --nudged-phases {kind}", 3, betas)
ROWS["full-bptt"] = Row("full", "--algorithm bptt", 3)
ROWS["full-one-pass"] = Row("full", ONE_PASS, 3)
ROWS["full-feed-forward"] = Row("full", "--feedback 0 --initial-radius 0 --initial-drive 0.333 --scale 1 6 --radius-limit 0 "
                                "--nudging symmetric --nudged-phases deviations --beta 0.02 --steps-nudged 1 --omega 1", 3)
ROWS["full-symmetric-larger"] = Row("full", "--nudging symmetric --nudged-phases deviations --beta 0.02 --initial-radius 0.88 "
                                    "--radius-limit 0.97", 1)
ROWS["full-one-pass-larger"] = Row("full", f"{ONE_PASS} --initial-radius 0.88 --radius-limit 0.97", 1)
COLOURS = {"one-sided": "#D55E00", "symmetric": "#0072B2", "four-point": "#009E73", "asymmetric": "#CC79A7",
           "bptt": "#000000"}  # of rows whose names contain these words


# --- what there is to do ----------------------------------------------------------------------------------------------


class Job(NamedTuple):
    """One training. It leaves OUT/STEM.json and .jsonl, and starts when those of `needs` are there."""

    stem: str
    row: str
    seed: int
    needs: tuple = ()
    trial: str = ""  # the options that are tried; "": not a trial


def trial_stem(row, trial):
    return "choices/" + "-".join([row, *trial.replace("--", "").split()]) + "-0"


def plan(args):
    """[Job] in the order in which they are started: block by block, first the trials, then the rows, seed by seed."""
    jobs = []
    for name, row in ROWS.items():
        if args.block not in (None, row.block):
            continue
        chooser = row.as_row or name
        trials = {trial_stem(chooser, trial): trial for trial in ROWS[chooser].trials}
        jobs += [Job(stem, chooser, 0, trial=trial) for stem, trial in trials.items()]
        needs = tuple(trials)
        if name == "pytorch":
            needs = ("feed-forward-0",)
            jobs.append(Job("feed-forward-0", "feed-forward", 0))
        jobs += [Job(f"{name}-{seed}", name, seed, needs) for seed in range(row.seeds)]
    jobs = {job.stem: job for job in jobs}.values()  # two rows may share their trials
    return sorted(jobs, key=lambda job: (list(COMMON).index(ROWS[job.row].block), not job.trial, job.seed))


def options_of(job, out):
    """The options of a training: the block's, the row's, and those that were chosen for it."""
    row = ROWS["feed-forward" if job.row == "pytorch" else job.row]
    chosen = job.trial or (best(row.as_row or job.row, out) or "")
    return " ".join(filter(None, [COMMON[row.block], row.options, job.trial and TRIAL[row.block], chosen, f"--seed {job.seed}"]))


def best(name, out):
    """The trial of a row with the highest accuracy on held-out images, the first of several; None before all are there."""
    results = [result_of(out / trial_stem(name, trial)) for trial in ROWS[name].trials]
    if not results or None in results:
        return None
    accuracies = [result["result"]["test_accuracy"] for result in results]
    return ROWS[name].trials[int(np.argmax(accuracies))]


def result_of(stem):
    """What a finished training has left, None before."""
    path = Path(f"{stem}.json")
    return json.loads(path.read_text()) if path.exists() else None


# --- doing it ---------------------------------------------------------------------------------------------------------


def training(job, args, failed):
    """The `Training` of a job; one that fails appends its command to `failed`."""
    folder = args.runs / job.stem.replace("/", "-")

    def command():
        if job.row == "pytorch":
            data = ["--data", args.data] if args.data else []
            return [sys.executable, HERE / "backpropagation.py", recipe_of_feed_forward(job, folder, args), *data]
        return trainings.main_job(folder, shlex.split(options_of(job, args.out)), args.data, ROWS[job.row].threads)

    def ended(code):
        if code:
            failed.append(shlex.join(map(str, command())))
            return f"failed, {trainings.last_words(folder)}"
        return f"{collect(job, folder, args.out):.1%}{' held out' if job.trial else ''}"

    needs = tuple(args.out / f"{stem}.json" for stem in job.needs)
    return trainings.Training(folder, command, ended, needs, ROWS[job.row].threads)


def recipe_of_feed_forward(job, folder, args):
    """A run folder with configuration and log of row `feed-forward`, which is all that backpropagation.py reads."""
    record, log = result_of(args.out / f"feed-forward-{job.seed}"), (args.out / f"feed-forward-{job.seed}.jsonl").read_text()
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_text(folder / "config.json", json.dumps(record["config"] | dict(data=None)))
    runs.write_text(folder / "log.jsonl", log)
    return folder


def collect(job, folder, out):
    """Write STEM.json and STEM.jsonl of a training that has ended; returns its accuracy."""
    stem = out / job.stem
    stem.parent.mkdir(parents=True, exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    del config["data"]  # a path of this machine
    if job.row == "pytorch":
        found = re.findall(r"epoch (\d+): backpropagation ([\d.]+)%.*\((\d+) images\)", (folder / "output.txt").read_text())
        log = [dict(epoch=int(epoch), test_accuracy=float(percent) / 100, test_images=int(n)) for epoch, percent, n in found]
        result = dict(log[-1], seconds=None, source=config["source"])
        cost = dict(updates=loop.steps_per_epoch(config["train_images"], config["batch_size"]) * config["epochs"])
    else:
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        result = json.loads((folder / "result.json").read_text())
        cost = cost_of(experiment.Config(**config), log)
    runs.write_text(f"{stem}.jsonl", "".join(json.dumps(line) + "\n" for line in log))
    record = dict(row=job.row, seed=job.seed, options=options_of(job, out), numpy=np.__version__, **cost, result=result,
                  config=config)
    runs.write_text(f"{stem}.json", json.dumps(record, indent=1) + "\n")
    return result["test_accuracy"]


def cost_of(config, log):
    """What the training took: updates, visits of images, and relaxation steps per visit in the free and all second phases."""
    converged = float(np.mean([line["converged"] for line in log]))
    return dict(updates=loop.steps_per_epoch(config.train_images, config.batch_size) * config.epochs,
                visits=config.train_images * config.epochs, steps_free=float(np.mean([line["steps_free"] for line in log])),
                steps_second=config.steps_nudged * second_phases(config, converged))


def second_phases(config, converged):
    """How many phases of K steps follow the free one, on average; converged: the share of images whose free phase has settled.

    A phase at beta = 0 costs nothing as a deviation, which stays 0, and where the free phase has converged, or is taken for
    converged, for it is that one. BPTT goes back through time once.
    """
    if config.algorithm == "bptt":
        return 1
    free = 1.0 if config.nudged_phases == "deviations" or config.conventions == "paper" else converged
    return sum(1 if beta else 1 - free for beta in experiment.nudging(config).points)


# --- showing it -------------------------------------------------------------------------------------------------------


def finished_rows(out):
    """{row: [what each of its seeds has left, with its log]}"""
    found = {}
    for name in ROWS:
        for path in sorted(out.glob(f"{name}-[0-9].json")):
            log = list(map(json.loads, path.with_suffix(".jsonl").read_text().splitlines()))
            found.setdefault(name, []).append(json.loads(path.read_text()) | dict(log=log))
    return found


def table(finished, out):
    """Markdown: a line per row; means and ranges over the seeds, and of the distance to equilibrium the worst seed's."""
    names = ("row", "differs by", "seeds", "test accuracy (range)", "after T, at the fixed point",
             "smallest cosine of the estimate", "one backward pass, feed-forward", "without feedback", "radius (largest)",
             "residual", "updates", "steps: free + second", "minutes", "paper, full scale")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for name, results in finished.items():
        row, last = ROWS[name], [record["log"][-1] for record in results]
        test = [record["result"]["test_accuracy"] for record in results]
        spread = f" ({min(test):.1%} to {max(test):.1%})" if len(test) > 1 else ""
        short = "" if len(results) == row.seeds else f" of {row.seeds}"
        chosen = best(row.as_row or name, out) or ""
        differs = f"`{f'{row.options} {chosen}'.strip()}`" if row.options else "PyTorch, the recipe of `feed-forward`"
        lines.append(f"| {name} | {differs} | {len(test)}{short} | **{np.mean(test):.1%}**{spread} | "
                     f"{' | '.join(distance(last))} | {results[0]['updates']:,} | {steps(results[0])} | "
                     f"{minutes_of(results, row)} | {row.paper} |")
    return "\n".join(lines) + "\n"


def distance(last):
    """How far the last epoch of each seed was from an equilibrium, and how recurrent: six cells, empty for what its log lacks."""
    if "residual" not in last[0]:
        return [""] * 6
    at_T, fixed = (mean(last, key, ".1%") for key in ("accuracy_at_T", "fixed_point_accuracy"))
    settled, n = min(line["settled_images"] for line in last), last[0]["fixed_point_images"]
    unsettled = "" if settled == 1 else f"; {settled:.0%} settle"
    cosines = [line["smallest_cosine"] for line in last]
    regime = ["", "", ""]
    if None not in [last[0].get(key) for key in runs.REGIME]:
        one_pass, feed_forward, without, radius, largest = (mean(last, key, form) for key, form in (
            ("cosine_one_pass", ".2f"), ("largest_cosine_feed_forward", ".2f"), ("accuracy_without_feedback", ".1%"),
            ("spectral_radius", ".2f"), ("largest_spectral_radius", ".2f")))
        regime = [f"{one_pass}, {feed_forward}", without, f"{radius} ({largest})"]
    return [f"{at_T}, {fixed} (of {n}{unsettled})", "no fixed point" if None in cosines else f"{min(cosines):.3f}",
            *regime, f"{max(line['residual'] for line in last):.0e}"]


def mean(last, key, form):
    return format(np.mean([line[key] for line in last]), form)


def steps(record):
    return f"{record['steps_free']:.0f} + {record['steps_second']:.0f}" if "steps_free" in record else ""


def minutes_of(results, row):
    seconds = [record["result"]["seconds"] for record in results]
    return "" if None in seconds else f"{np.mean(seconds) / 60:.1f}" + (f" of {row.threads} threads" if row.threads > 1 else "")


def largest_gap(finished):
    """One sentence: how far the rows that the theory says are equal are from each other, by their means."""
    means = {name: np.mean([record["result"]["test_accuracy"] for record in finished[name]])
             for name in ("symmetric", "bptt", "feed-forward", "pytorch") if name in finished}
    if len(means) < 2:
        return ""
    low, high = min(means, key=means.get), max(means, key=means.get)
    return (f"\nLargest difference between the means of {', '.join(means)}: {100 * (means[high] - means[low]):.1f} points "
            f"({high} {means[high]:.1%}, {low} {means[low]:.1%}).\n")


def choices(out):
    """Markdown: every trial with its accuracy on held-out images, those of a row in one line, the chosen one in bold."""
    lines = ["| row | trials: held-out accuracy, the chosen one in bold |", "|---|---|"]
    for name, row in ROWS.items():
        cells, chosen = [], best(name, out)
        for trial in row.trials:
            if record := result_of(out / trial_stem(name, trial)):
                cell = f"`{trial}` {record['result']['test_accuracy']:.1%}"
                cells.append(f"**{cell}**" if trial == chosen else cell)
        if cells:
            lines.append(f"| {name} | {'; '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(args):
    """Write the tables of the blocks, choices.md and comparison.png from the files in --out, and print the tables."""
    finished = finished_rows(args.out)
    if not finished:
        raise ep.EPError(f"no finished row in {args.out}: run without --only-draw first")
    blocks = {block: {name: records for name, records in finished.items() if ROWS[name].block == block} for block in COMMON}
    texts = {file: table(blocks[block], args.out) for block, file in FILES.items() if blocks.get(block)}
    texts["choices.md"] = choices(args.out)
    if "table.md" in texts:
        texts["table.md"] += largest_gap(finished)
    for name, text in texts.items():
        runs.write_text(args.out / name, text)
        print(text)
    plot(blocks).savefig(args.out / "comparison.png", dpi=110)
    print(f"written: {', '.join(str(args.out / name) for name in [*texts, 'comparison.png'])}")


def plot(blocks):
    """A panel for the rows at full feedback, beside it their cosines, and one for those at weak feedback."""
    from matplotlib.figure import Figure  # slow to import, and no display is needed

    figure = Figure(figsize=(14, 6.4), layout="constrained")
    full, cosine, weak = figure.subplots(1, 3, width_ratios=(1.1, 0.7, 1.1))
    plot_rows(full, blocks["full"], accuracy_of, "full feedback (gain 1)", "test accuracy (%)")
    plot_rows(cosine, blocks["full"], cosine_of, "of the same rows", "smallest cosine of the estimate\nwith the exact gradient")
    cosine.set_yticklabels([])
    plot_rows(weak, blocks["preset"] | blocks["squared"], accuracy_of,
              "weak feedback (gain 0.01)\n(squared error: half as many updates)", "test accuracy (%)")
    return figure


def accuracy_of(record):
    return 100 * record["result"]["test_accuracy"]


def cosine_of(record):
    smallest = record["log"][-1]["smallest_cosine"]
    return np.nan if smallest is None else smallest


def plot_rows(axes, rows, number_of, title, what):
    """A line for each row: a dot for every seed, a bar at their mean."""
    for place, (name, records) in enumerate(rows.items()):
        values = [number_of(record) for record in records]
        colour = next((colour for word, colour in COLOURS.items() if word in name), "#666666")
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.6)
        axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], "-", color=colour, linewidth=2)
        axes.annotate(f"{np.mean(values):.3g}", (max(values), place), (8, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set(yticks=range(len(rows)), yticklabels=list(rows), xlabel=what, title=title)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")


# --- the command line -------------------------------------------------------------------------------------------------


def main():
    args = options()
    jobs = [job for job in plan(args) if job.row != "pytorch" or find_spec("torch")]
    if not args.only_draw:
        if not find_spec("torch"):
            print("PyTorch is not installed: no row `pytorch`")
        args.out.mkdir(parents=True, exist_ok=True)
        left, failed = [job for job in jobs if not (args.out / f"{job.stem}.json").exists()], []
        trainings.work([training(job, args, failed) for job in left], args.workers)
        if failed:
            raise ep.EPError(f"{len(failed)} of the trainings failed, the others are unharmed; see the first with {failed[0]}",
                             exit_code=1)
    if not args.only_draw and not finished_rows(args.out):
        return print("no row is finished yet, and there is nothing to draw")
    draw(args)


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("--block", choices=list(COMMON), help="only this comparison")
    add("--only-draw", action="store_true", help="train nothing")
    add("--data", type=cli.path, metavar="DIR", help="where cifar-10-batches-bin is")
    add("--out", type=cli.path, metavar="DIR", default=HERE.parents[1] / "docs" / "paper_table",
        help="results (default: docs/paper_table)")
    add("--runs", metavar="DIR", type=cli.path, default=Path("runs/paper_table"),
        help="run folders with checkpoints (default: runs/paper_table)")
    add("--workers", type=cli.count, default=cli.cores(), help="trainings at once, one thread each (default: all cores)")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
