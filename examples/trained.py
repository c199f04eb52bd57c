"""The trained networks and the images that some examples look at; nothing to run here.

--model PATH of Network.save; else, where CIFAR-10 is found, the shipped models/cifar10.npz (trained by symmetric EP:
docs/results.md); else a small ConvNet, trained first on the images: the embedded ones, or those at --data PATH.

A network has a feedback gain gamma. The small one is trained at 0.005, half the gain of `--preset cpu`: what comes down to a
layer counts for 1/200 of what goes up, so the network computes almost as a feed-forward one does, and settles in a few sweeps.
(At twice that gain it learns as well, but the estimate of its gradient after 2 sweeps has cosines down to 0.97.) An example that
is about strong feedback asks for gain 1, the paper's network: that one is trained by differences of states and SGD.
"""

from pathlib import Path

import ep
from ep import datasets
from ep.train import commandline as cli, experiment, loop

SHIPPED = Path(__file__).parent / "models" / "cifar10.npz"
WEAK, STRONG = 0.005, 1.0
SMALL = dict(channels=(16, 32, 32, 32), flip=False, pad=0, optimizer="adam", whitening=0)
AT_GAIN_1 = dict(scale=(1.5,), optimizer="sgd", lr=(0.06,), batch_size=32, nudged_phases="states", beta=0.5,
                 schedule="checkerboard", schedule_nudged="checkerboard")


def add_options(add, images):
    add("--model", type=cli.path, metavar="PATH", help="written by Network.save (default: the shipped one for CIFAR-10, else "
        "one is trained)")
    add("--data", type=cli.path, metavar="DIR", help="where the images are (default: CIFAR-10 in EP_DATA or the "
        "cache; else embedded images)")
    add("--images", type=cli.count, default=images, metavar="N", help=f"test images to look at (default: {images})")
    add("--feedback", type=cli.not_negative, metavar="GAIN", help="train a small network with this feedback gain, also where "
        "there is a shipped one")
    add("--train-images", type=cli.count, metavar="N", help="where a small network is trained (default: 3000)")
    add("--epochs", type=cli.count, help="where a small network is trained (default: 5)")


def network_and_images(args, feedback=None, steps=(15, 6)):
    """(network in float64, x, labels, one line that says which network, its gain, and which images).

    feedback: the gain that the example is about, unless the command line names a model or a gain. Default: the shipped network
    whatever its gain, or WEAK. steps: of the free and the nudged phases by which a small network is trained at gain 1.
    """
    dataset = datasets.load("auto", args.data, download=False)
    gain = feedback if args.feedback is None else args.feedback
    shipped = dataset.name == "cifar10" and not (args.train_images or args.epochs)  # embedded images mean nothing to that one
    path = args.model or (SHIPPED if shipped else None)
    if args.model and (args.train_images or args.epochs or args.feedback is not None):
        raise ep.EPError("--train-images, --epochs and --feedback are for a network that is trained first: leave them out with "
                         f"{path.name}")
    network = ep.load(path) if path else None
    if args.model:
        datasets.check_seen(dataset, network.about)
    if network is None or (not args.model and gain not in (None, network.feedback)):
        n = args.train_images or 3000
        network = train(dataset, n, args.epochs or 5, WEAK if gain is None else gain, steps)
        name = f"small network of gain {network.feedback:g}, trained on {n} images"
    else:
        name = f"network {path.name} of gain {network.feedback:g}"
    network.set_parameters({key: w.astype("float64") for key, w in network.parameters().items()})
    x, y = dataset.normalise(dataset.test_images[:args.images]).astype("float64"), dataset.test_labels[:args.images]
    images = "embedded synthetic images" if dataset.name == "synthetic" else dataset.source
    return network, x, y, f"{name}, {images}"


def train(dataset, images, epochs, feedback, steps=(15, 6)):
    """A small ConvNet, trained on the first images of the data set: at a gain below 1 as the preset `cpu` does.

    10 seconds of one core for 3,000 images and 5 epochs; at gain 1, 30 to 50.
    """
    images = min(images, len(dataset.train_labels))
    steps_in_all = epochs * loop.steps_per_epoch(images, 32)
    weak = SMALL | dict(warm_up=steps_in_all // 8)
    recipe = weak if feedback < STRONG else SMALL | AT_GAIN_1 | dict(steps_free=steps[0], steps_nudged=steps[1])
    config = experiment.resolve(dataset, "cpu", **recipe, feedback=feedback, train_images=images, epochs=epochs)
    first = experiment.for_calibration(dataset)
    with ep.worker_threads(cli.cores()) as threads:
        network, optimizer, gradient = experiment.build(config, map=threads, x=first)
        for epoch in range(epochs):
            ep.train_epoch(network, dataset.train_images[:images], dataset.train_labels[:images], gradient, optimizer,
                           batch_size=config.batch_size, epoch=epoch, prepare=lambda batch, rng: dataset.normalise(batch))
    network.about = experiment.about(config, dataset)
    return network


def free_phase(network):
    """The `Phase` that it was trained with, as its file says; one that says nothing is of before there was a gain."""
    about = network.about or {}
    return ep.Phase(about.get("steps_free", 8), about.get("schedule", "checkerboard"))
