"""Does a trained network settle, and does it answer before it has?

    python examples/10_settling.py --data DIR    # the shipped network on CIFAR-10, and a small one at gain 1; runs/settling/
    python examples/10_settling.py               # without CIFAR-10: two small networks, trained first; 2 minutes of one core

Two networks, each relaxed far beyond the free phase that it was trained with. Per image, the largest change of any unit in one
more step tells how far it is from its fixed point; the answer is read after every step. At a weak feedback gain little comes
down, and the network computes almost as a feed-forward one: it is near its fixed point after the 2 sweeps it was trained with,
and nothing that follows changes an answer. At gain 1, the paper's, 8 steps are too few to settle. The network has learned to be
right *then*, and at its fixed point it is wrong on half of the images: no theorem about fixed points says what its training did.
The shipped network (gain 0.005) is right on 93 of 100 test images of CIFAR-10 after 2 sweeps and after 100; no answer changes.
Printed, for small networks:

    small network of gain 0.005, trained on 3000 images, embedded synthetic images, 100 images
     step  median change  settled  right
        1          1e+00       0%  99.0%
        2          6e-02       0%  99.0%
        3          5e-03       0%  99.0%
        4          3e-04      69%  99.0%
        6          5e-07     100%  99.0%
        8          1e-09     100%  99.0%
       10          3e-12     100%  99.0%
       20          5e-15     100%  99.0%
       40          5e-15     100%  99.0%
       80          5e-15     100%  99.0%
      200          5e-15     100%  99.0%
    trained with T = 2: 0 answers differ from those after 200 steps
    small network of gain 1, trained on 3000 images, embedded synthetic images, 100 images
     step  median change  settled  right
        1          8e-01       0%  12.0%
        2          5e-01       0%  19.0%
        3          6e-01       0%  48.0%
        4          6e-01       0%  69.0%
        6          3e-01       0%  90.0%
        8          2e-01       0%  93.0%
       10          2e-01       0%  88.0%
       20          1e-01       9%  66.0%
       40          2e-02      24%  52.0%
       80          1e-05      78%  48.0%
      200          5e-15     100%  45.0%
    trained with T = 8: 56 answers differ from those after 200 steps
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep.train import commandline as cli

sys.path.insert(0, str(Path(__file__).parent))  # also where python is started with -P
from trained import STRONG, add_options, free_phase, network_and_images

SETTLED = 1e-3  # an image counts as settled below this change per step


def follow(network, x, y, steps):
    """(change, right, answer), each (steps, N): how far a step moved any unit, whether the answer is right then, and which."""
    fast, phase, s, change, answer = ep.engine.prepared(network), ep.Phase(1, free_phase(network).schedule), None, [], []
    for _ in range(steps):
        old, s = s or network.init_state(x), ep.relax(fast, x, phase, start=s).states
        change.append(np.max([abs(a - b).reshape(len(x), -1).max(1) for a, b in zip(s, old)], axis=0))
        answer.append(network.predict(s))
    return np.array(change), np.array(answer) == y, np.array(answer)


def show(name, phase, change, right, answer):
    """Print the table of one network."""
    print(f"{name}, {right.shape[1]} images\n step  median change  settled  right")
    for t in sorted({t for t in (1, 2, 3, 4, 6, 8, 10, 20, 40, 80) if t < len(change)} | {len(change)}):
        print(f"{t:5}  {np.median(change[t - 1]):13.0e}  {(change[t - 1] < SETTLED).mean():7.0%}  {right[t - 1].mean():5.1%}")
    T = min(phase.steps, len(answer))
    print(f"trained with T = {T}: {(answer[T - 1] != answer[-1]).sum()} answers differ from those after {len(answer)} steps")


def plot(found, path):
    """One column for each network: how far a step moves its units; and what share of the images has settled, and is right."""
    figure = Figure(figsize=(5.2 * len(found), 7.4), layout="constrained")
    figure.suptitle("Does a trained network settle, and does it answer before it has?", fontsize=12)
    panels = figure.subplots(2, len(found), sharex=True, sharey="row", squeeze=False)
    for (moved, share), (name, phase, change, right, _) in zip(panels.T, found):
        steps = np.arange(1, len(change) + 1)
        low, median, high = np.maximum(np.quantile(change, [0.1, 0.5, 0.9], axis=1), 1e-17)
        moved.loglog(steps, median, color="#0072B2")
        moved.fill_between(steps, low, high, color="#0072B2", alpha=0.25, linewidth=0)
        moved.axhline(SETTLED, color="black", linestyle=":")
        moved.text(steps[-1], SETTLED, "settled below", fontsize=9, va="bottom", ha="right")
        moved.set_title(name.replace(", ", ",\n", 1), fontsize=10)
        for values, colour, label in ((right, "#D55E00", "right answer"), (change < SETTLED, "#009E73", "settled")):
            share.semilogx(steps, 100 * values.mean(1), color=colour, label=label)
        share.set(ylim=(-3, 103), xlabel="sweep of the free phase" if phase.schedule == "up" else "step of the free phase")
        for axes in (moved, share):
            axes.axvline(phase.steps, color="black", linewidth=1)
            axes.grid(alpha=0.3)
        moved.text(phase.steps * 1.08, 1e-15, f"trained with T = {phase.steps}", fontsize=9)
    panels[0, 0].set_ylabel("largest change of any unit in a step\nline: median image, band: 80% of the images")
    panels[1, 0].set_ylabel("share of the images (%)")
    panels[1, 0].legend(loc="center right")
    figure.savefig(path, dpi=90)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add_options(parser.add_argument, images=100)
    parser.add_argument("--steps", type=cli.count, default=200, metavar="T", help="steps of the free phase (default: 200)")
    parser.add_argument("--out", type=cli.path, default=Path("runs/settling"), help="folder for the figure")
    args, found = parser.parse_args(), []
    for gain in (None, STRONG) if args.model is None and args.feedback is None else (None,):
        network, x, y, name = network_and_images(args, gain, steps=(8, 3))
        parts = [follow(network, x[part], y[part], args.steps) for part in ep.train.loop.chunks(len(y))]
        found.append((name, free_phase(network), *(np.concatenate(each, axis=1) for each in zip(*parts))))
        show(*found[-1])
    args.out.mkdir(parents=True, exist_ok=True)
    plot(found, args.out / "settling.png")


if __name__ == "__main__":
    cli.run(main)
