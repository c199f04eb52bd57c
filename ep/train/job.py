"""The main job: from a command line to a trained network in a run folder. `python -m ep.train`, and two examples."""

import sys
from pathlib import Path
from typing import Any

from .. import backend, datasets
from . import commandline as cli, experiment, loop, parallel, runs, settings


def main(description: str | None = None, **chosen: Any) -> None:
    """The experiment that the command line asks for.

    description: what --help says first. chosen: settings that are not the main job's, where an example is a variant of it.
    """
    world, args = parallel.world(), parser(description, chosen).parse_args()  # the processes of mpiexec, or this one alone
    xp = backend.device_module(args.device)
    world.check_same("the devices", xp.__name__, "start as many ranks as there are GPUs, or give --device; "
                     "python -m ep.doctor says what is missing")
    gpu, cores = xp.__name__ != "numpy", world.cores()  # asked on every rank, for it waits for the others
    number_of_threads = 1 if gpu else args.threads or cores  # a GPU gets its work from one thread
    config, dataset = world.in_turn(lambda: runs.stored(args) if args.resume else configured(args, xp, world.size))
    world.check_same("settings or images", config, "start every rank with the same command and data")
    if gpu:  # TF32 is asked for by the environment; a run keeps what it was started with
        cli.refuse_changes(config, dict(tf32=backend.tf32()))
    print(datasets.banner(dataset), flush=True)
    n, first = config.train_images, experiment.for_calibration(dataset)
    dataset = dataset._replace(train_images=xp.asarray(dataset.train_images[:n]), train_labels=dataset.train_labels[:n],
                               test_images=xp.asarray(dataset.test_images))  # as bytes, on a GPU too

    def prepare(batch, rng):  # uint8 images -> float32 input; rng is None for test images
        if rng is not None:
            batch = datasets.augment(batch, rng, config.pad, config.flip)
        return dataset.normalise(batch)

    with loop.worker_threads(number_of_threads) as threads:
        network, optimizer, gradient = experiment.build(config, xp, world.in_chunks, threads, first)
        network.about = experiment.about(config, dataset)
        loop.rehearse(network, gradient, prepare, *dataset[:2])  # bad settings end here, before anything is written
        run = runs.Run.resumed(args.resume, network, optimizer, world, config) if args.resume else runs.Run.started(
            args.out, config, network, optimizer, world)
        print(experiment.regime(config), flush=True)
        run.train(gradient, dataset, prepare, threads)
        run.finish()


def configured(args, xp, ranks):
    """(configuration, data set) of a new run: what the preset says, and what the command line replaces in it."""
    dataset = datasets.load(args.dataset or "auto", args.data, not args.no_download)
    dataset = datasets.hold_out(dataset, args.validation_images or 0)
    return config_of(args, dataset, xp.__name__, ranks), dataset


def config_of(args, dataset, device="numpy", ranks=1):
    """The `Config` that these options ask for; EPError for those that do not fit together, or not to the data set."""
    return experiment.resolve(dataset, args.preset, device, ranks, **cli.given(args, settings.OPTIONS))


def parser(description, chosen):
    """Every option of the main job: the settings of settings.py, what they start from, and where things are."""
    parser = cli.Parser(prog=program(), description=description, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("--preset", choices=experiment.NAMES, help="settings to start from: recurrent has full feedback, and settles; cpu is "
        "faster, for its feedback is weak; paper is what the paper did (default: "
        f"{settings.Config.preset}, on a GPU too)")
    add("--dataset", metavar="NAME", help=f"{', '.join(datasets.NAMES)}, a folder with one sub-folder of "
        "pictures per class, or an .npz file (default: auto, CIFAR-10 if possible, else synthetic)")
    settings.add_options(add, experiment.VARYING)
    cli.add_surroundings(add)
    parser.set_defaults(**chosen)
    return parser


def program():
    """What was started, for --help: python calls a package's program __main__.py."""
    name = Path(sys.argv[0]).name
    return "python -m ep.train" if name == "__main__.py" else name
