"""What does a network do when it relaxes, and when it is nudged?

    python examples/03_relax_and_nudge.py        # about 1 minute on one core without a shipped model; runs/relax_and_nudge/

A trained ConvNet with one image held at its input (one that it is not sure of), step by step: first the free phase from zero,
then from s* two nudged phases, towards the right class (+beta) and away from it (-beta). Printed, for a small
network trained on 3000 embedded images:

    small network of gain 1, trained on 3000 images, embedded synthetic images
    free phase: residual 5e-08 after 60 steps
    free phase: E = -254.843, probability of the right class 0.879
    +beta     : E = -254.842, probability of the right class 0.881
    -beta     : E = -254.842, probability of the right class 0.877
    moved by +beta, layers 1, 2, ...: 5.9e-05 1.8e-04 6.8e-04 5.0e-03

(The feedback gain is 1, the paper's. At a weak gain the same happens in two sweeps, and a lower layer moves too little to be
seen: by the gain less than the one above it.)
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep.train import commandline as cli

sys.path.insert(0, str(Path(__file__).parent))  # also where python is started with -P
from trained import STRONG, add_options, network_and_images

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")  # one per layer
PHASES = {"free phase": "#000000", "+beta": "#D55E00", "-beta": "#0072B2"}
LABELS = {"free phase": 10, "+beta": 5, "-beta": -5}  # above the line, in points; of the energy, -beta's is the upper one


def trajectory(network, x, y, beta, steps, start):
    """[states after 0, 1, ... steps steps]: relax() one step at a time, to look in between."""
    states = [start]
    for _ in range(steps):
        states.append(ep.relax(network, x, ep.Phase(1, "checkerboard"), y, beta, start=states[-1]).states)
    return states


def distances(states, fixed):
    """Root mean square of s_t - s*, per step and layer."""
    return np.array([[((s - f) ** 2).mean() ** 0.5 for s, f in zip(state, fixed)] for state in states])


def plot(network, x, y, phases, path):
    figure = Figure(figsize=(10, 7.4), layout="constrained")
    figure.suptitle("What do relaxing and nudging do? The free phase settles; a nudge of the last layer spreads down",
                    fontsize=13)
    (settle, spread), (energy, output) = figure.subplots(2, 2)
    fixed, T = phases["free phase"][-1], len(phases["free phase"]) - 1
    for axes, name in ((settle, "free phase"), (spread, "+beta")):
        d = distances(phases[name], fixed)
        for n in range(d.shape[1]):
            seen = d[:, n] > 1e-12
            axes.semilogy(np.flatnonzero(seen), d[seen, n], color=COLOURS[n], linewidth=2)
            beside = 0.82 * len(d), 10 ** -(0.4 + 0.9 * (d.shape[1] - n))  # in the free phase, the lines are too close
            end = (len(d) - 1, d[-1, n]) if name == "+beta" else beside
            axes.annotate(f"layer {n + 1}", end, (5, 0), va="center", color=COLOURS[n],
                          textcoords="offset points", annotation_clip=False)
        axes.set(title=f"{name}: distance of each layer from s*", xlabel="step of this phase", ylabel="root mean square")
    spread.set_xlim(0, len(phases["+beta"]) * 1.2)
    for name, states in phases.items():
        t = np.arange(len(states)) + (0 if name == "free phase" else T)
        e = np.array([float((network.energy(x, s) - network.energy(x, fixed))[0]) for s in states])
        p = np.array([float(network.cost.output(s[-1])[0, y[0]]) for s in states])
        for axes, values, seen, side in ((energy, e, e > 1e-9, -1), (output, p, p > 0, 1)):
            t_seen, values = t[seen], values[seen]
            axes.plot(t_seen, values, color=PHASES[name], linewidth=2)
            middle, side = (len(t_seen) // 2, 1) if name == "free phase" else (-1, side)
            axes.annotate(name, (t_seen[middle], values[middle]), (5, side * LABELS[name]), textcoords="offset points",
                          color=PHASES[name], va="center", annotation_clip=False)
    for axes in (energy, output):
        axes.axvline(T, color="gray", linestyle=":")
        axes.set(xlabel="step", xlim=(0, 1.18 * (T + len(phases["+beta"]))))
    energy.set(title="energy above that of s*, E = sum G(s) - Phi", ylabel="E - E(s*)", yscale="log")
    output.set(title="readout: probability of the right class", ylabel="probability", ylim=(0, 1.05))
    for axes in (settle, spread, energy, output):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add_options(parser.add_argument, images=20)
    parser.add_argument("--beta", type=cli.positive, default=0.5)
    parser.add_argument("--steps-free", type=cli.count, default=60)
    parser.add_argument("--steps-nudged", type=cli.count, default=30)
    parser.add_argument("--out", type=cli.path, default=Path("runs/relax_and_nudge"), help="folder for the figure")
    args = parser.parse_args()
    network, x, y, name = network_and_images(args, STRONG)
    states = ep.relax(ep.engine.prepared(network), x, ep.Phase(args.steps_free, "checkerboard")).states
    unsure = [abs(network.cost.output(states[-1])[np.arange(len(y)), y] - 0.4).argmin()]  # an image that a nudge can move
    x, y = x[unsure], y[unsure]
    free = trajectory(network, x, y, 0.0, args.steps_free, network.init_state(x))
    nudged = [trajectory(network, x, y, beta, args.steps_nudged, free[-1]) for beta in (args.beta, -args.beta)]
    phases = dict(zip(PHASES, (free, *nudged)))
    print(name)
    print(f"free phase: residual {ep.residual(*free[-2:]):.0e} after {args.steps_free} steps")
    for phase, states in phases.items():
        print(f"{phase:10}: E = {float(network.energy(x, states[-1])[0]):.3f}, probability of the right class "
              f"{network.cost.output(states[-1][-1])[0, y[0]]:.3f}")
    d = distances(phases["+beta"], free[-1])[-1]
    print("moved by +beta, layers 1, 2, ...: " + " ".join(f"{value:.1e}" for value in d))
    args.out.mkdir(parents=True, exist_ok=True)
    plot(network, x, y, phases, args.out / "relax_and_nudge.png")


if __name__ == "__main__":
    cli.run(main)
