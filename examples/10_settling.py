"""Does a trained network settle, and does it answer before it has?

    python examples/10_settling.py --data DIR    # the shipped network on CIFAR-10: about 1 minute of one core; runs/settling/
    python examples/10_settling.py               # without CIFAR-10: a small network, trained first on embedded images

The free phase of a network that was trained by phases of a few steps, continued far beyond them. Per image, the largest change
of any unit in one more step tells how far it is from its fixed point; the prediction is read after every step. Printed, for the
small network (trained with T = 15):

    small network trained on 3000 images, embedded synthetic images, 100 images
     step  median change  settled  right
        1          1e+00       0%  12.0%
        2          5e-01       0%  37.0%
        4          5e-01       0%  85.0%
        6          2e-01       0%  95.0%
        8          1e-01       0%  98.0%
       10          1e-01       0%  98.0%
       20          6e-03      20%  100.0%
       40          1e-05      80%  99.0%
       80          3e-10      94%  97.0%
      120          8e-15      98%  97.0%
      200          4e-15      98%  97.0%
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from trained import add_options, network_and_images

import ep
from ep.train import commandline as cli

SETTLED = 1e-3  # an image counts as settled below this change per step


def follow(network, x, y, steps):
    """(change (steps, N), right (steps, N)): of every image in every step, and whether the prediction after it is right."""
    relax, s, change, right = ep.fast.prepared(network).relax, network.init_state(x), [], []
    for _ in range(steps):
        new = relax(network, x, ep.Phase(1, "checkerboard"), start=s).states
        change.append(np.max([abs(a - b).reshape(len(x), -1).max(1) for a, b in zip(new, s)], axis=0))
        right.append(network.predict(new) == y)
        s = new
    return np.array(change), np.array(right)


def plot(change, right, name, path):
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    figure.suptitle(f"Does a trained network settle, and does it answer before it has?\n({name})", fontsize=12)
    (left, share), steps = figure.subplots(1, 2), np.arange(1, len(change) + 1)
    low, median, high = np.quantile(change, [0.1, 0.5, 0.9], axis=1)
    left.loglog(steps, median, color="#0072B2")
    left.fill_between(steps, low, high, color="#0072B2", alpha=0.25, linewidth=0)
    left.axhline(SETTLED, color="black", linestyle=":")
    left.text(1.1, SETTLED, "settled", fontsize=9, va="bottom")
    left.set(title="largest change of any unit in a step\nline: median image, band: 80% of the images")
    for values, colour, label in ((right, "#D55E00", "right answer"), (change < SETTLED, "#009E73", "settled")):
        share.semilogx(steps, 100 * values.mean(1), color=colour, label=label)
    share.set(title="share of the images (%)", ylim=(-3, 103))
    share.legend(loc="upper left")
    for axes in (left, share):
        axes.set_xlabel("step of the free phase")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add_options(parser.add_argument, images=100)
    parser.add_argument("--steps", type=cli.count, default=200, metavar="T", help="steps of the free phase (default: 200)")
    parser.add_argument("--out", type=cli.path, default=Path("runs/settling"), help="folder for the figure")
    args = parser.parse_args()
    network, x, y, name = network_and_images(args)
    change, right = (np.concatenate(parts, axis=1) for parts in zip(
        *(follow(network, x[part], y[part], args.steps) for part in ep.train.loop.chunks(len(y)))))
    print(f"{name}, {len(y)} images\n step  median change  settled  right")
    for t in sorted({t for t in (1, 2, 4, 6, 8, 10, 20, 40, 80, 120) if t < args.steps} | {args.steps}):
        print(f"{t:5}  {np.median(change[t - 1]):13.0e}  {(change[t - 1] < SETTLED).mean():7.0%}  {right[t - 1].mean():5.1%}")
    args.out.mkdir(parents=True, exist_ok=True)
    plot(change, right, name, args.out / "settling.png")


if __name__ == "__main__":
    cli.run(main)
