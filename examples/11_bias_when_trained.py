"""Which beta suits a trained ConvNet, with clipped units and max-pooling that a nudge can flip?

    python examples/11_bias_when_trained.py               # two small networks, trained first; 3 minutes of one core
    python examples/11_bias_when_trained.py --data DIR    # the shipped network on CIFAR-10, and a small one at gain 1: long

05_bias.py has smooth units and averages; there every estimator's error falls as a power of beta. Here a nudge flips switches and
clips units, so f(beta) has jumps and kinks, and a higher order helps only where beta is small. Error of the whole gradient
against the true one (recurrent backpropagation at a settled fixed point): by equation (4) with live switches, and by (12) from
deviations, whose switches are frozen. Far from 0 the phase at -beta runs away: the cost pushes from the right class, the harder
the further it got.

At a weak gain, where the network computes almost as a feed-forward one, the response of the first layer is a ten-millionth of the
nudge. So the difference of two states (live) is limited by rounding, even in float64, and gets worse as beta falls; deviations
do not. "T = 2, K = 1" is the symmetric estimate by the few sweeps that the network was trained with: they leave an error of 6%,
and at beta = 0.1, that of the preset `cpu`, the bias begins to show. Printed:

    small network of gain 0.005, trained on 3000 images, embedded synthetic images, 16 images, residual of the free phase 9e-15
    live switches        0.001     0.003     0.010     0.032     0.100     0.316     1.000
    one-sided          2.8e-03   5.3e-03   1.6e-02   4.9e-02   1.4e-01   3.1e-01   6.3e-01
    symmetric          1.0e-03   3.0e-04   4.0e-04   3.0e-02   7.6e-02   1.0e+00   2.0e+00
    4-point            3.0e-03   7.1e-04   2.4e-04   9.7e-03   3.8e-02   2.3e-01   2.3e+00
    frozen switches      0.001     0.003     0.010     0.032     0.100     0.316     1.000
    one-sided          1.7e-03   5.2e-03   1.6e-02   4.9e-02   1.4e-01   3.1e-01   6.3e-01
    symmetric          4.0e-06   4.0e-05   4.0e-04   3.0e-02   7.6e-02   1.0e+00   2.0e+00
    4-point            6.6e-12   6.6e-10   6.6e-08   9.7e-03   3.8e-02   2.3e-01   2.3e+00
    T = 2, K = 1       5.7e-02   5.7e-02   5.4e-02   5.0e-02   6.2e-02   1.1e-01   2.3e-01
    small network of gain 1, trained on 3000 images, embedded synthetic images, 16 images, residual of the free phase 1e-13
    live switches        0.001     0.003     0.010     0.032     0.100     0.316     1.000
    one-sided          8.3e-05   2.6e-04   8.3e-04   2.6e-03   1.8e-02   3.8e-02   5.0e+00
    symmetric          5.9e-08   1.5e-07   1.3e-06   9.5e-04   1.1e-01   4.2e-01   4.0e+00
    4-point            5.7e-08   5.7e-08   5.7e-08   2.8e-04   3.6e-02   1.4e-01   6.1e+00
    frozen switches      0.001     0.003     0.010     0.032     0.100     0.316     1.000
    one-sided          8.3e-05   2.6e-04   8.3e-04   2.6e-03   1.8e-02   3.8e-02   8.9e-02
    symmetric          5.9e-08   1.5e-07   1.3e-06   9.5e-04   1.1e-01   4.2e-01   9.1e-01
    4-point            5.7e-08   5.7e-08   5.7e-08   2.8e-04   3.6e-02   1.4e-01   4.8e-01
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep import Nudging
from ep.train import commandline as cli

sys.path.insert(0, str(Path(__file__).parent))  # also where python is started with -P
from trained import STRONG, add_options, free_phase, network_and_images

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
    truth, fast, found = ep.rbp_gradient(network, x, y, ep.Phases(free, longer)), ep.engine.prepared(network), {}
    print(f"{len(y)} images, residual of the free phase {truth.free.residual:.0e}")
    exact = as_vector(truth.gradient)

    def row(title, make, phases):
        estimates = [ep.eqprop_gradient(fast, x, y, phases, nudging=make(beta)) for beta in betas]
        errors = [np.linalg.norm(as_vector(g.gradient) - exact) / np.linalg.norm(exact) for g in estimates]
        print(f"{title:16}" + "".join(f"{error:10.1e}" for error in errors), flush=True)
        return errors

    for switches, frozen in SWITCHES.items():
        print(f"{switches + ' switches':16}" + "".join(f"{beta:10.3f}" for beta in betas))
        for nudging, (make, *_) in NUDGINGS.items():
            found[nudging, switches] = row(nudging, make, ep.Phases(free, nudged, deviations=frozen))
    if down == "down":
        few = ep.Phases(ep.Phase(2, "up"), ep.Phase(1, "down"), deviations=True)
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
