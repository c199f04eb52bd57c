"""Does equilibrium propagation compute what backpropagation through time computes, step by step?

    python examples/04_increments.py             # about 3 seconds on one core; figure in runs/increments/

After a converged free phase, step t of a nudged phase changes -dPhi/dtheta by an increment, and BPTT's gradient has a term for
the same distance t from the end. The theorem (gradient descending updates) says that they are equal as beta -> 0: for every
weight, at every step. Here at beta = 1, far from 0: a ConvNet as initialised, on 8 embedded images. Printed:

    error of all increments, relative
    nudging           layer 1     layer 2     layer 3
    one-sided        1.4e-01     1.7e-01     3.4e-01
    symmetric        2.1e-02     2.2e-02     2.6e-02
    4-point          4.7e-04     3.9e-04     3.2e-04
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep import Nudging, datasets
from ep.datasets.synthetic import synthetic_images
from ep.train import commandline as cli

NUDGINGS = {"one-sided": Nudging.one_sided, "symmetric": Nudging.symmetric, "4-point": Nudging.four_point}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # one per weight; blue, vermilion, green, purple


def column(increments, layer):
    """Increments of the weights of a layer: (steps, number of weights)."""
    return np.stack([g[f"{layer}.W"].ravel() for g, _ in increments])


def plot(backward, forward, errors, beta, path):
    """A row per nudging, a column per layer: the four weights of each layer that BPTT moves most at their largest step."""
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    figure.suptitle(f"Are EP's increments those of BPTT? At beta = {beta:g}: the more nudged phases, the closer", fontsize=14)
    axes = figure.subplots(len(forward), 3, sharex=True, sharey="col")
    for row, (name, increments) in zip(axes, forward.items()):
        for layer, panel in enumerate(row, start=1):
            truth, found = column(backward, layer), column(increments, layer)
            kernels = np.argsort(-abs(truth).max(0))[:200:50]  # not the four largest: those are often neighbours
            for weight, colour in zip(kernels, COLOURS):
                panel.plot(-1000 * found[:, weight], color=colour, linewidth=2)
                panel.plot(-1000 * truth[:, weight], "k:", linewidth=1.5)
            panel.set_title(f"layer {layer}, {name}: error {errors[name][layer - 1]:.2g}", fontsize=10)
            panel.grid(alpha=0.3)
        row[0].set_ylabel("update in this step, x 1000")
    for panel in axes[-1]:
        panel.set_xlabel("step t of the nudged phase")
    axes[0, 0].text(0.97, 0.95, "colours: EP, four weights\ndotted: BPTT, the same", transform=axes[0, 0].transAxes, ha="right",
                    va="top", fontsize=9)
    figure.savefig(path, dpi=72)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--beta", type=cli.number, default=1.0, help="the largest |beta| of the points (default: 1)")
    parser.add_argument("--steps", type=cli.count, default=16, help="of the nudged phase (default: 16)")
    parser.add_argument("--images", type=cli.count, default=8)
    parser.add_argument("--out", type=cli.path, default=Path("runs/increments"), help="folder for the figure")
    args = parser.parse_args()
    images, y = synthetic_images(train=args.images, test=1)[:2]
    x = datasets.normalise(images[:, ::2, ::2]).astype("float64")  # (N, 16, 16, 3)
    network = ep.convnet([8, 16, 16], (16, 16, 3), scale=3.0, paddings=[1, 1, 1], pool=ep.AVERAGE_POOL,
                         activation=ep.SHIFTED_SIGMOID, dtype="float64")
    free = ep.relax(network, x, ep.Phase(1000, tolerance=1e-15))
    backward = ep.bptt_increments(network, x, y, free.states, args.steps)
    forward = {name: ep.eqprop_increments(network, x, y, free.states, args.steps, nudging=make(args.beta))
               for name, make in NUDGINGS.items()}
    errors = {name: [np.linalg.norm(column(found, layer) - column(backward, layer)) / np.linalg.norm(column(backward, layer))
                     for layer in (1, 2, 3)] for name, found in forward.items()}
    print("error of all increments, relative\nnudging      " + "".join(f"     layer {layer}" for layer in (1, 2, 3)))
    for name, e in errors.items():
        print(f"{name:12}" + "".join(f"{value:12.1e}" for value in e))
    args.out.mkdir(parents=True, exist_ok=True)
    plot(backward, forward, errors, args.beta, args.out / "increments.png")


if __name__ == "__main__":
    cli.run(main)
