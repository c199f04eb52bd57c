"""How far from 0 may the nudging be, if beta is complex?

    python examples/08_holomorphic.py            # about 20 seconds on one core; figure in runs/holomorphic/

Where sigma and pooling are complex-differentiable, s^beta is an analytic function of beta, and Cauchy's formula on N points
of the circle |beta| = r gives its derivative at 0 with an error that falls geometrically in N: like (r/R)^N, R the distance to
the nearest singularity, where the fixed point is lost. So the gradient is exact to 13 digits at a nudging where the symmetric
estimate (N = 2) is wrong in the third. Only N/2 + 1 phases are run: the others are their complex conjugates. Printed:

    relative error      beta = 0.5   beta = 1     beta = 2
    symmetric                 1e-03        4e-03        2e-02
    holomorphic N =  2        1e-03        4e-03        2e-02
    holomorphic N =  4        7e-06        1e-04        2e-03
    holomorphic N =  6        5e-08        3e-06        2e-04
    holomorphic N =  8        2e-09        4e-07        1e-04
    holomorphic N = 12        5e-13        2e-09        8e-06
    holomorphic N = 16        2e-14        1e-11        6e-07
    holomorphic N = 20        1e-14        8e-14        9e-08
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep import Nudging, datasets
from ep.datasets.synthetic import synthetic_images
from ep.train import commandline as cli

BETAS = {0.5: ("#0072B2", "o"), 1.0: ("#D55E00", "s"), 2.0: ("#009E73", "^")}  # colour, marker
PHASES = ep.Phases(free=200, nudged=200)


def as_vector(gradient):
    return np.concatenate([g.ravel() for g in gradient.values()])


def plot(points, symmetric, holomorphic, path):
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title("How large may a complex beta be? Large, with enough points", fontsize=13)
    for beta, (colour, marker) in BETAS.items():
        axes.semilogy(points, holomorphic[beta], marker=marker, color=colour)
        axes.annotate(f"beta = {beta:g}", (points[-1], holomorphic[beta][-1]), (9, 0), textcoords="offset points", va="center",
                      color=colour)
        axes.semilogy(2, symmetric[beta], marker=marker, markersize=11, markerfacecolor="none", color=colour, markeredgewidth=2)
    axes.text(2.4, max(symmetric.values()) * 3, "large and hollow: symmetric nudging, the same beta", va="bottom")
    axes.set(xlabel="points N on the circle |beta|", ylabel="relative error of the gradient", xticks=points,
             xlim=(1.2, points[-1] + 3.6))
    axes.set_ylim(top=20 * max(symmetric.values()))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--points", type=cli.count, nargs="+", default=[2, 4, 6, 8, 12, 16, 20], metavar="N")
    parser.add_argument("--out", type=cli.path, default=Path("runs/holomorphic"), help="folder for the figure")
    args = parser.parse_args()
    images, y = synthetic_images(train=6, test=1)[:2]
    x = datasets.normalise(images[:, ::2, ::2]).astype("float64")  # (N, 16, 16, 3)
    network = ep.convnet([6, 8], (16, 16, 3), scale=2.0, paddings=[1, 1], pool=ep.AVERAGE_POOL, activation=ep.SHIFTED_SIGMOID,
                         dtype="float64")
    truth = as_vector(ep.bptt_gradient(network, x, y, PHASES).gradient)

    def error(nudging):
        found = ep.eqprop_gradient(network, x, y, PHASES, nudging=nudging)
        return np.linalg.norm(as_vector(found.gradient) - truth) / np.linalg.norm(truth)

    symmetric = {beta: error(Nudging.symmetric(beta)) for beta in BETAS}
    holomorphic = {beta: [error(Nudging.holomorphic(beta, n)) for n in args.points] for beta in BETAS}
    print("relative error    " + "".join(f"  beta = {beta:<4g}" for beta in BETAS))
    print("symmetric         " + "".join(f"{symmetric[beta]:13.0e}" for beta in BETAS))
    for k, n in enumerate(args.points):
        print(f"holomorphic N ={n:3}" + "".join(f"{holomorphic[beta][k]:13.0e}" for beta in BETAS))
    args.out.mkdir(parents=True, exist_ok=True)
    plot(args.points, symmetric, holomorphic, args.out / "holomorphic.png")


if __name__ == "__main__":
    cli.run(main)
