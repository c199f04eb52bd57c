"""Why does training with one nudged phase fail where two succeed?

    python examples/06_why_one_sided_fails.py    # about 1 minute of one core without a model; runs/why_one_sided_fails/

Both estimates of a *trained* ConvNet's gradient, layer by layer, against the true one (recurrent backpropagation at a converged
fixed point): the angle between them, above 90 degrees a step climbs; and the share of weights with a wrong sign. Two causes:
a free phase that has not converged goes on drifting while it is nudged, and one phase minus s* takes the drift for the response,
while it cancels between two nudged phases; and the bias, O(beta), is left when it has converged. Where max-pooling switches
differ between the phases, both estimates suffer. T free and K nudged steps. Printed, for a small network trained on 3000
embedded images:

    small network trained on 3000 images, embedded synthetic images: 16 of 16 right, the reference's residual 2e-11
      T  K  residual  nudging      angles, layers 1, 2, ...      wrong signs, %
     30 10     3e-02  one-sided   82.9  114.7  101.6   71.6     45.1   57.9   51.5   27.2
     30 10     3e-02  symmetric   77.6   54.8   50.0   52.1     32.4   25.7   24.0   10.7
     60 20     2e-03  one-sided  106.4  100.4   69.1   21.7     49.3   40.6   23.7    7.7
     60 20     2e-03  symmetric   19.6    6.5    6.5    5.4      7.6    3.6    3.3    1.5
    400 80     2e-11  one-sided   15.1   10.9   12.4   13.1      6.0    5.7    5.7    2.7
    400 80     2e-11  symmetric    6.9    4.2    4.0    5.3      3.0    2.1    2.1    1.2
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from trained import add_options, network_and_images

import ep
from ep import Nudging, commandline as cli

NUDGINGS = {"one-sided": (Nudging.one_sided, "#D55E00", "o-"), "symmetric": (Nudging.symmetric, "#0072B2", "s-")}

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


def plot(found, settings, beta, name, path):
    """Rows: angle, wrong signs. Columns: steps of the phases."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    figure.suptitle("Why does one nudged phase fail? It takes a free phase that still drifts for a response\n"
                    f"({name}; beta = {beta:g})", fontsize=12)
    panels = figure.subplots(2, len(settings), sharey="row", sharex=True, squeeze=False)
    for column, (T, K) in enumerate(settings):
        for row, (what, chance, top, meaning) in enumerate(ROWS):
            axes = panels[row, column]
            for estimator, (_, colour, style) in NUDGINGS.items():
                values = found[estimator][column][row]
                axes.plot(range(1, len(values) + 1), values, style, color=colour, label=estimator)
            axes.axhline(chance, color="black", linestyle=":")
            axes.set(ylim=(0, top), xticks=range(1, len(values) + 1))
            axes.grid(alpha=0.3)
            if column == 0:
                axes.set_ylabel(what)
            if column == len(settings) - 1:
                axes.text(len(values), chance + 1, meaning, ha="right", va="bottom", fontsize=9)
        panels[0, column].set_title(f"T = {T}, K = {K}")
        panels[1, column].set_xlabel("layer (1: next to the image)")
    panels[0, -1].legend(loc="upper right")
    figure.savefig(path, dpi=80)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add_options(parser.add_argument, images=16)
    parser.add_argument("--beta", type=cli.positive, default=0.5)
    parser.add_argument("--steps-free", type=cli.count, nargs="+", default=[30, 60, 400], metavar="T")
    parser.add_argument("--steps-nudged", type=cli.count, nargs="+", default=[10, 20, 80], metavar="K", help="one for each T")
    parser.add_argument("--out", type=Path, default=Path("runs/why_one_sided_fails"), help="folder for the figure")
    args = parser.parse_args()
    network, x, y, name = network_and_images(args)
    settings = list(zip(args.steps_free, args.steps_nudged))
    relax, options = ep.fast.prepared(network), dict(schedule="checkerboard")
    truth = ep.rbp_gradient(network, x, y, max(args.steps_free), 150, **options)
    print(f"{name}: {truth.correct} of {len(y)} right, the reference's residual {truth.free.residual:.0e}")
    found = {estimator: [] for estimator in NUDGINGS}
    print("  T  K  residual  nudging      angles, layers 1, 2, ...      wrong signs, %")
    for T, K in settings:
        for estimator, (make, _, _) in NUDGINGS.items():
            g = ep.eqprop_gradient(network, x, y, T, K, nudging=make(args.beta), relax=relax, **options)
            found[estimator].append(compared(g.gradient, truth.gradient))
            angles, signs = ("".join(f"{value:7.1f}" for value in values) for values in found[estimator][-1])
            print(f"{T:3} {K:2}  {g.free.residual:8.0e}  {estimator}{angles}  {signs}")
    args.out.mkdir(parents=True, exist_ok=True)
    plot(found, settings, args.beta, name, args.out / "why_one_sided_fails.png")


if __name__ == "__main__":
    cli.run(main)
