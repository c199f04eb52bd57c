"""How many relaxation steps does a good gradient need?

    python examples/gradient_quality.py --data DIR                    # the paper's network, as initialised
    python examples/gradient_quality.py --data DIR --run runs/NAME    # the network that a run has trained
    python examples/gradient_quality.py --data DIR --run runs/NAME --against bptt --schedule synchronous --steps-free 16

For every T (steps of the free phase; fewer where the tolerance stops it) and K (steps of each nudged phase): the cosine
between the batch gradient, in float32, and that of the converged dynamics (T = 500, K = 60, the same schedule, float64),
the smallest over the layers, and beside it the 5th percentile of the same over chunks of 16 images. The fewest steps
that hold 0.99 are printed at the end. 5 to 10 minutes on two cores for the paper's network, 1 or 2 for a
small one; writes gradient_quality.json and .png to --out.

A network that answers before it has settled is not described by its fixed point. --against bptt takes as reference the gradient
of the loss right after these T steps, unrolled to the first: what BPTT descends, and EP only where the T steps settle.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep import datasets, fast
from ep.cost import COSTS
from ep.npz import read_npz
from ep.nudging import NUDGINGS
from ep.train import commandline as cli, loop

REFERENCE = dict(steps_free=500, steps_nudged=60)


def main():
    args = options()
    dataset = datasets.load("auto", args.data, download=False)
    print(datasets.banner(dataset))
    network = trained(args.run) if args.run else ep.convnet(seed=args.seed)
    x, y = dataset.normalise(dataset.train_images[-args.images:]), dataset.train_labels[-args.images:]
    with ep.worker_threads(args.threads) as threads:
        print(f"{args.images} images, schedule {args.schedule}, {args.nudging} nudging, beta {args.beta}; {fast.path(network)}")
        network, wide = cast(network, "float64"), x.astype("float64")
        if args.against == "bptt":
            exact = {T: unrolled(network, wide, y, T, args, threads) for T in args.steps_free}
        else:
            exact = dict.fromkeys(args.steps_free, gradients(network, wide, y, args, threads, tolerance=0.0, **REFERENCE))
        network, table = cast(network, "float32"), []
        for T in args.steps_free:
            for K in args.steps_nudged:
                found = gradients(network, x, y, args, threads, steps_free=T, steps_nudged=K, tolerance=args.tolerance,
                                  tolerance_nudged=args.tolerance_nudged)
                table.append(dict(T=T, K=K, **compared(found, exact[T])))
                print("T {T:>3} (mean {steps:5.1f})  K {K:>2} (mean {steps_nudged:4.1f})  cosine {batch:.4f}   "
                      "chunks, 5th percentile {chunks:.4f}   layers {layers}".format_map(table[-1]), flush=True)
    enough = [row for row in table if row["batch"] >= 0.99]
    best = min(enough, key=lambda row: row["steps"] + 2 * row["steps_nudged"], default=None)
    print(f"fewest steps with a cosine of at least 0.99: T = {best['T']}, K = {best['K']}" if best else "none reaches 0.99")
    write(Path(args.out), table, vars(args) | dict(source=dataset.source, best=best))


def gradients(network, x, y, args, threads, **phases):
    """[(gradient by layer, steps of the free phase, mean steps of a nudged one) of every chunk of images]."""
    relax = fast.prepared(network)
    def one_chunk(chunk):
        estimate = ep.eqprop_gradient(network, x[chunk], y[chunk], nudging=NUDGINGS[args.nudging](args.beta, None),
                                      schedule=args.schedule, relax=relax, **phases)
        images = len(y[chunk])  # the gradient is a mean over them
        return by_layer(estimate.gradient, images), estimate.free.steps, np.mean([phase.steps for phase in estimate.nudged])
    return list(threads(one_chunk, loop.chunks(len(y))))


def unrolled(network, x, y, T, args, threads):
    """The same of the loss after T steps, settled or not: BPTT through all of them."""
    def one_chunk(chunk):
        estimate = ep.bptt_gradient(network, x[chunk], y[chunk], T, T, schedule=args.schedule, tolerance=args.tolerance)
        return by_layer(estimate.gradient, len(y[chunk])), T, T
    return list(threads(one_chunk, loop.chunks(len(y))))


def by_layer(gradient, images):
    """{layer: weights and biases as one vector, summed over the images}"""
    layers = dict.fromkeys(name.split(".")[0] for name in gradient)
    return {layer: images * np.concatenate([g.ravel() for name, g in gradient.items() if name.split(".")[0] == layer])
            for layer in layers}


def compared(found, exact):
    """Cosines of the batch's gradient (the mean over chunks) and of every chunk's; the smallest over layers."""
    def mean(parts):
        return {layer: sum(part[0][layer] for part in parts) for layer in parts[0][0]}

    layers = {layer: cosine(mean(found)[layer], g) for layer, g in mean(exact).items()}
    chunks = [min(cosine(f[0][layer], e[0][layer]) for layer in e[0]) for f, e in zip(found, exact)]
    _, T, K = zip(*found)
    return dict(batch=min(layers.values()), chunks=float(np.percentile(chunks, 5)), steps=float(np.mean(T)),
                steps_nudged=float(np.mean(K)), layers=" ".join(f"{c:.4f}" for c in layers.values()))


def cosine(a, b):
    """0 if either is 0: after too few steps the first layers have no gradient yet."""
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms > 0 else 0.0


def cast(network, dtype):
    network.set_parameters({name: w.astype(dtype) for name, w in network.parameters().items()})
    return network


def trained(path):
    """The network in a file of Network.save, or in the checkpoint of a run folder of cifar10_sym_ep.py."""
    if Path(path).is_file():
        return ep.load(path)
    arrays = read_npz(Path(path) / "checkpoint.npz")
    config = json.loads(str(arrays["meta"]))["config"]
    network = ep.CONNECTIONS[config.get("connections", "symmetric")](ep.convnet(config["channels"], cost=COSTS[config["cost"]]))
    network.set_parameters({name: arrays[f"parameter/{name}"] for name in network.parameters()})
    return network


def write(folder, table, settings):
    """The table as JSON, and as a picture: cosine against the number of nudged steps, one line for each T."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gradient_quality.json").write_text(json.dumps(dict(settings=settings, table=table), indent=2, default=str) + "\n")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for T in dict.fromkeys(row["T"] for row in table):
        rows = [row for row in table if row["T"] == T]
        K, cosines = zip(*((row["K"], row["batch"]) for row in rows))
        axes.plot(K, cosines, "o-", label=f"T = {T} (mean {rows[0]['steps']:.0f})")
    axes.axhline(0.99, color="black", linewidth=1, linestyle=":")
    reference = "the converged gradient" if settings["against"] == "converged" else "BPTT through T steps"
    axes.set(xlabel="steps of a nudged phase, K", ylabel=f"cosine with {reference}, worst layer", title=settings["source"])
    axes.legend(title="steps of the free phase")
    figure.savefig(folder / "gradient_quality.png", dpi=120)
    print(f"see {folder / 'gradient_quality.png'}")


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("--run", type=cli.path, metavar="PATH", help="take the trained network of this run folder, or of this file of "
        "Network.save (default: the paper's, as initialised)")
    add("--against", choices=("converged", "bptt"), default="converged", help="bptt: the gradient of the loss right after these "
        "T steps, settled or not; needs --schedule synchronous and no tolerance")
    add("--steps-free", type=cli.count, nargs="+", metavar="T", default=[15, 25, 40, 80])
    add("--steps-nudged", type=cli.count, nargs="+", metavar="K", default=[4, 6, 8, 12, 16, 24, 32])
    add("--tolerance", type=cli.not_negative, default=0.0, help="end the free phase once the residual is below this")
    add("--tolerance-nudged", type=cli.not_negative, default=0.0, help="the same for the nudged phases")
    add("--schedule", choices=list(ep.dynamics.SCHEDULES), default="checkerboard")
    add("--nudging", choices=("symmetric", "one-sided", "four-point"), default="symmetric",
        help="of the estimate; the converged reference has it too")
    add("--beta", type=cli.positive, default=0.5)
    add("--images", type=cli.count, default=128, help="the last so many training images")
    add("--data", type=cli.path, metavar="DIR", help="where the images are (default: as in the main job)")
    add("--seed", type=cli.whole, default=0, help="of the initial network")
    add("--threads", type=cli.count, default=cli.cores())
    add("--out", type=cli.path, metavar="DIR", default="runs/gradient_quality")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
