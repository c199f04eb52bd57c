"""How right are the updates of a network whose feedback weights are not its forward weights?

    python examples/asymmetric_alignment.py      # 1 to 2 minutes on one core; figure and tables in runs/asymmetric_alignment/

Cosine of each layer's update with the true gradient (BPTT), feedback from random (90 degrees to W) to aligned (0), mean over
5 seeds, an untrained max-pooling ConvNet of feedback gain 1 on 16 embedded images. Forward weights of layer 2:

    angle between W and B         90    67.5      45    22.5       0
    own (vector-field EP)       0.08    0.07    0.44    0.80    1.00
    Kolen-Pollack               0.07    0.06    0.44    0.80    1.00
    exact (asymmetric EP)       1.00    1.00    1.00    1.00    1.00

Kolen-Pollack moves W and B by the same dW + dB, so it is compared with the derivative of the loss along such moves, the true
dL/dW + dL/dB: it is no better than the own updates. What it does, and they do not, is to bring W and B together in training.
"""

import json
from pathlib import Path

import numpy as np

import ep
from ep import Nudging, datasets
from ep.train import commandline as cli

ANGLES, SEEDS = (90.0, 67.5, 45.0, 22.5, 0.0), range(5)
RULES = {"own": "own (vector-field EP)", "kolen-pollack": "Kolen-Pollack", "exact": "exact (asymmetric EP)"}
T, K, BETA = 100, 50, 1e-3


def cosines(x, y, angle, seed):
    """{rule: {parameter: cosine with the true gradient}} for one network."""
    network = ep.convnet([8, 16, 16, 16], scale=1.5, seed=seed, dtype="float64")
    network = ep.asymmetric(network, angle, seed=seed)
    phases = ep.Phases(T, K, deviations=True)  # the exact rule needs them
    truth = ep.bptt_gradient(network, x, y, phases).gradient
    result = {}
    for rule in RULES:
        transposed, combined = ep.FEEDBACK_UPDATES[rule]
        g = ep.eqprop_gradient(network, x, y, phases, nudging=Nudging.symmetric(BETA), transposed=transposed).gradient
        g, goal = combined(g), combined(truth)
        result[rule] = {name: float((g[name] * goal[name]).sum() / ((g[name] ** 2).sum() * (goal[name] ** 2).sum()) ** 0.5)
                        for name in g if name.endswith(("W", "B")) and "readout" not in name}
    return result


def table(values):
    """Markdown: one row per parameter and rule, one column per angle, "mean (lowest)" over the seeds."""
    lines = ["| parameter | update | " + " | ".join(f"{angle:g}°" for angle in ANGLES) + " |", "|---" * (2 + len(ANGLES)) + "|"]
    for name in values[0][0]["own"]:
        for rule, label in RULES.items():
            columns = [[one[rule][name] for one in seeds] for seeds in values]
            lines.append(f"| {name} | {label} | " + " | ".join(f"{np.mean(c):.2f} ({min(c):.2f})" for c in columns) + " |")
    return "\n".join(lines) + "\n"


def plot(values, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    figure.suptitle("How right are updates with feedback weights B of their own? Lines: mean of "
                    f"{len(SEEDS)} seeds; bands: lowest to highest", fontsize=13)
    names = [name for name in values[0][0]["own"] if name.endswith("W")]
    for axis, name in zip(figure.subplots(1, len(names), sharey=True), names):
        for (rule, label), style, color in zip(RULES.items(), ("o-", "s--", "D-"), ("#D55E00", "#000000", "#0072B2")):
            columns = np.array([[one[rule][name] for one in seeds] for seeds in values])  # (angles, seeds)
            axis.plot(ANGLES, columns.mean(1), style, color=color, label=label, markerfacecolor="none")
            axis.fill_between(ANGLES, columns.min(1), columns.max(1), color=color, alpha=0.12, linewidth=0)
        axis.set(title=f"forward weights of layer {name[0]}", xlabel="degrees between W and B", xticks=ANGLES, xlim=(93, -3))
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("cosine with the true gradient")
    figure.axes[-1].legend(loc="lower center", fontsize="small")
    figure.savefig(path, dpi=110)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--out", type=cli.path, default=Path("runs/asymmetric_alignment"), help="folder for figure and tables")
    out = parser.parse_args().out
    images, labels = datasets.load("synthetic")[:2]
    x, y = datasets.normalise(images[:16]).astype("float64"), labels[:16]
    values = [[cosines(x, y, angle, seed) for seed in SEEDS] for angle in ANGLES]
    out.mkdir(parents=True, exist_ok=True)
    (out / "asymmetric_alignment.md").write_text(table(values))
    (out / "asymmetric_alignment.json").write_text(json.dumps({"angles": ANGLES, "seeds": list(SEEDS), "cosines": values}) + "\n")
    plot(values, out / "asymmetric_alignment.png")
    print(f"{'angle between W and B':24}" + "".join(f"{angle:8g}" for angle in ANGLES))
    for rule, label in RULES.items():
        print(f"{label:24}" + "".join(f"{np.mean([one[rule]['2.W'] for one in seeds]):8.2f}" for seeds in values))
    print(f"figure and tables: {out}")


if __name__ == "__main__":
    main()
