"""Which beta suits a trained ConvNet, with clipped units and max-pooling that a nudge can flip?

    python examples/11_bias_when_trained.py               # without CIFAR-10: a small network, trained first; 2 minutes
    python examples/11_bias_when_trained.py --data DIR    # the shipped one: long, and T = 400 leaves a residual of 5e-4

05_bias.py has smooth units and averages; there every estimator's error falls as a power of beta. Here a nudge flips switches and
clips units, so f(beta) has jumps and kinks, and a higher order helps only where beta is small. Error of the whole gradient
against the true one (recurrent backpropagation at a settled fixed point): by equation (4) with live switches, and by (12) from
deviations, whose switches are frozen. K = 100 nudged steps leave an error of 5e-5 that no beta removes. Far from 0 the
phase at -beta runs away: the cost pushes from the right class, the harder the further it got. Printed, for the small network:

    small network trained on 3000 images, embedded synthetic images, 16 images: residual of the free phase 2e-11
    live switches        0.001     0.003     0.010     0.032     0.100     0.316     1.000
    one-sided          3.1e-04   9.6e-04   3.0e-03   1.0e-02   5.3e-02   1.8e-01   3.7e-01
    symmetric          4.6e-05   4.7e-05   5.0e-05   1.3e-03   2.0e-02   6.8e-02   4.9e+00
    4-point            4.6e-05   4.6e-05   4.6e-05   4.6e-04   6.9e-03   4.0e-02   1.6e+00
    frozen switches      0.001     0.003     0.010     0.032     0.100     0.316     1.000
    one-sided          3.1e-04   9.6e-04   3.0e-03   1.0e-02   5.4e-02   1.8e-01   3.7e-01
    symmetric          4.6e-05   4.7e-05   5.0e-05   1.3e-03   2.0e-02   6.8e-02   4.2e+00
    4-point            4.6e-05   4.6e-05   4.6e-05   4.6e-04   6.9e-03   4.0e-02   1.4e+00
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from trained import add_options, network_and_images

import ep
from ep import Nudging
from ep.train import commandline as cli

NUDGINGS = {"one-sided": (Nudging.one_sided, "#D55E00", "o"), "symmetric": (Nudging.symmetric, "#0072B2", "s"),
            "4-point": (Nudging.four_point, "#009E73", "^")}
SWITCHES = {"live": False, "frozen": True}  # frozen: deviations from s*, at the switches of s*


def as_vector(gradient):
    return np.concatenate([g.ravel() for name, g in gradient.items() if not name.startswith("readout")])


def plot(betas, found, name, path):
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    figure.suptitle(f"Which beta suits a trained ConvNet?\n({name})", fontsize=12)
    for axes, switches in zip(figure.subplots(1, 2, sharey=True), SWITCHES):
        for nudging, (_, colour, marker) in NUDGINGS.items():
            axes.loglog(betas, found[nudging, switches], color=colour, marker=marker, markersize=5, label=nudging)
        axes.axhline(1.0, color="black", linestyle=":")
        axes.set(title=f"{switches} switches", xlabel="nudging strength beta")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("relative error of the gradient (dotted: useless)")
    figure.axes[0].legend()
    figure.savefig(path, dpi=90)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add_options(parser.add_argument, images=16)
    parser.add_argument("--steps-free", type=cli.count, default=400, metavar="T")
    parser.add_argument("--steps-nudged", type=cli.count, default=100, metavar="K")
    parser.add_argument("--betas", type=cli.count, default=7, help="number of nudging strengths from 0.001 to 1 (default: 7)")
    parser.add_argument("--out", type=cli.path, default=Path("runs/bias_when_trained"), help="folder for the figure")
    args = parser.parse_args()
    network, x, y, name = network_and_images(args)
    solver, free = ep.fast.prepared(network), ep.Phase(args.steps_free, "checkerboard", tolerance=1e-13)
    nudged, longer = (ep.Phase(K, "checkerboard") for K in (args.steps_nudged, 2 * args.steps_nudged))
    truth = ep.rbp_gradient(network, x, y, ep.Phases(free, longer))
    print(f"{name}, {len(y)} images: residual of the free phase {truth.free.residual:.0e}")
    exact, betas, found = as_vector(truth.gradient), np.geomspace(1e-3, 1, args.betas), {}
    for switches, frozen in SWITCHES.items():
        print(f"{switches + ' switches':16}" + "".join(f"{beta:10.3f}" for beta in betas))
        for nudging, (make, *_) in NUDGINGS.items():
            estimates = [ep.eqprop_gradient(network, x, y, ep.Phases(free, nudged, deviations=frozen), nudging=make(beta),
                                            solver=solver) for beta in betas]
            errors = [np.linalg.norm(as_vector(g.gradient) - exact) / np.linalg.norm(exact) for g in estimates]
            print(f"{nudging:16}" + "".join(f"{error:10.1e}" for error in errors), flush=True)
            found[nudging, switches] = errors
    args.out.mkdir(parents=True, exist_ok=True)
    plot(betas, found, name, args.out / "bias_when_trained.png")


if __name__ == "__main__":
    cli.run(main)
