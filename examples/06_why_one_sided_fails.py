"""What is wrong with one nudged phase?

    python examples/06_why_one_sided_fails.py    # about 2 minutes of one core without a model; runs/why_one_sided_fails/

Estimates of a *trained* ConvNet's gradient, layer by layer, against the true one (recurrent backpropagation at a converged fixed
point): the angle between them, above 90 degrees a step climbs; and the share of weights with a wrong sign. Two things are wrong
where feedback is strong (gain 1, the paper's network). Drift: a free phase of T steps that has not converged goes on moving
during the K nudged ones, and "s^beta minus s_T" takes that for the response; between two phases of K steps it cancels, also if
one of them has beta = 0. Bias: O(beta) is left then, which two phases at +beta and -beta cancel to leading order. The paper found
that one nudged phase does not train on CIFAR-10 (docs/theory/estimators.md has what this project's trainings say to that).

At a weak gain 2 sweeps nearly settle, but what then still moves is far more than the response, which is weaker still by the gain
in every layer further down: the difference from s_T has nothing to do with the gradient below the last layer. A deviation
from s_T is 0 until somebody pushes (equation 11), so it has no drift: there one nudged phase does not fail. Printed:

    small network of gain 1, trained on 3000 images, embedded synthetic images: 16 of 16 right, the reference's residual 3e-16
      T  K  residual  nudging      angles, layers 1, 2, ...      wrong signs, %
     30 10     2e-02  minus s_T   90.2   87.3   74.5   33.7     47.2   47.0   31.6   11.4
     30 10     2e-02  one-sided    6.1    7.7    4.7    1.9      2.5    3.9    2.0    0.7
     30 10     2e-02  at -beta    23.3   28.1   33.8   41.4     14.4   15.8   13.3    7.2
     30 10     2e-02  symmetric   13.8   18.4   22.0   25.5      9.7   10.3    7.9    4.9
     60 20     8e-06  minus s_T    3.1    4.1    2.5    1.1      1.6    1.6    0.9    0.5
     60 20     8e-06  one-sided    3.0    4.1    2.5    1.1      1.4    1.6    0.9    0.4
     60 20     8e-06  at -beta    24.8   30.6   35.3   42.2     14.8   16.6   13.9    7.1
     60 20     8e-06  symmetric   15.8   20.9   23.9   26.3     10.4   11.0    8.6    4.8
    400 80     7e-15  minus s_T   86.7   94.3   79.1   70.5     49.8   45.7   31.8    9.9
    400 80     7e-15  one-sided   86.7   94.3   79.1   70.5     49.8   45.7   31.8    9.9
    400 80     7e-15  at -beta    25.7   31.0   35.5   42.4     15.3   16.6   14.1    7.1
    400 80     7e-15  symmetric   82.0   89.1   73.0   56.8     43.8   41.6   25.8   10.3
    small network of gain 0.005, trained on 3000 images, embedded synthetic images: 16 of 16 right, the reference's residual 2e-16
      T  K  residual  nudging      angles, layers 1, 2, ...      wrong signs, %
      2  1     9e-02  minus s_T   82.8   84.8   87.1   13.6     47.7   44.8   47.0    4.9
      2  1     9e-02  one-sided   15.1   16.0   14.4   13.6      7.2    8.3    6.9    2.6
      2  1     9e-02  at -beta     6.8    8.6   10.1    8.6      4.4    4.8    5.8    2.4
      2  1     9e-02  symmetric    9.3   10.1    9.3    8.1      5.6    5.6    4.5    3.6
      2  1     9e-02  one-sided   15.1   16.0   14.4   13.6      7.2    8.4    6.9    2.6  as deviations
      2  1     9e-02  at -beta     6.8    8.7   10.1    8.6      4.4    4.9    5.8    2.4  as deviations
      2  1     9e-02  symmetric    9.3   10.1    9.3    8.1      5.6    5.8    4.5    3.6  as deviations

The symmetric estimate is the mean of the two rows above it. At gain 1 and beta = 0.5 the phase at -beta is the worse one at
first: it pushes away from a class of which the network is sure, the harder the further it got. These images are learned; with a
smaller beta the bias falls (11_bias_when_trained.py). In the last rows of gain 1 something else has happened: after more than
20 nudged steps one of the 16 images has left for another fixed point, as it may where a max-pooling switch flips, and no
difference of states survives that. (The networks are trained in float32; a processor that rounds otherwise trains other ones.)
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep import Nudging
from ep.train import commandline as cli

sys.path.insert(0, str(Path(__file__).parent))  # also where python is started with -P
from trained import STRONG, WEAK, add_options, network_and_images

NUDGINGS = {
    "minus s_T": (Nudging.one_sided, "#D55E00", "o--"),  # one-sided, against the state where the free phase stopped
    "one-sided": (Nudging.one_sided, "#000000", "^-"),  # against a phase at beta = 0 that takes K steps as well
    "at -beta": (lambda beta: Nudging.one_sided(-beta), "#999999", "v:"),  # the same, pushed away from the target
    "symmetric": (Nudging.symmetric, "#0072B2", "s-"),  # the mean of the last two
}

LEGEND = {"minus s_T": "one-sided, minus s_T", "one-sided": "one-sided, K steps too", "at -beta": "the same at -beta",
          "symmetric": "symmetric"}
ROWS = [("angle to the gradient (degrees)", 90, 145, "above: the step climbs"),
        ("weights with a wrong sign (%)", 50, 80, "a coin's")]


def compared(found, truth):
    """(angle in degrees, percentage of the weights with the wrong sign) of every layer's weight gradient: (2, layers)."""
    result = []
    for name in [name for name in truth if name.endswith("W") and "readout" not in name]:
        a, b = found[name].ravel(), truth[name].ravel()
        a, b = a[b != 0], b[b != 0]  # a weight that nothing reaches has no sign
        cosine = a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300)
        result.append((np.degrees(np.arccos(np.clip(cosine, -1, 1))), 100 * np.mean(a * b <= 0)))
    return np.array(result).T


def columns(network, x, y, all_phases, beta):
    """Measure and print: [(phases, residual of the free phase, {estimator: angles and wrong signs, (2, layers)})]."""
    fast, found = ep.engine.prepared(network), []
    longest = ep.Phase(max(400, *(phases.free.steps for phases in all_phases)), all_phases[0].free.schedule)
    truth = ep.rbp_gradient(network, x, y, ep.Phases(longest, ep.Phase(150, "checkerboard")))
    print(f"{truth.correct} of {len(y)} right, the reference's residual {truth.free.residual:.0e}")
    print("  T  K  residual  nudging      angles, layers 1, 2, ...      wrong signs, %")
    for phases in all_phases:
        errors, what = {}, "as deviations" if phases.deviations else ""
        for estimator, (make, _, _) in NUDGINGS.items():
            if phases.deviations and estimator == "minus s_T":
                continue  # a deviation is from s_T and does not drift: it would be the next line
            estimate = ep.papers_gradient if estimator == "minus s_T" else ep.eqprop_gradient  # the published code subtracts s_T
            g = estimate(fast, x, y, phases, nudging=make(beta))
            errors[estimator] = compared(g.gradient, truth.gradient)
            angles, signs = ("".join(f"{value:7.1f}" for value in values) for values in errors[estimator])
            print(f"{phases.free.steps:3} {phases.nudged.steps:2}  {g.free.residual:8.0e}  {estimator:9}{angles}  {signs}  "
                  f"{what}".rstrip())
        found.append((phases, g.free.residual, errors))
    return found


def plot(found, beta, images, path):
    """Rows: angle, wrong signs. Columns: gain and steps of the phases."""
    figure = Figure(figsize=(1 + 2.9 * len(found), 6.6), layout="constrained")
    figure.suptitle("What is wrong with one nudged phase? It takes drift of the free phase for a response; and it is biased\n"
                    f"(small trained networks, {images}; beta = {beta:g})", fontsize=12)
    panels = figure.subplots(2, len(found), sharey="row", sharex=True, squeeze=False)
    for column, (gain, phases, residual, errors) in enumerate(found):
        for row, (what, chance, top, meaning) in enumerate(ROWS):
            axes = panels[row, column]
            for estimator in errors:
                _, colour, style = NUDGINGS[estimator]
                values = errors[estimator][row]
                dashed = "--" in style  # large and hollow, in front: still seen where it is the line below
                look = dict(zorder=3, markersize=10, markerfacecolor="none") if dashed else {}
                axes.plot(range(1, len(values) + 1), values, style, color=colour, label=LEGEND[estimator], **look)
            axes.axhline(chance, color="black", linestyle=":")
            axes.set(ylim=(0, top), xticks=range(1, len(values) + 1))
            axes.grid(alpha=0.3)
            if column == 0:
                axes.set_ylabel(what)
                axes.text(len(values), chance + 1, meaning, ha="right", va="bottom", fontsize=9)
        form = "deviations: no drift" if phases.deviations else "settled: no drift" if residual < 1e-6 else \
            f"residual {residual:.0e}: drift and bias"
        panels[0, column].set_title(f"gain {gain:g}, T = {phases.free.steps}, K = {phases.nudged.steps}\n{form}", fontsize=11)
        panels[1, column].set_xlabel("layer (1: next to the image)")
    panels[0, -1].legend(*panels[0, 0].get_legend_handles_labels(), loc="center right", bbox_to_anchor=(1, 0.43), fontsize=9)
    figure.savefig(path, dpi=80)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add_options(parser.add_argument, images=16)
    parser.add_argument("--beta", type=cli.positive, default=0.5)
    parser.add_argument("--steps-free", type=cli.count, nargs="+", default=[30, 60, 400], metavar="T")
    parser.add_argument("--steps-nudged", type=cli.count, nargs="+", default=[10, 20, 80], metavar="K", help="one for each T")
    parser.add_argument("--out", type=cli.path, default=Path("runs/why_one_sided_fails"), help="folder for the figure")
    args, found = parser.parse_args(), []
    if len(args.steps_free) != len(args.steps_nudged):
        raise ep.EPError(f"expected one --steps-nudged for each --steps-free: got {len(args.steps_nudged)} for "
                         f"{len(args.steps_free)}")
    strong = [ep.Phases(ep.Phase(T, "checkerboard"), ep.Phase(K, "checkerboard"), deviations=False)
              for T, K in zip(args.steps_free, args.steps_nudged)]
    weak = [ep.Phases(ep.Phase(2, "up"), ep.Phase(1, "down"), deviations) for deviations in (False, True)]
    for gain, phases in ((STRONG, strong), (WEAK, weak)):
        network, x, y, name = network_and_images(args, gain)
        print(f"{name}: ", end="")
        found += [(network.feedback, *column) for column in columns(network, x, y, phases, args.beta)]
        if args.model or args.feedback is not None:
            break  # the one network that was asked for, by the phases that suit strong feedback
    args.out.mkdir(parents=True, exist_ok=True)
    plot(found, args.beta, name.split(", ")[-1], args.out / "why_one_sided_fails.png")


if __name__ == "__main__":
    cli.run(main)
