"""How deep can a network be that learns by relaxing?

    python examples/13_depth.py                           # 4 to 50 layers, residual and plain; half a minute of one core

A nudge of the last layer is answered by the layers below, and each answers by the feedback gain less than the one above it. In 50
layers of gain 0.001 the first layer moves by 10^-144 of what the last one does, which no number of float32 can hold. So the
answers are kept multiplied by the factor of their layer, equation (11). For each depth, in float32, with two sweeps up and one
down, which is what training takes:

    cosine      between estimate and exact gradient of the fixed point: the smallest of all layers
    answer      of the first layer, relative to that of the last one before the readout
    sweeps      up to a change below 1e-6 (in float64): how far from equilibrium two sweeps are
    time        of one gradient per image, by one thread

The networks are as initialised, on random images; the plain one is the residual one without its skips. The readout counts as a
layer. In the residual network the answer is of the same size everywhere. In the plain one it grows on its way down, and its
estimate is wrong at 50 layers, with these few sweeps and this nudge. The times are those of a busy machine. Printed:

    layers  network      cosine    answer  sweeps  ms per image
         4  residual     0.9999   1.2e+00       5           1.4
         4  plain        1.0000   1.2e+00       5           1.4
         8  residual     0.9998   7.9e-01       5           3.6
         8  plain        0.9995   1.1e+00       5           2.4
        14  residual     0.9998   8.1e-01       5           8.6
        14  plain        0.9969   2.9e+00       6           8.3
        26  residual     0.9994   7.8e-01       5          16.1
        26  plain        0.9180   2.1e+01       7          10.5
        50  residual     0.9984   7.5e-01       6          17.2
        50  plain       -0.2695   1.3e+03       9          14.8
"""

import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

import ep
from ep.builders import calibrate
from ep.train import commandline as cli, equilibrium

KINDS = {"residual": ("#0072B2", "o"), "plain": ("#D55E00", "s")}
PHASES = ep.Phases(ep.Phase(2, "up"), ep.Phase(1, "down"), deviations=True)
SYMMETRIC = ep.Nudging.symmetric(0.1)


def plain(network):
    """The same convolutions as a chain: every third synapse is a skip."""
    synapses = [synapse for k, synapse in enumerate(network.synapses) if k == 0 or k % 3]
    return ep.Network(synapses, network.activation, network.cost, feedback=network.feedback)


def measure(network, x, y):
    """(smallest cosine, answer of layer 1 relative to that of layer L, sweeps to settle, seconds per image)"""
    fast = ep.engine.prepared(network)
    estimate = ep.eqprop_gradient(fast, x, y, PHASES, nudging=SYMMETRIC)
    start = time.perf_counter()
    ep.eqprop_gradient(fast, x, y, PHASES, nudging=SYMMETRIC)
    seconds = time.perf_counter() - start
    exact = equilibrium.exact_gradient(network, x, y, PHASES.free)
    cosine = min(equilibrium.cosines(estimate.gradient, exact.gradient).values()) if exact.free.converged else np.nan
    sweeps = next((t for t, change in exact.free.history if change < 1e-6), np.nan)
    first, *_, last = (float(abs(d).mean()) for d in estimate.nudged[0].states)
    return cosine, first / last, sweeps, seconds / len(x)


def plot(depths, results, path):
    """Four panels, a line for each kind of network."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    figure.suptitle("How deep can a network be that learns by relaxing?", fontsize=12)
    titles = ("smallest cosine with the exact gradient", "answer of the first layer / of the last",
              "sweeps to a change below 1e-6", "seconds per image and gradient")
    for k, (axes, title) in enumerate(zip(figure.subplots(2, 2, sharex=True).flat, titles)):
        for kind, (colour, marker) in KINDS.items():
            axes.plot(depths, [row[k] for row in results[kind]], color=colour, marker=marker, label=kind)
        axes.set_title(title, fontsize=10)
        axes.set_yscale("linear" if k in (0, 2) else "log")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=9)
    for axes in figure.axes[2:]:
        axes.set_xlabel("layers, the readout among them")
    figure.savefig(path, dpi=90)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--blocks", type=cli.count, nargs="+", default=[1, 3, 6, 12, 24], help="default: 1 3 6 12 24")
    parser.add_argument("--channels", type=cli.count, default=16, metavar="C", help="of the first stage (default: 16)")
    parser.add_argument("--feedback", type=cli.positive, default=0.001, metavar="GAIN", help="default: 0.001")
    parser.add_argument("--images", type=cli.count, default=16, help="default: 16")
    parser.add_argument("--out", type=cli.path, default=Path("runs/depth"), help="folder for the figure")
    args = parser.parse_args()
    rng, results = np.random.default_rng(0), {kind: [] for kind in KINDS}
    x, y = rng.normal(size=(args.images, 32, 32, 3)).astype("float32"), np.arange(args.images) % 10
    depths = [2 + 2 * blocks for blocks in args.blocks]
    print("layers  network      cosine    answer  sweeps  ms per image")
    for blocks, layers in zip(args.blocks, depths):
        for kind in KINDS:
            network = ep.resnet(blocks, [args.channels << stage for stage in range(min(blocks, 3))], feedback=args.feedback)
            network = plain(network) if kind == "plain" else network
            with threadpool_limits(1):
                row = measure(calibrate(network, x, 1.0), x, y)
            results[kind].append(row)
            print(f"{layers:6}  {kind:9}  {row[0]:8.4f}  {row[1]:8.1e}  {row[2]:6.0f}  {1e3 * row[3]:12.1f}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    plot(depths, results, args.out / "depth.png")


if __name__ == "__main__":
    cli.run(main)
