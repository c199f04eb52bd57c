"""The trained network and the images that some examples look at; nothing to run here.

--model PATH of Network.save; else, where CIFAR-10 is found, the shipped models/cifar10.npz (trained by symmetric EP:
docs/results.md); else a small ConvNet, trained first on the images: the embedded ones, or those at --data PATH.
"""

from functools import partial
from pathlib import Path

import ep
from ep import datasets, fast
from ep.train import commandline as cli

SHIPPED = Path(__file__).parent / "models" / "cifar10.npz"


def add_options(add, images):
    add("--model", type=cli.path, metavar="PATH", help="written by Network.save (default: the shipped one for CIFAR-10, else "
        "one is trained)")
    add("--data", type=cli.path, metavar="DIR", help="where the images are (default: CIFAR-10 in EP_DATA or the "
        "cache; else embedded images)")
    add("--images", type=cli.count, default=images, metavar="N", help=f"test images to look at (default: {images})")
    add("--train-images", type=cli.count, metavar="N", help="where a small network is trained (default: 3000)")
    add("--epochs", type=cli.count, help="where a small network is trained (default: 5)")


def network_and_images(args):
    """(network in float64, x, labels, one line that says which network and which images)."""
    dataset = datasets.load("auto", args.data, download=False)
    path = args.model or (SHIPPED if dataset.name == "cifar10" else None)  # embedded images mean nothing to the shipped one
    if path and (args.train_images or args.epochs):
        raise ep.EPError(f"--train-images and --epochs are for a network that is trained first: leave them out with {path.name}")
    if path:
        network, name = ep.load(path), f"network {path.name}"
    else:
        n = args.train_images or 3000
        network, name = train(dataset, n, args.epochs or 5), f"small network trained on {n} images"
    network.set_parameters({key: w.astype("float64") for key, w in network.parameters().items()})
    x, y = dataset.normalise(dataset.test_images[:args.images]).astype("float64"), dataset.test_labels[:args.images]
    images = "embedded synthetic images" if dataset.name == "synthetic" else dataset.source
    return network, x, y, f"{name}, {images}"


def train(dataset, images, epochs):
    """A small ConvNet on the first images of the data set: about 10 seconds of one core per 1,000 images and 5 epochs."""
    network = ep.convnet([16, 32, 32, 32], dataset.shape, len(dataset.classes), scale=1.5)
    optimizer = ep.SGD(network, 0.06, 0.9, 3e-4, epochs)

    def gradient(network, x, y, rng):
        phases = ep.Phases(ep.Phase(15, "checkerboard"), ep.Phase(6, "checkerboard"), deviations=False)
        one_chunk = partial(ep.eqprop_gradient, phases=phases, nudging=ep.Nudging.symmetric(0.5), solver=fast.prepared(network))
        return ep.in_chunks(one_chunk, network, x, y)

    for epoch in range(epochs):
        ep.train_epoch(network, dataset.train_images[:images], dataset.train_labels[:images], gradient, optimizer, batch_size=32,
                       epoch=epoch, prepare=lambda batch, rng: dataset.normalise(batch))
    return network
