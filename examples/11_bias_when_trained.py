"""Which beta suits a trained ConvNet, with clipped units and max-pooling that a nudge can flip?

    python examples/11_bias_when_trained.py               # two small networks, trained first; runs/bias_when_trained/
    python examples/11_bias_when_trained.py --data DIR    # the shipped network on CIFAR-10, and a small one at gain 1: long

HEADER
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from trained import STRONG, add_options, free_phase, network_and_images

import ep
from ep import Nudging
from ep.train import commandline as cli

NUDGINGS = {"one-sided": (Nudging.one_sided, "#D55E00", "o"), "symmetric": (Nudging.symmetric, "#0072B2", "s"),
            "4-point": (Nudging.four_point, "#009E73", "^")}
SWITCHES = {"live": False, "frozen": True}  # frozen: deviations from s*, at the switches of s*


def as_vector(gradient):
    return np.concatenate([g.ravel() for name, g in gradient.items() if not name.startswith("readout")])


def errors_of(network, x, y, betas, T, K):
    """Print, return {(nudging, switches): relative error of the gradient for every beta}; weak: of the phases as trained, too."""
    schedule = free_phase(network).schedule
    down = "down" if schedule == "up" else schedule
    free, nudged, longer = ep.Phase(T, schedule, tolerance=1e-13), ep.Phase(K, down), ep.Phase(2 * K, down)
    truth, solver, found = ep.rbp_gradient(network, x, y, ep.Phases(free, longer)), ep.fast.prepared(network), {}
    print(f"{len(y)} images, residual of the free phase {truth.free.residual:.0e}")
    exact = as_vector(truth.gradient)

    def row(title, make, phases):
        estimates = [ep.eqprop_gradient(network, x, y, phases, nudging=make(beta), solver=solver) for beta in betas]
        errors = [np.linalg.norm(as_vector(g.gradient) - exact) / np.linalg.norm(exact) for g in estimates]
        print(f"{title:16}" + "".join(f"{error:10.1e}" for error in errors), flush=True)
        return errors

    for switches, frozen in SWITCHES.items():
        print(f"{switches + ' switches':16}" + "".join(f"{beta:10.3f}" for beta in betas))
        for nudging, (make, *_) in NUDGINGS.items():
            found[nudging, switches] = row(nudging, make, ep.Phases(free, nudged, deviations=frozen))
    if down == "down":
        few = ep.Phases(ep.Phase(2, "up"), ep.Phase(1, "down"))
        found["T = 2, K = 1", "frozen"] = row("T = 2, K = 1", Nudging.symmetric, few)
    return found


def plot(betas, results, path):
    """One panel for each network."""
    figure = Figure(figsize=(5.2 * len(results), 4.8), layout="constrained")
    figure.suptitle("Which beta suits a trained ConvNet? (solid: deviations, at the switches of s*; dashed: live switches)",
                    fontsize=12)
    for axes, (name, found) in zip(figure.subplots(1, len(results), sharey=True, squeeze=False)[0], results.items()):
        for (nudging, switches), errors in found.items():
            _, colour, marker = NUDGINGS.get(nudging, (None, "#000000", "D"))
            axes.loglog(betas, errors, "-" if switches == "frozen" else "--", color=colour, marker=marker, markersize=5,
                        markerfacecolor="none" if switches == "live" else None,
                        label=(nudging if nudging in NUDGINGS else f"symmetric, {nudging}") if switches == "frozen" else None)
        axes.axhline(1.0, color="black", linestyle=":")
        axes.set_title(name.replace(", ", ",\n", 1), fontsize=10)
        axes.set_xlabel("nudging strength beta")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    figure.axes[0].set_ylabel("relative error of the gradient (dotted: useless)")
    figure.savefig(path, dpi=90)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add_options(parser.add_argument, images=16)
    parser.add_argument("--steps-free", type=cli.count, default=400, metavar="T", help="at most (default: 400)")
    parser.add_argument("--steps-nudged", type=cli.count, default=100, metavar="K", help="default: 100")
    parser.add_argument("--betas", type=cli.count, default=7, help="number of nudging strengths from 0.001 to 1 (default: 7)")
    parser.add_argument("--out", type=cli.path, default=Path("runs/bias_when_trained"), help="folder for the figure")
    args, results = parser.parse_args(), {}
    betas = np.geomspace(1e-3, 1, args.betas)
    for gain in (None, STRONG) if args.model is None and args.feedback is None else (None,):
        network, x, y, name = network_and_images(args, gain)
        print(f"{name}, ", end="")
        most = 30 if free_phase(network).schedule == "up" else 10_000  # after 30 sweeps nothing is left to settle
        results[name] = errors_of(network, x, y, betas, min(args.steps_free, most), min(args.steps_nudged, most))
    args.out.mkdir(parents=True, exist_ok=True)
    plot(betas, results, args.out / "bias_when_trained.png")


if __name__ == "__main__":
    cli.run(main)
