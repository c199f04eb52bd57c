"""How wrong is each estimator, and what limits it: the nudging, the number format, or too few steps?

    python examples/05_bias.py                   # about 10 seconds on one core; figure in runs/bias/

The error of the whole gradient against the true one (BPTT through the converged dynamics), for nudging strengths beta from
0.003 to 0.5. The bias falls as beta^order, in float64 and at converged fixed points: a straight line on log-log axes, whose
slope is the order. Below, round-off grows as 1/beta; too few nudged steps leave an error that no beta removes. All this is
about equation (4), a difference of states. One line relaxes the deviation from s* instead, (11), and has (12) for the gradient:
its bias is not the same, but of the same order, and round-off does not grow. Printed:

    slope of the error, from 0.05 to 0.5 (where above 1e-12)
    one-sided            0.99 (theory: 1)
    symmetric            2.00 (theory: 2)
    4-point              4.00 (theory: 4)
    holomorphic, N = 6   6.00 (theory: 6)
    best symmetric estimate: float64 4e-08, float32 1e-04, K = 6 steps 1e-02, float32, deviations 2e-07
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep import Nudging, datasets
from ep.datasets.synthetic import synthetic_images
from ep.train import commandline as cli

ESTIMATORS = {  # name: (constructor, colour, marker)
    "one-sided": (Nudging.one_sided, "#D55E00", "o"),
    "symmetric": (Nudging.symmetric, "#0072B2", "s"),
    "4-point": (Nudging.four_point, "#009E73", "^"),
    "holomorphic, N = 6": (lambda beta: Nudging.holomorphic(beta, 6), "#CC79A7", "D"),
}
T, K = 150, 100  # enough for every phase here to reach round-off
FIT = (0.05, 0.5)


LABELS = {  # name: (the point that is labelled, offset)
    "float64": (-1, 8, 0), "float32": (5, -4, 9), "K = 6 steps": (-1, 8, 0), "float32, deviations": (2, 10, -6)}


def as_vector(gradient):
    return np.concatenate([g.ravel() for g in gradient.values()]).astype("float64")


def errors(network, x, y, nudging, betas, truth, steps=K, deviations=False):
    """Relative error of the gradient at every beta: by equation (4), or by (12) from deviations."""
    phases = ep.Phases(T, steps, deviations)
    found = [as_vector(ep.eqprop_gradient(network, x, y, phases, nudging=nudging(beta)).gradient) for beta in betas]
    return np.array([np.linalg.norm(g - truth) for g in found]) / np.linalg.norm(truth)


def slope(betas, error):
    """d log error / d log beta by least squares where bias rules: in FIT, and not at round-off."""
    use = (betas >= FIT[0]) & (betas <= FIT[1]) & (error > 1e-12)
    return np.polyfit(np.log(betas[use]), np.log(error[use]), 1)[0]


def plot(betas, bias, limits, path):
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    figure.suptitle("How wrong is an EP gradient? As beta^order, until number format or too few steps take over", fontsize=14)
    for name, error in bias.items():
        _, colour, marker = ESTIMATORS[name]
        left.loglog(betas, error, marker=marker, color=colour, markersize=5)
        left.annotate(f"{name}: slope {slope(betas, error):.2f}", (betas[-1], error[-1]), (8, 0), textcoords="offset points",
                      va="center", color=colour, annotation_clip=False)
    for (name, error), colour, marker in zip(limits.items(), ("#0072B2", "#000000", "#E69F00", "#CC79A7"), "so^D"):
        right.loglog(betas, error, marker=marker, color=colour, markersize=5)
        k, *offset = LABELS[name]
        k = min(k, len(betas) - 1)
        right.annotate(name, (betas[k], error[k]), offset, textcoords="offset points", color=colour, va="center",
                       annotation_clip=False)
    left.set(title="every estimator: float64, converged", ylabel="relative error of the gradient", xlabel="nudging strength beta")
    right.set(title="the symmetric one: what else limits it", xlabel="nudging strength beta")
    for axes, room in ((left, 160), (right, 12)):  # for the labels
        axes.set_xlim(betas[0] / 1.3, betas[-1] * room)
        axes.set_xticks([0.003, 0.01, 0.1, 0.5], ["0.003", "0.01", "0.1", "0.5"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--betas", type=cli.count, default=12, help="number of nudging strengths (default: 12)")
    parser.add_argument("--out", type=cli.path, default=Path("runs/bias"), help="folder for the figure")
    args = parser.parse_args()
    images, y = synthetic_images(train=6, test=1)[:2]
    x = datasets.normalise(images[:, ::2, ::2]).astype("float64")  # (N, 16, 16, 3)
    options = dict(scale=2.0, paddings=[1, 1], pool=ep.AVERAGE_POOL, activation=ep.SHIFTED_SIGMOID)
    network, single = (ep.convnet([6, 8], (16, 16, 3), **options, dtype=dtype) for dtype in ("float64", "float32"))
    single.set_parameters({name: w.astype("float32") for name, w in network.parameters().items()})
    truth = as_vector(ep.bptt_gradient(network, x, y, ep.Phases(T, T)).gradient)
    betas = np.geomspace(0.003, 0.5, args.betas)
    bias = {name: errors(network, x, y, make, betas, truth) for name, (make, _, _) in ESTIMATORS.items()}
    x32 = x.astype("float32")
    limits = {"float64": bias["symmetric"], "float32": errors(single, x32, y, Nudging.symmetric, betas, truth),
              "K = 6 steps": errors(network, x, y, Nudging.symmetric, betas, truth, steps=6),
              "float32, deviations": errors(single, x32, y, Nudging.symmetric, betas, truth, deviations=True)}
    print(f"slope of the error, from {FIT[0]} to {FIT[1]} (where above 1e-12)")
    for name, error in bias.items():
        print(f"{name:20} {slope(betas, error):.2f} (theory: {ESTIMATORS[name][0](1.0).order})")
    print("best symmetric estimate: " + ", ".join(f"{name} {error.min():.0e}" for name, error in limits.items()))
    args.out.mkdir(parents=True, exist_ok=True)
    plot(betas, bias, limits, args.out / "bias.png")


if __name__ == "__main__":
    cli.run(main)
