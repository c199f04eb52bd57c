"""Do the paper's findings hold at a scale that two CPU cores can train?

    python examples/paper_table.py --data DIR                    # every row that is not finished yet; hours
    python examples/paper_table.py --data DIR --row symmetric    # one row, all its seeds; a quarter of an hour
    python examples/paper_table.py --data DIR --choose-beta      # what the betas below were chosen by
    python examples/paper_table.py --data DIR --settled          # a smaller network whose phases settle
    python examples/paper_table.py --only-draw                   # table and figure from what is finished

One training of cifar10_sym_ep.py per row and seed: the same network, initial weights, images, order, augmentation and number
of updates in every row; only what the row names differs. In docs/paper_table/ a finished training leaves ROW-SEED.json (its
configuration and outcome) and ROW-SEED.jsonl (its log, a line per epoch), is never trained again, and together they are
drawn as table.md and curves.png. An unfinished one continues from its checkpoint.
"""

import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import ep
from ep.train import commandline as cli, experiment, loop, runs

HERE = Path(__file__).resolve().parent
COMMON = "--dataset cifar10 --preset small --test-images 10000"  # the paper's energy, feedback gain 1, and its rule
SYNCHRONOUS = "--algorithm bptt --steps-free 16 --steps-nudged 6"  # goes about as far as half as many checkerboard steps
ASYMMETRIC = "--connections asymmetric --weight-decay 3e-3"  # decay is what aligns W and B: 3e-4 would take a day


class Row(NamedTuple):
    options: str  # what differs from COMMON
    seeds: int = 1
    paper: str = ""  # CIFAR-10 test accuracy of Laborieux et al. 2021, full scale


SQUARED = "--cost squared-error"
ROWS = {  # cross-entropy: each nudging at its own best of BETAS (docs/paper_table/choose_beta); squared error: the paper's 0.5
    "one-sided": Row("--nudging one-sided --beta 0.5", 3),
    "random-sign": Row("--nudging random-sign --beta 1.0", 3),
    "symmetric": Row("--nudging symmetric --beta 1.0", 3, "88.3%"),
    "symmetric-beta-0.2": Row("--nudging symmetric --beta 0.2"),  # not chosen: one epoch preferred 1. 11_bias_when_trained.py
    "four-point": Row("--nudging four-point --beta 1.0"),
    "bptt": Row(SYNCHRONOUS, 3, "about 89%"),
    "one-sided-squared": Row(f"--nudging one-sided --beta 0.5 {SQUARED}", 1, "14%"),
    "symmetric-squared": Row(f"--nudging symmetric --beta 0.5 {SQUARED}"),
    "bptt-squared": Row(f"{SYNCHRONOUS} {SQUARED}"),
    "asymmetric-own": Row(f"--nudging symmetric --beta 1.0 {ASYMMETRIC} --feedback-update own"),
    "asymmetric-kolen-pollack": Row(f"--nudging symmetric --beta 1.0 {ASYMMETRIC} --feedback-update kolen-pollack", 1, "86.8%"),
    "asymmetric-exact": Row(f"--nudging symmetric --beta 1.0 {ASYMMETRIC} --feedback-update exact"),
}
COLOURS = ("#D55E00", "#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#0072B2",  # Okabe and Ito's, for every kind of eye,
           "#882255", "#44AA99")  # and two of Tol's
BETAS = (0.05, 0.1, 0.2, 0.5, 1.0)
HELD_OUT = "--validation-images 5000 --test-images 5000 --epochs 1"
CHOICES = {f"{nudging}-{beta}": Row(f"--nudging {nudging} --beta {beta} {HELD_OUT}")
           for nudging in ("one-sided", "random-sign", "symmetric") for beta in BETAS}
SMALL = "--channels 8 16 32 32 --scale 8 1.4 1.4 2 4 --train-images 10000 --epochs 4"
SETTLING = f"{SMALL} --tolerance 1e-4 --steps-free 100 --steps-nudged 25"
SETTLED = {f"{nudging}{end}": Row(f"--nudging {nudging} {options}") for end, options in (
    ("", f"{SETTLING} --beta 0.5"), ("-squared", f"{SETTLING} --beta 0.5 {SQUARED}"),  # 0.5: the paper's for squared error
    ("-beta-0.1", f"{SETTLING} --beta 0.1"), ("-8-3-steps", f"{SMALL} --tolerance 0 --steps-free 8 --steps-nudged 3 --beta 0.5"))
    for nudging in ("one-sided", "symmetric")}
SETTLED["one-sided-no-tolerance"] = Row(  # then the phase at beta = 0 takes K steps too: what still moves at 1e-4 cancels
    f"--nudging one-sided {SMALL} --tolerance 0 --steps-free 60 --steps-nudged 25 --beta 0.5")
SETTLED["bptt"] = Row(f"--algorithm bptt {SMALL} --steps-free 100 --steps-nudged 16")


def main():
    args = options()
    rows, out = ((CHOICES, args.out / "choose_beta") if args.choose_beta else
                 (SETTLED, args.out / "settled") if args.settled else (ROWS, args.out))
    rows = {name: row for name, row in rows.items() if args.row in (None, name)}
    out.mkdir(parents=True, exist_ok=True)
    seeds = range(3) if args.seed is None else [args.seed]
    jobs = [(name, seed) for seed in seeds for name, row in rows.items() if seed < row.seeds and not args.only_draw]
    jobs = [job for job in jobs if not (out / f"{job[0]}-{job[1]}.json").exists()]
    with tqdm(total=len(jobs), unit="training") as bar, ThreadPoolExecutor(args.jobs) as pool:
        for _ in pool.map(lambda job: train(*job, rows[job[0]], out, args, bar), jobs):
            bar.update()
    finished = {name: [json.loads(path.read_text()) for path in sorted(out.glob(f"{name}-?.json"))] for name in rows}
    finished = {name: results for name, results in finished.items() if results}
    if not finished:
        raise ep.EPError(f"no finished training in {out}: run without --only-draw first")
    evaluated_on, plot = ("held-out", plot_betas) if args.choose_beta else ("test", plot_curves)
    text = table(rows, finished, evaluated_on)
    runs.write_text(out / "table.md", text)
    figure = plot(finished, out)
    temporary = out / "curves.png.tmp"
    figure.savefig(temporary, format="png", dpi=110)
    os.replace(temporary, out / "curves.png")
    print(text + f"written: {out / 'table.md'}, {out / 'curves.png'}")


def train(name, seed, row, out, args, bar):
    """One training in a process of its own, resumed if it was interrupted; leaves NAME-SEED.json and .jsonl in `out`."""
    folder, stem = args.runs / out.name / f"{name}-{seed}", out / f"{name}-{seed}"
    recipe = ["--resume", folder] if (folder / "checkpoint.npz").exists() else [
        *shlex.split(f"{COMMON} {row.options}"), "--seed", seed, "--out", folder]
    surroundings = ["--threads", args.threads, "--device", "cpu", *(["--data", args.data] if args.data else [])]
    command = [sys.executable, "-u", HERE / "cifar10_sym_ep.py", *recipe, *surroundings]
    process = subprocess.Popen(list(map(str, command)), text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for line in process.stdout:
        if line.startswith("epoch "):
            bar.write(f"{name}, seed {seed}: {line.rstrip()}")
    if process.wait():
        raise ep.EPError(f"the training {name}, seed {seed}, failed: see it with {shlex.join(map(str, command))}", exit_code=1)
    config, result = (json.loads((folder / file).read_text()) for file in ("config.json", "result.json"))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    runs.write_text(f"{stem}.jsonl", "".join(json.dumps(line) + "\n" for line in log))
    del config["data"]  # a path of this machine
    record = dict(row=name, seed=seed, options=f"{COMMON} {row.options} --seed {seed}", numpy=np.__version__,
                  **cost_of(experiment.Config(**config), log), result=result, config=config)
    runs.write_text(f"{stem}.json", json.dumps(record, indent=1) + "\n")


def cost_of(config, log):
    """What the training took: updates, visits of images, and relaxation steps per visit in the free and all second phases."""
    converged = float(np.mean([line["converged"] for line in log]))
    return dict(updates=loop.steps_per_epoch(config.train_images, config.batch_size) * config.epochs,
                visits=config.train_images * config.epochs, steps_free=float(np.mean([line["steps_free"] for line in log])),
                steps_second=experiment.steps_per_image(config, converged)[1])


def table(rows, finished, evaluated_on):
    """Markdown: a line per row; mean and range over the seeds."""
    lines = [f"| row | differs by | seeds | {evaluated_on} accuracy (range) | train accuracy | updates | images seen | steps per "
             "image: free + second phases | seconds, fastest seed | paper, full scale |", "|---" * 10 + "|"]
    for name, results in finished.items():
        test, seconds = ([result["result"][key] for result in results] for key in ("test_accuracy", "seconds"))
        spread = f" ({min(test):.1%} to {max(test):.1%})" if len(test) > 1 else ""
        short = "" if len(results) == rows[name].seeds else f" of {rows[name].seeds}"
        first = results[0]
        lines.append(f"| {name} | `{rows[name].options}` | {len(test)}{short} | **{np.mean(test):.1%}**{spread} | "
                     f"{np.mean([result['result']['train_accuracy'] for result in results]):.1%} | {first['updates']:,} | "
                     f"{first['visits']:,} | {first['steps_free']:.0f} + {first['steps_second']:.0f} | {min(seconds):.0f} | "
                     f"{rows[name].paper} |")
    return "\n".join(lines) + "\n"


def plot_betas(finished, out):
    """Accuracy on held-out images after one epoch against beta, a line for every nudging."""
    from matplotlib.figure import Figure  # slow to import, and no display is needed

    source = next(iter(finished.values()))[0]["result"]["source"]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for nudging, colour in zip(("one-sided", "random-sign", "symmetric"), COLOURS):
        points = [(beta, 100 * finished[name][0]["result"]["test_accuracy"]) for beta in BETAS
                  if (name := f"{nudging}-{beta}") in finished]
        axis.plot(*zip(*points), "o-", color=colour, label=nudging)
    axis.set(title=f"Which beta? One epoch, one seed\n{source}", xlabel="beta", ylabel="accuracy (%)", xscale="log", xticks=BETAS,
             xticklabels=map(str, BETAS))
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def plot_curves(finished, out):
    """Test accuracy over epochs, rows in three panels: what nudging, the cost and the feedback weights change."""
    from matplotlib.figure import Figure  # slow to import, and no display is needed

    panels = {"nudging, cross-entropy": [name for name in finished if not name.endswith("squared") and "asym" not in name],
              "squared error": [name for name in finished if name.endswith("squared")],
              "feedback weights of their own": [name for name in finished if "asym" in name]}
    panels = {title: names for title, names in panels.items() if names}
    source = next(iter(finished.values()))[0]["result"]["source"]
    figure = Figure(figsize=(1 + 4 * len(panels), 5), layout="constrained")
    figure.suptitle(f"{source}; bands: lowest to highest of the seeds", fontsize="medium")
    lowest = 100.0
    for axis, (title, names) in zip(np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), panels.items()):
        compare = ["symmetric"] if "symmetric" in finished and "symmetric" not in names else []
        for name, colour in zip(names + compare, cycle(COLOURS)):
            logs = [(out / f"{name}-{result['seed']}.jsonl").read_text().splitlines() for result in finished[name]]
            y = np.array([[100 * json.loads(line)["test_accuracy"] for line in log] for log in logs])
            lowest = min(lowest, y.min())
            epochs = range(1, y.shape[1] + 1)
            style = dict(color=colour, linestyle="-", marker="o") if name in names else dict(color="black", linestyle=":")
            axis.plot(epochs, y.mean(0), markersize=4, label=f"{name} ({len(logs)} seeds)" if len(logs) > 1 else name, **style)
            axis.fill_between(epochs, y.min(0), y.max(0), alpha=0.2, color=style["color"], linewidth=0)
        axis.axhline(10, color="grey", linewidth=0.8, linestyle="--")
        axis.set(title=title, xlabel="epoch", xticks=list(epochs))
        axis.title.set_fontsize("medium")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)  # below: it hides no curve
    figure.axes[0].set(ylabel="test accuracy (%), chance: 10", ylim=(max(0, lowest - 3), None))
    return figure


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("--row", choices=[*ROWS, *CHOICES, *SETTLED], metavar="NAME", help=f"only this row: {', '.join(ROWS)}")
    add("--seed", type=cli.whole, help="only this seed (default: all of the row)")
    one_of = parser.add_mutually_exclusive_group().add_argument
    one_of("--choose-beta", action="store_true", help="train one epoch for every beta, evaluated on held-out training images")
    one_of("--settled", action="store_true", help="train a smaller network whose phases settle, and its controls")
    add("--only-draw", action="store_true", help="train nothing")
    add("--data", type=cli.path, metavar="DIR", help="where cifar-10-batches-bin is")
    add("--out", type=cli.path, metavar="DIR", default=HERE.parent / "docs" / "paper_table",
        help="results (default: docs/paper_table)")
    add("--runs", metavar="DIR", type=cli.path, default=Path("runs"), help="run folders with checkpoints (default: runs)")
    add("--jobs", type=cli.count, default=cli.cores(), help="trainings at once (default: all cores)")
    add("--threads", type=cli.count, default=1, help="worker threads of each; they change no result (default: 1)")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
