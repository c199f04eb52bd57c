"""How many relaxation steps does a good gradient need, and which beta?

    python examples/laboratory/gradient_quality.py --run runs/NAME  # the network of a run, around the run's own phases
    python examples/laboratory/gradient_quality.py --run runs/NAME/network.npz     # or what Network.save wrote
    python examples/laboratory/gradient_quality.py --data DIR         # the paper's network (gain 1), as initialised

For every T (steps of the free phase; fewer where the tolerance stops it), K (steps of each nudged phase) and beta: the cosine
between the batch gradient, in float32, and the exact one at the fixed point (recurrent backpropagation, float64), the
smallest over the layers, and beside it the 5th percentile of the same over chunks of 16 images. Schedules, nudging and the form
of the nudged phases are the run's own, and T, K and beta lie around them, unless options say otherwise. The fewest steps that
hold 0.99 are printed at the end. A minute for a network of weak feedback, whose sweeps are few; 5 to 10 minutes on two cores for
the paper's network. Writes gradient_quality.json and .png to --out.
"""

import itertools
import json
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ep
from ep import Phase, Phases, datasets
from ep.npz import read_npz
from ep.nudging import NUDGINGS
from ep.train import commandline as cli, experiment, loop
from ep.train.checkpoint import read_meta
from ep.train.equilibrium import cosines, exact_gradient
from ep.vectorfield import FEEDBACK_UPDATES

INITIAL = dict(steps_free=[15, 25, 40, 80], steps_nudged=[4, 6, 8, 12, 16, 24, 32], beta=[0.5], schedule="checkerboard",
               schedule_nudged="checkerboard", omega=1.0, nudging="symmetric", nudged_phases="deviations",
               feedback_update="exact")  # for the paper's network, which nobody has trained here


def main():
    args = options()
    network, own, (name, place) = trained(args.run) if args.run else (ep.convnet(), INITIAL, ("auto", None))
    for setting, value in own.items():
        if getattr(args, setting, None) is None:
            setattr(args, setting, value)
    dataset = datasets.load(name, args.data or place, download=False)
    datasets.check_seen(dataset, network.about)
    print(datasets.banner(dataset))
    x, y = dataset.normalise(dataset.train_images[-args.images:]), dataset.train_labels[-args.images:]
    with ep.worker_threads(args.threads) as threads:
        print(f"{args.images} images, feedback gain {network.feedback:g}, schedules {args.schedule} and {args.schedule_nudged}, "
              f"{args.nudging} nudging, nudged phases as {args.nudged_phases}")
        settled = Phase(300, args.schedule, omega=args.omega)
        exact, table = by_chunk(partial(exact_gradient, free=settled), network, x, y, threads), []
        for T, K, beta in itertools.product(args.steps_free, args.steps_nudged, args.beta):
            found = by_chunk(estimate(network, args, T, K, beta), network, x, y, threads)
            table.append(dict(T=T, K=K, beta=beta, **compared(found, exact, FEEDBACK_UPDATES[args.feedback_update][1])))
            print("T {T:>3} (mean {steps:5.1f})  K {K:>2} (mean {steps_nudged:4.1f})  beta {beta:<6g} cosine {batch:.4f}   "
                  "chunks, 5th percentile {chunks:.4f}   layers {layers}".format_map(table[-1]), flush=True)
    enough = [row for row in table if row["batch"] >= 0.99]
    best = min(enough, key=lambda row: (row["steps"] + 2 * row["steps_nudged"], -row["batch"]), default=None)
    print("fewest steps with a cosine of at least 0.99: T = {T}, K = {K} (beta = {beta:g})".format_map(best) if best else
          "none reaches 0.99")
    write(Path(args.out), table, vars(args) | dict(source=dataset.source, feedback=network.feedback, best=best))


def estimate(network, args, T, K, beta):
    """(network, x, y) -> the `Estimate` of EP after T and K steps."""
    phases = Phases(Phase(T, args.schedule, args.tolerance, omega=args.omega),
                    Phase(K, args.schedule_nudged, args.tolerance_nudged, omega=args.omega),
                    deviations=args.nudged_phases == "deviations")
    return partial(ep.eqprop_gradient, phases=phases, nudging=NUDGINGS[args.nudging](beta, np.random.default_rng(0)),
                   transposed=FEEDBACK_UPDATES[args.feedback_update][0])


def by_chunk(one_chunk, network, x, y, threads):
    """[(gradient summed over the images, steps of the free phase, mean steps of a nudged one) of every chunk of images]."""
    def of(chunk):
        found, images = one_chunk(network, x[chunk], y[chunk]), len(y[chunk])
        summed = {name: images * g.astype("float64") for name, g in found.gradient.items()}  # a gradient is a mean
        return summed, found.free.mean_steps, np.mean([phase.mean_steps for phase in found.nudged] or [0])
    return list(threads(of, loop.chunks(len(y))))


def compared(found, exact, combined=dict):
    """Cosines of the batch's gradient (the sum over chunks) and of every chunk's; the smallest over layers.

    combined: what is made of both before they are compared; see FEEDBACK_UPDATES.
    """
    def total(parts):
        return combined({name: sum(gradient[name] for gradient, *_ in parts) for name in parts[0][0]})

    layers = cosines(total(found), total(exact))
    chunks = [min(cosines(combined(f[0]), combined(e[0])).values()) for f, e in zip(found, exact)]
    _, T, K = zip(*found)
    return dict(batch=min(layers.values()), chunks=float(np.percentile(chunks, 5)), steps=float(np.mean(T)),
                steps_nudged=float(np.mean(K)), layers=" ".join(f"{c:.4f}" for c in layers.values()))


def trained(path):
    """(network, how it was trained: values of INITIAL's keys, (data set, where)) from a run folder, or a file of Network.save."""
    if Path(path).is_file():
        network = ep.load(path)
        about = network.about or {}  # it knows its free phase, and the rest is as the main job has it for such a phase
        alike = experiment.CPU if about.get("schedule") == "up" else experiment.RECURRENT
        own = experiment.Config(**alike | {key: about[key] for key in ("steps_free", "schedule", "omega") if key in about})
        return network, around(own, "own" if network.has_phi else "exact"), ("auto", None)
    checkpoint = Path(path) / "checkpoint.npz"
    config, arrays = experiment.Config(**read_meta(checkpoint)["config"]), read_npz(checkpoint)
    if config.whitening and not (Path(path) / "network.npz").exists():
        raise ep.EPError(f"the fixed filters of {path} are in its network.npz, which a run writes when it ends: finish it first")
    network = ep.load(Path(path) / "network.npz") if config.whitening else experiment.build_network(config)
    network.set_parameters({name: arrays[f"parameter/{name}"] for name in network.parameters()})
    return network, around(config, config.feedback_update), (config.dataset, config.data)


def around(config, feedback_update):
    """INITIAL's keys: T, K and beta of a configuration and their neighbours, and the rest as it is."""
    T, K, beta = config.steps_free, config.steps_nudged, config.beta
    lists = dict(steps_free=[T, 2 * T, 4 * T], steps_nudged=[K, 2 * K, 4 * K], beta=[beta / 4, beta / 2, beta, 2 * beta])
    same = ("schedule", "schedule_nudged", "omega", "nudging", "nudged_phases")
    return {**lists, **{key: getattr(config, key) for key in same}, "feedback_update": feedback_update}


def write(folder, table, settings):
    """The table as JSON, and as a picture: for every beta, cosine against the number of nudged steps, one line for each T."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gradient_quality.json").write_text(json.dumps(dict(settings=settings, table=table), indent=2, default=str) + "\n")
    betas = list(dict.fromkeys(row["beta"] for row in table))
    figure = Figure(figsize=(3 + 3 * len(betas), 4.5), layout="constrained")
    figure.suptitle(f"{settings['source']}, feedback gain {settings['feedback']:g}", fontsize=11)
    for axes, beta in zip(figure.subplots(1, len(betas), sharey=True, squeeze=False)[0], betas):
        for T in settings["steps_free"]:
            rows = [row for row in table if (row["T"], row["beta"]) == (T, beta)]
            axes.plot(*zip(*((row["K"], row["batch"]) for row in rows)), "o-", label=f"T = {T} (mean {rows[0]['steps']:.0f})")
        axes.axhline(0.99, color="black", linewidth=1, linestyle=":")
        axes.set(xlabel="steps of a nudged phase, K", title=f"beta = {beta:g}", xticks=settings["steps_nudged"])
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("cosine with the gradient at the fixed point,\nworst layer (dotted: 0.99)")
    figure.axes[-1].legend(title="steps of the free phase")
    figure.savefig(folder / "gradient_quality.png", dpi=100)
    print(f"see {folder / 'gradient_quality.png'}")


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("--run", type=cli.path, metavar="PATH", help="take the trained network of this run folder, or of this file of "
        "Network.save (default: the paper's, as initialised)")
    add("--steps-free", type=cli.count, nargs="+", metavar="T", help="default: those that it was trained with, twice, four times")
    add("--steps-nudged", type=cli.count, nargs="+", metavar="K", help="likewise")
    add("--beta", type=cli.positive, nargs="+", help="default: from a fourth of what it was trained with to twice that")
    add("--nudged-phases", choices=["states", "deviations"], help="default: those of the run; of a file, those of the "
        "preset that has such a free phase")
    add("--tolerance", type=cli.not_negative, default=0.0, help="end the free phase once the residual is below this")
    add("--tolerance-nudged", type=cli.not_negative, default=0.0, help="the same for the nudged phases")
    add("--images", type=cli.count, default=128, help="the last so many training images")
    add("--data", type=cli.path, metavar="DIR", help="where the images are (default: those of the run, or as in the main job)")
    add("--threads", type=cli.count, default=cli.cores())
    add("--out", type=cli.path, metavar="DIR", default="runs/gradient_quality")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
