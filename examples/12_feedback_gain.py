"""What does the feedback gain change, from the paper's network to a feed-forward one?

    python examples/12_feedback_gain.py               # embedded images; 3 to 5 minutes of one core; runs/feedback_gain/
    python examples/12_feedback_gain.py --data DIR    # CIFAR-10, of which so short a training learns little

One small ConvNet at gains from 1, the paper's, to 0.003, trained at each of them by the same few updates: symmetric and one-sided
EP, from deviations, with phases that are relaxed until they have settled. Then, for the network that symmetric EP has trained,
on test images: how many steps the free phase needs; how near the exact gradient of its fixed point is to the gradient of the
feed-forward network with the same weights; and, in float32, how near the estimates are to the exact gradient, layer by layer,
all at the same beta. The last one is the textbook form, the difference of two nudged states: the response of a layer is smaller
by the gain than that of the layer above, and a float32 state does not move by less than about 1e-7. Printed:

    embedded synthetic images: 4800 visits of images; smallest cosines of layers 1 to 4
            steps to settle   exact with    estimates with the exact gradient, beta = 0.2          accuracy
      gain  initial  trained  feed-forward   one-sided   symmetric  four-point  two states  symmetric  one-sided
         1       32       90        0.083       0.984       0.991       0.997       0.630      49.8%      63.2%
       0.3       11       18        0.853       0.984       0.995       0.998       0.949      32.2%      46.6%
       0.1        8        9        0.967       0.978       0.996       0.998       0.304      29.4%      38.0%
      0.03        6        7        0.993       0.984       0.994       0.999       0.376      29.8%      35.4%
      0.01        5        5        0.998       0.989       0.994       0.998      -0.021      28.8%      34.4%
     0.003        4        4        0.996       0.983       0.993       0.997       0.000      28.2%      34.2%
"""

import copy
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep import Nudging, datasets
from ep.train import commandline as cli, equilibrium

CHANNELS, SCALE, RATES, BATCH = (8, 16, 16, 16), (6, 2, 2, 2, 2), (0.2, 0.03, 0.02, 0.015, 0.01), 32
NEAREST = 1e-5  # to a cosine of 1, in the figure
SETTLED = 1e-4  # largest change of any unit in a step
ESTIMATORS = {  # title: (nudging, whether by deviations)
    "one-sided": (Nudging.one_sided, True), "symmetric": (Nudging.symmetric, True), "four-point": (Nudging.four_point, True),
    "two states": (Nudging.symmetric, False)}
TRAINED_BY = {"symmetric": "#0072B2", "one-sided": "#D55E00"}
LAYERS = {"1": "#440154", "2": "#31688E", "3": "#35B779", "4": "#E0B000"}  # 1: next to the image


def phases(args, deviations=True):
    """Free and nudged phases until they settle; the nudged ones, which move by about beta, to a smaller residual."""
    free, nudged = (ep.Phase(args.steps, "checkerboard", tolerance) for tolerance in (SETTLED, SETTLED / 10))
    return ep.Phases(free, nudged, deviations)


def initial_network(dataset, gain):
    """The same weights at every gain: only what comes down counts differently."""
    return ep.convnet(CHANNELS, dataset.shape, len(dataset.classes), scale=SCALE, feedback=gain)


def trained(network, dataset, nudging, args):
    """A copy of the network after its few updates, and the share of the test images on which it is right when it has settled."""
    network, n = copy.deepcopy(network), args.train_images
    optimizer = ep.SGD(network, RATES, weight_decay=3e-4)

    def gradient(network, x, y, rng):
        return ep.eqprop_gradient(network, x, y, phases(args), nudging=nudging)

    def prepare(images, rng):
        return dataset.normalise(images)

    for epoch in range(args.epochs):
        ep.train_epoch(network, dataset.train_images[:n], dataset.train_labels[:n], gradient, optimizer, batch_size=BATCH,
                       epoch=epoch, prepare=prepare)
    images, labels = dataset.test_images[:args.test_images], dataset.test_labels[:args.test_images]
    accuracy, _ = ep.evaluate(ep.engine.prepared(network), images, labels,
                              lambda network, x: ep.relax(network, x, phases(args).free), prepare=prepare)
    return network, accuracy


def measured(dataset, args, gain):
    """Everything about one gain, as a dictionary."""
    x, y = dataset.normalise(dataset.test_images[:args.images]), dataset.test_labels[:args.images]
    initial, accuracy, networks = initial_network(dataset, gain), {}, {}
    for name in TRAINED_BY:
        networks[name], accuracy[name] = trained(initial, dataset, ESTIMATORS[name][0](args.beta), args)
    network = networks["symmetric"]
    steps = [ep.relax(which, x, phases(args).free).steps for which in (initial, network)]
    exact = equilibrium.exact_gradient(network, x, y, phases(args).free)
    cut = copy.deepcopy(network)
    cut.feedback = 0.0
    backpropagation = equilibrium.exact_gradient(cut, x, y, phases(args).free)
    cosines = {}
    for name, (make, deviations) in ESTIMATORS.items():
        estimate = ep.eqprop_gradient(network, x, y, phases(args, deviations), nudging=make(args.beta))
        cosines[name] = equilibrium.cosines(estimate.gradient, exact.gradient)
    forward = equilibrium.cosines(exact.gradient, backpropagation.gradient)
    if exact.free.residual > SETTLED / 10:  # no fixed point was found: there is nothing to compare with
        forward = dict.fromkeys(forward, np.nan)
        cosines = dict.fromkeys(cosines, forward)
    return dict(gain=gain, accuracy=accuracy, steps=steps, cosines=cosines, forward=forward)


def show(row):
    """Print one line of the table."""
    def smallest(cosines):
        return f"{min(cosines[layer] for layer in LAYERS):7.3f}"

    print(f"{row['gain']:6g}  {row['steps'][0]:7}  {row['steps'][1]:7}  {smallest(row['forward']):>11}  "
          + "  ".join(f"{smallest(row['cosines'][name]):>10}" for name in ESTIMATORS)
          + "  " + "  ".join(f"{row['accuracy'][name]:9.1%}" for name in TRAINED_BY), flush=True)


def missing(cosine):
    """1 - cosine, for an axis that spreads out what is near 1; what is nearer than NEAREST is drawn there."""
    return np.maximum(1 - cosine, NEAREST)


def plot(rows, beta, limit, images, path):
    """Above: settling, the limit, learning. Below: an estimator in each panel, a line for each layer."""
    gains = [row["gain"] for row in rows]
    figure = Figure(figsize=(13, 8), layout="constrained")
    figure.suptitle(f"One dial from the paper's network (gain 1) to a feed-forward one. Small ConvNet, {images}", fontsize=12)
    above, below = figure.subfigures(2, 1)
    settling, forward, learning = top = above.subplots(1, 3)
    for which, label, style in ((0, "initial weights", "o--"), (1, "trained at this gain", "o-")):
        settling.loglog(gains, [row["steps"][which] for row in rows], style, color="black", label=label,
                        markerfacecolor="none" if which == 0 else None)
    if any(limit in row["steps"] for row in rows):
        settling.annotate(f"not in {limit}", (gains[0], limit), (12, -3), textcoords="offset points", fontsize=9)
    settling.set(title="Weak feedback settles in a few steps", ylabel="steps of the free phase\nto a residual of 1e-4")
    for layer, colour in LAYERS.items():
        forward.loglog(gains, [missing(row["forward"][layer]) for row in rows], "o-", color=colour, label=f"layer {layer}")
    forward.set(title="...and its gradient nears backpropagation's",
                ylabel="cosine of the exact gradient with\nthat of the feed-forward network")
    for name, colour in TRAINED_BY.items():
        learning.semilogx(gains, [100 * row["accuracy"][name] for row in rows], "o-", color=colour, label=f"{name} EP")
    learning.axhline(10, color="grey", linestyle=":")
    learning.set(title="Test accuracy after the same few updates", ylabel="test accuracy at the fixed point (%)", ylim=(0, None))
    panels = below.subplots(1, len(ESTIMATORS), sharey=True)
    titles = (*(f"{name}, by deviations" for name in ("one-sided", "symmetric", "four-point")), "symmetric, by two states")
    for axes, name, title in zip(panels, ESTIMATORS, titles):
        for layer, colour in LAYERS.items():
            axes.loglog(gains, [missing(row["cosines"][name][layer]) for row in rows], "o-", color=colour)
        axes.set_title(title, fontsize=11)
    panels[0].set(ylabel=f"cosine of the estimate with the exact\ngradient, beta = {beta:g}, float32")
    for axes in (*top, *panels):
        axes.set(xlim=(1.4 * max(gains), min(gains) / 1.4), xlabel="feedback gain", xticks=gains)
        axes.set_xticklabels([f"{gain:g}" for gain in gains], fontsize=9)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    for axes in (forward, *panels):
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set(ylim=(2.2, 0.8 * NEAREST), yticks=(1, 0.1, 1e-2, 1e-3, 1e-4))
        axes.set_yticklabels(("0", "0.9", "0.99", "0.999", "0.9999"))
        axes.minorticks_off()
    settling.set_ylim(2, None)
    ticks = [n for n in (2, 5, 10, 20, 50, 100, 200, 500) if settling.get_ylim()[0] <= n <= settling.get_ylim()[1]]
    settling.set_yticks(ticks, map(str, ticks))
    for axes in (settling, forward, learning):
        axes.legend(fontsize=9)
    figure.savefig(path, dpi=90)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("--data", type=cli.path, metavar="DIR", help="where CIFAR-10 is (default: EP_DATA or the cache; else embedded images)")
    add("--gains", type=cli.positive, nargs="+", default=[1, 0.3, 0.1, 0.03, 0.01, 0.003], help="default: 1 to 0.003")
    add("--train-images", type=cli.count, default=1600, metavar="N", help="default: 1600")
    add("--epochs", type=cli.count, default=3, help="default: 3")
    add("--test-images", type=cli.count, default=500, metavar="N", help="for the accuracy (default: 500)")
    add("--images", type=cli.count, default=32, metavar="N", help="test images for steps and cosines (default: 32)")
    add("--beta", type=cli.positive, default=0.2, help="default: 0.2")
    add("--steps", type=cli.count, default=200, metavar="T", help="of a phase, at most (default: 200)")
    add("--threads", type=cli.count, default=cli.cores(), help="gains at once (default: all cores)")
    add("--out", type=cli.path, default=Path("runs/feedback_gain"), help="folder for the figure")
    args = parser.parse_args()
    dataset, rows = datasets.load("auto", args.data, download=False), []
    images = "embedded synthetic images" if dataset.name == "synthetic" else dataset.source
    print(f"{images}: {args.epochs * args.train_images} visits of images; smallest cosines of layers 1 to {len(CHANNELS)}")
    print("        steps to settle   exact with    estimates with the exact gradient, beta = "
          f"{args.beta:<6g}       accuracy")
    print("  gain  initial  trained  feed-forward" + "".join(f"  {name:>10}" for name in ESTIMATORS)
          + "".join(f"  {name:>9}" for name in TRAINED_BY))
    with ep.worker_threads(args.threads) as threads:
        for row in threads(partial(measured, dataset, args), args.gains):
            rows.append(row)
            show(row)
    args.out.mkdir(parents=True, exist_ok=True)
    plot(rows, args.beta, args.steps, images, args.out / "feedback_gain.png")


if __name__ == "__main__":
    cli.run(main)
