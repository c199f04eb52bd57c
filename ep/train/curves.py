"""The log of a run as a picture: curves.png."""

import itertools
import os
from pathlib import Path

import numpy as np

LOGARITHMIC = ("free phase: largest residual", "norm of the gradient")
COSINES = "cosine with the exact gradient"


def plot_curves(log: list[dict], title: str, path: str | Path) -> None:
    """Accuracy, loss, distance to equilibrium, gradient, saturation and alignment per layer, over epochs."""
    from matplotlib.figure import Figure  # slow to import, and no display is needed

    epochs = [line["epoch"] for line in log]
    panels = panels_of(log[0])
    figure = Figure(figsize=(11 / 3 * (len(panels) // 2), 6.5), layout="constrained")
    figure.suptitle(as_it_is(title), parse_math=False)  # a folder may be called $$
    axes = figure.subplots(2, len(panels) // 2).flat
    for axis, (name, lines) in zip(axes, panels):
        positive = any(line[key] for line in log for key in lines.values())
        for (label, key), marker in zip(lines.items(), itertools.cycle("osD^vP*X")):
            values = np.array([line[key] for line in log], float)  # NaN where it is None: there is no exact gradient
            axis.plot(epochs, values, marker=marker, markersize=4, label=label)
            if key.startswith("distance_"):
                axis.plot(epochs, [line[key.replace("distance", "decay")] for line in log], "k--", linewidth=0.8)
        axis.set(title=name, xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))  # wide enough for one epoch
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.grid(alpha=0.3)
        if len(lines) > 1:
            axis.legend(fontsize="small", ncols=1 + (len(lines) > 4) + (len(lines) > 20),
                        loc="lower center" if name == COSINES else "best")
        if name in LOGARITHMIC and positive:
            axis.set_yscale("log", nonpositive="mask")
            low, high = axis.get_ylim()
            axis.set_ylim(low / 3, high * 10)  # decades, so that noise does not look like a trend; room for the legend
        elif name == COSINES:
            low = min(0.9, axis.get_ylim()[0])
            axis.set_ylim(low - 0.6 * (1.01 - low), 1.01)  # room for the legend below
        elif name not in ("accuracy", "loss"):
            axis.set_ylim(0, 1.08 * axis.get_ylim()[1])
    figure.savefig(f"{path}.tmp", format="png", dpi=110)
    os.replace(f"{path}.tmp", path)


def as_it_is(text):
    """A name of a file or class for a figure: bytes that are no characters as their escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def panels_of(line):
    """[(title, {label: key of the log})] of what a line of the log has."""
    panels = [("accuracy", {"train": "train_accuracy", "test": "test_accuracy",
                            "test, at the fixed point": "fixed_point_accuracy",
                            "test, without feedback": "accuracy_without_feedback"}),
              ("loss", {"train": "train_loss", "test": "test_loss"}),
              ("free phase: largest residual", {"": "residual"}),
              (COSINES, per_layer(line, "cosine_") | {
                  "feed-forward": "largest_cosine_feed_forward"}),
              ("norm of the gradient", per_layer(line, "gradient_norm_")),
              ("share of units stuck at a bound", per_layer(line, "stuck_")),
              ("angle between W and B (degrees)", per_layer(line, "angle_")),
              ("|W - B| / start (dashed: decay alone)", per_layer(line, "distance_"))]
    panels = [(name, {label: key for label, key in lines.items() if key in line}) for name, lines in panels]
    return [panel for panel in panels if panel[1]]  # a symmetric network has no angles


def per_layer(line, prefix):
    """{layer: key} of the per-layer columns."""
    layers = {key: key.removeprefix(prefix) for key in line if key.startswith(prefix)}
    return {f"layer {layer}" if layer.isdecimal() else layer.replace("_", " "): key for key, layer in layers.items()}
