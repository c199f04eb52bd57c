"""How many relaxation steps does a good gradient need?

    python examples/gradient_quality.py --data DIR                    # the paper's network, as initialised
    python examples/gradient_quality.py --data DIR --run runs/NAME    # the network that a run has trained
    python examples/gradient_quality.py --data DIR --run runs/NAME --against bptt --schedule synchronous --steps-free 16

For every T (steps of the free phase; fewer where the tolerance stops it) and K (steps of each nudged phase): the cosine
between the batch gradient, in float32, and the exact one at the fixed point (recurrent backpropagation, float64),
the smallest over the layers, and beside it the 5th percentile of the same over chunks of 16 images. The fewest steps
that hold 0.99 are printed at the end. 5 to 10 minutes on two cores for the paper's network, 1 or 2 for a
small one; writes gradient_quality.json and .png to --out.

A network that answers before it has settled is not described by its fixed point. --against bptt takes as reference the gradient
of the loss right after these T steps, unrolled to the first: what BPTT descends, and EP only where the T steps settle.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep import Phase, Phases, datasets, fast
from ep.dynamics import SCHEDULES
from ep.npz import read_npz
from ep.nudging import NUDGINGS
from ep.train import commandline as cli, experiment, loop
from ep.train.checkpoint import read_meta
from ep.train.equilibrium import cosines, exact_gradient, in_float64


def main():
    args = options()
    dataset = datasets.load("auto", args.data, download=False)
    print(datasets.banner(dataset))
    network = trained(args.run) if args.run else ep.convnet(seed=args.seed or 0)
    x, y = dataset.normalise(dataset.train_images[-args.images:]), dataset.train_labels[-args.images:]
    with ep.worker_threads(args.threads) as threads:
        print(f"{args.images} images, feedback gain {network.feedback:g}, schedules {args.schedule} and {args.schedule_nudged}, "
              f"{args.nudging} nudging, beta {args.beta}, nudged phases as {args.nudged_phases}; {fast.path(network)}")
        exact, table = references(network, x, y, args, threads), []
        for T in args.steps_free:
            for K in args.steps_nudged:
                found = by_chunk(estimate(network, args, T, K), network, x, y, threads)
                table.append(dict(T=T, K=K, **compared(found, exact[T])))
                print("T {T:>3} (mean {steps:5.1f})  K {K:>2} (mean {steps_nudged:4.1f})  cosine {batch:.4f}   "
                      "chunks, 5th percentile {chunks:.4f}   layers {layers}".format_map(table[-1]), flush=True)
    enough = [row for row in table if row["batch"] >= 0.99]
    best = min(enough, key=lambda row: row["steps"] + 2 * row["steps_nudged"], default=None)
    print(f"fewest steps with a cosine of at least 0.99: T = {best['T']}, K = {best['K']}" if best else "none reaches 0.99")
    write(Path(args.out), table, vars(args) | dict(source=dataset.source, feedback=network.feedback, best=best))


def estimate(network, args, T, K):
    """(network, x, y) -> the `Estimate` of EP after T and K steps."""
    phases = Phases(Phase(T, args.schedule, args.tolerance), Phase(K, args.schedule_nudged, args.tolerance_nudged),
                    deviations=args.nudged_phases == "deviations")
    return partial(ep.eqprop_gradient, phases=phases, nudging=NUDGINGS[args.nudging](args.beta, None),
                   transposed=network.has_phi or phases.deviations, solver=fast.prepared(network))


def references(network, x, y, args, threads):
    """{T: the gradients that those after T steps are compared with, by chunk}."""
    if args.against == "bptt":
        network, x = in_float64(network), x.astype("float64")
        return {T: by_chunk(unrolled(args, T), network, x, y, threads) for T in args.steps_free}
    free = Phase(300, args.schedule)
    return dict.fromkeys(args.steps_free, by_chunk(partial(exact_gradient, free=free), network, x, y, threads))


def unrolled(args, T):
    """(network, x, y) -> the gradient of the loss after T steps, settled or not: BPTT through all of them."""
    return partial(ep.bptt_gradient, phases=Phases(Phase(T, args.schedule, args.tolerance), T))


def by_chunk(one_chunk, network, x, y, threads):
    """[(gradient summed over the images, steps of the free phase, mean steps of a nudged one) of every chunk of images]."""
    def of(chunk):
        found, images = one_chunk(network, x[chunk], y[chunk]), len(y[chunk])
        summed = {name: images * g.astype("float64") for name, g in found.gradient.items()}  # a gradient is a mean
        return summed, found.free.steps, np.mean([phase.steps for phase in found.nudged] or [0])
    return list(threads(of, loop.chunks(len(y))))


def compared(found, exact):
    """Cosines of the batch's gradient (the sum over chunks) and of every chunk's; the smallest over layers."""
    def total(parts):
        return {name: sum(gradient[name] for gradient, *_ in parts) for name in parts[0][0]}

    layers = cosines(total(found), total(exact))
    chunks = [min(cosines(f[0], e[0]).values()) for f, e in zip(found, exact)]
    _, T, K = zip(*found)
    return dict(batch=min(layers.values()), chunks=float(np.percentile(chunks, 5)), steps=float(np.mean(T)),
                steps_nudged=float(np.mean(K)), layers=" ".join(f"{c:.4f}" for c in layers.values()))


def trained(path):
    """The network in a file of Network.save, or in the checkpoint of a run folder of cifar10_sym_ep.py."""
    if Path(path).is_file():
        return ep.load(path)
    checkpoint = Path(path) / "checkpoint.npz"
    network, arrays = experiment.build_network(experiment.Config(**read_meta(checkpoint)["config"])), read_npz(checkpoint)
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
    reference = "the gradient at the fixed point" if settings["against"] == "converged" else "BPTT through T steps"
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
    add("--schedule", choices=list(SCHEDULES), default="checkerboard")
    add("--schedule-nudged", choices=list(SCHEDULES), help="default: the same")
    add("--nudged-phases", choices=("deviations", "states"), default="deviations", help="what nudged phases relax")
    add("--nudging", choices=("symmetric", "one-sided", "four-point"), default="symmetric",
        help="of the estimate")
    add("--beta", type=cli.positive, default=0.5)
    add("--images", type=cli.count, default=128, help="the last so many training images")
    add("--data", type=cli.path, metavar="DIR", help="where the images are (default: as in the main job)")
    add("--seed", type=cli.whole, help="of the initial network (default: 0)")
    add("--threads", type=cli.count, default=cli.cores())
    add("--out", type=cli.path, metavar="DIR", default="runs/gradient_quality")
    args = parser.parse_args()
    if args.run and args.seed is not None:
        raise ep.EPError("--seed is for the initial network: leave it out with --run")
    args.schedule_nudged = args.schedule_nudged or args.schedule
    return args


if __name__ == "__main__":
    cli.run(main)
