"""The main job: from a command line to a trained network in a run folder.

    python -m ep.train                           from anywhere, once the package is installed
    python examples/cifar10_sym_ep.py            the same, in the repository

CIFAR-10 if it is here or can be downloaded, else embedded images; --data takes a folder of pictures, too.
"""

import sys
from argparse import BooleanOptionalAction
from pathlib import Path
from typing import Any

from .. import backend, datasets, fast
from ..builders import CONNECTIONS
from ..cost import COSTS
from ..dynamics import SCHEDULES
from ..nudging import NUDGINGS
from ..vectorfield import FEEDBACK_UPDATES
from . import commandline as cli, experiment, loop, optimizers, parallel, runs


def main(description: str | None = __doc__, **chosen: Any) -> None:
    """The experiment that the command line asks for.

    description: what --help says first. chosen: settings that are not the main job's, where an example is a variant of it.
    """
    world, args = parallel.world(), options(description, chosen)  # the processes that mpiexec started, or this one alone
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
    n, first = config.train_images, dataset.normalise(dataset.train_images[:experiment.CALIBRATION])
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
        path = "relaxing with the kernels of ep/fast/kernels.py" if gpu else fast.path(network)
        print(path)
        few = prepare(dataset.train_images[:config.chunk], None)
        print(experiment.expected_time(config, network, few, threads, number_of_threads, world.size), flush=True)
        run.train(gradient, dataset, prepare, threads)
        run.finish()


def configured(args, xp, ranks):
    """(configuration, data set) of a new run: what the preset says, and what the command line replaces in it."""
    dataset = datasets.load(args.dataset or "auto", args.data, not args.no_download)
    dataset = datasets.hold_out(dataset, args.validation_images or 0)
    return config_of(args, dataset, xp.__name__, ranks), dataset


def config_of(args, dataset, device="numpy", ranks=1):
    """The `Config` that these options ask for; EPError for those that do not fit together, or not to the data set."""
    settings = cli.given(args, vars(experiment.Config()).keys() - {"dataset", "data", "device", "preset"})
    return experiment.resolve(dataset, args.preset, device, ranks, **settings)


def options(description, chosen):
    return parser(description, chosen).parse_args()


def parser(description, chosen):
    """Every option of the main job."""
    parser = cli.Parser(prog=program(), description=description, formatter_class=cli.Formatter)
    add_gradient(parser.add_argument)
    add_training(parser.add_argument)
    cli.add_surroundings(parser.add_argument)
    parser.set_defaults(**chosen)
    return parser


def add_gradient(add):
    """The options of the energy, and of how its gradient is estimated."""
    add("--preset", choices=experiment.NAMES, help="settings to start from: cpu is small, fast, and settles, for its feedback "
        "is weak; paper is what the paper did (default: cpu, on a GPU too)")
    add("--nudging", choices=list(NUDGINGS), help="which nudged phases estimate the gradient (default: symmetric)")
    add("--algorithm", choices=["eqprop", "bptt"], help="bptt: backpropagation through the last K steps (default: eqprop)")
    add("--cost", choices=list(COSTS), help="default: cross-entropy")
    add("--feedback", type=cli.not_negative, metavar="GAIN", help="the feedback gain gamma: 1 is the paper's network, and below "
        "it what comes down from a layer counts less than what goes up")
    add("--connections", choices=list(CONNECTIONS), help="asymmetric: feedback weights of their own (default: symmetric)")
    add("--feedback-update", choices=list(FEEDBACK_UPDATES), help="how they and the forward weights learn: each "
        "from its own update, both from the sum, or each from the exact gradient (default: kolen-pollack; with bptt exact)")
    add("--beta", type=cli.number, help="nudging strength, the largest |beta| of the points")
    add("--steps-free", type=cli.count, metavar="T", help="steps of the free phase, at most")
    add("--steps-nudged", type=cli.count, metavar="K", help="steps of each nudged phase")
    add("--schedule", choices=list(SCHEDULES), help="which layers are updated together, and in which order")
    add("--schedule-nudged", choices=list(SCHEDULES), help="the same of the nudged phases")
    add("--nudged-phases", choices=["deviations", "states"], help="what nudged phases relax: the deviations from the free state, "
        "which lose no digits, or the states, as in the paper's code")
    add("--conventions", choices=["here", "paper"], help="of --nudged-phases states: where this code and the paper's take "
        "different numbers, ours or theirs (docs/theory/paper.md; default: here, and paper with --preset paper)")
    add("--tolerance", type=cli.not_negative, help="end the free phase once the residual is below this; 0: never")


def add_training(add):
    """The options of the network's size and start, of how it learns, and from which images."""
    add("--network", choices=["convnet", "resnet"], help="convolutions and poolings, or blocks of two convolutions with skips "
        "around them, 1 + 2 blocks layers deep (default: convnet)")
    add("--blocks", type=cli.count, metavar="N", help="of a resnet (default: 6, which is 13 layers)")
    add("--channels", type=cli.count, nargs="+", metavar="C", help="channels of each convolution, or of each stage of a resnet")
    add("--scale", type=cli.positive, nargs="+", help="factor on the paper's initial weights: one, two (hidden layers, "
        "classes), or one per layer; factors on hidden layers stand in the place of --initial-drive")
    add("--initial-drive", type=cli.not_negative, metavar="STD", help="scale the initial weights of every unit so that its "
        "drives vary this much over the first training images, around 0; 0: do not")
    add("--optimizer", choices=list(optimizers.OPTIMIZERS), help="with learning rates and weight decay of its own")
    add("--lr", type=cli.positive, nargs="+", help="learning rate: one, two (hidden layers, classes), or one per layer")
    add("--weight-decay", type=cli.not_negative)
    add("--warm-up", type=cli.whole, metavar="N", help="steps over which Adam's rate rises to its full value")
    add("--batch-size", type=cli.count)
    add("--chunk", type=cli.count, metavar="N", help="images that are relaxed together, and stop together (default: "
        f"{loop.CHUNK}; with CUDA a GPU's whole share of the batch)")
    add("--epochs", type=cli.count, help="a finished run can be resumed with more: its learning rates are annealed anew")
    add("--train-images", type=cli.count, metavar="N", help="use the first N training images")
    add("--test-images", type=cli.count, metavar="N", help="evaluate on the first N test images (default: some "
        "after each epoch, all after the last)")
    add("--validation-images", type=cli.count, metavar="N", help="hold out the last N training images and evaluate on "
        "them, never on test images: to choose settings")
    add("--pad", type=cli.whole, metavar="P", help="crop training images at random after padding them by P pixels")
    add("--seed", type=cli.whole, help="of initial weights, order, augmentation and signs (default: 0)")
    add("--flip", action=BooleanOptionalAction, help="mirror half of the training images")
    add("--dataset", type=cli.dataset, metavar="NAME", help=f"{', '.join(datasets.NAMES)}, a folder with one sub-folder of "
        "pictures per class, or an .npz file (default: auto, CIFAR-10 if possible, else synthetic)")


def program():
    """What was started, for --help: python calls a package's program __main__.py."""
    name = Path(sys.argv[0]).name
    return "python -m ep.train" if name == "__main__.py" else name
