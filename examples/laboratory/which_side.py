"""Does it matter on which side of the free phase one nudges?

    python examples/laboratory/which_side.py --data DIR       # 22 trainings of a small network; 87 minutes on a busy core

One-sided nudging compares the free state with one that is nudged towards the target (beta > 0) or away from it (beta < 0).
For small beta both estimate the same gradient. But this network clips, s = clip(u/2, 0, 1). The exact gradient teaches the
weights into a unit that is at 0 nothing. A large enough nudge moves such a unit, but only upwards. Divided by beta > 0 this is a
gradient that raises its drive, and brings it back; divided by beta < 0 one that pushes it further out
(docs/theory/estimators.md). The symmetric estimate is the mean of the two. `stuck`: the share of the units of layer 4, the last
hidden one, that were at the same bound in a whole batch, in the last epoch.

All else is equal: a network of 8, 16, 32 and 32 channels at a feedback gain of 0.01, 10,000 images of CIFAR-10 (JPEG copy), three
epochs of SGD, free phases that settle to 1e-4, nudged phases of 4 steps as deviations. Accuracy on 5,000 training images that
were held out; mean of the seeds 0 and 1. Printed:

    nudging      beta   held-out accuracy   stuck, layer 4
    one-sided    -0.5            9.8%            100.0%
    one-sided    -0.1           21.0%             89.9%
    one-sided   -0.02           32.7%             52.9%
    one-sided  -0.002           39.5%             24.2%
    one-sided   0.002           39.9%             19.8%
    one-sided    0.02           41.5%              7.4%
    one-sided     0.1           42.4%              0.0%
    one-sided     0.5           41.6%              0.0%
    symmetric    0.02           39.6%             17.0%
    symmetric     0.1           39.8%             20.4%
    symmetric     0.5           34.8%             51.1%
    written: runs/which_side/which_side.jsonl, runs/which_side/which_side.png
"""

import argparse
import contextlib
import io
import json
from pathlib import Path

import numpy as np
import sweep
from matplotlib.figure import Figure

from ep.train import commandline as cli, runs

IMAGES = "--images 10000 --validation-images 5000".split()
TRAINING = ("--preset cpu --channels 8 16 32 32 --scale 8 1.4 1.4 2 4 --feedback 0.01 --steps-free 100 --tolerance 1e-4 "
           "--steps-nudged 4 --schedule checkerboard --schedule-nudged checkerboard --optimizer sgd --whitening 0 "
           "--lr 0.2 0.03 0.02 0.015 0.01 --batch-size 32 --pad 0 --dataset cifar10 --epochs 3").split()
SEEDS = (0, 1)
BETAS = {"one-sided": (-0.5, -0.1, -0.02, -0.002, 0.002, 0.02, 0.1, 0.5), "symmetric": (0.02, 0.1, 0.5)}
COLOURS = {"one-sided": "#D55E00", "symmetric": "#0072B2"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--data", type=cli.path, metavar="DIR", help="where the images are")
    parser.add_argument("--jobs", type=cli.count, default=cli.cores(), help="trainings at once (default: all cores)")
    parser.add_argument("--out", type=cli.path, default=Path("runs/which_side"), help="run folders, log and figure")
    args = parser.parse_args()
    rows = [row for nudging in BETAS for row in trained(nudging, args)]
    runs.write_text(args.out / "which_side.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    print("    nudging      beta   held-out accuracy   stuck, layer 4")
    for (nudging, beta), group in grouped(rows):
        accuracy, stuck = (np.mean([row[key] for row in group]) for key in ("test_accuracy", "stuck_4"))
        print(f"    {nudging:10} {beta:6g} {accuracy:15.1%} {stuck:17.1%}")
    plot(rows, args.out / "which_side.png")
    print(f"written: {args.out / 'which_side.jsonl'}, {args.out / 'which_side.png'}")


def trained(nudging, args):
    """The last line of the log of every training, with what it was; trained by sweep.py, which keeps what is finished."""
    grid = [f"nudging={nudging}", f"beta={','.join(map(str, BETAS[nudging]))}", f"seed={','.join(map(str, SEEDS))}"]
    data, out = ["--data", str(args.data)] if args.data else [], args.out / nudging
    with contextlib.redirect_stdout(io.StringIO()):  # its own table
        sweep.main(["--grid", *grid, *IMAGES, *data, f"--jobs={args.jobs}", "--out", str(out), "--", *TRAINING])
    for beta in BETAS[nudging]:
        for seed in SEEDS:
            log = out / f"nudging={nudging},beta={beta},seed={seed}" / "log.jsonl"
            yield dict(nudging=nudging, beta=beta, seed=seed) | json.loads(log.read_text(encoding="utf-8").splitlines()[-1])


def grouped(rows):
    """[((nudging, beta), its rows, one per seed)]"""
    keys = dict.fromkeys((row["nudging"], row["beta"]) for row in rows)
    return [(key, [row for row in rows if (row["nudging"], row["beta"]) == key]) for key in keys]


def plot(rows, path):
    """Accuracy and stuck units against beta: the mean of the seeds, and every seed as a dot."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle("Which side of the free phase? Accuracy and stuck units of a network with clipped units")
    for axes, key, label in zip(figure.subplots(1, 2), ("test_accuracy", "stuck_4"),
                                ("held-out accuracy (%)", "units of layer 4 stuck at a bound (%)")):
        for nudging, colour in COLOURS.items():
            groups = [(beta, [100 * row[key] for row in group]) for (name, beta), group in grouped(rows) if name == nudging]
            axes.plot([beta for beta, _ in groups], [np.mean(values) for _, values in groups], "-", color=colour, label=nudging)
            for beta, values in groups:
                axes.plot([beta] * len(values), values, "o", color=colour, markersize=4)
        axes.set_xscale("symlog", linthresh=0.002)
        axes.axvline(0, color="0.7", linewidth=0.8)
        axes.set(xlabel="beta: away from the target < 0 < towards it", ylabel=label, ylim=(0, None))
        axes.set_xticks(BETAS["one-sided"], labels=[f"{beta:g}" for beta in BETAS["one-sided"]])
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    cli.run(main)
