"""What is feedback good for? Accuracy with it and without it, on clean, noisy and occluded images.

    python examples/laboratory/what_feedback_does.py NETWORK.npz ... --data DIR     # a few minutes a network; prints a table

Every network is shown the same test images, spoilt in the same way. *With* relaxes it until it settles; *without* lets nothing
come down in the same weights, which is one sweep up. Noise is Gaussian, its standard deviation in grey levels of 255. An
occluded image has one square of the mean colour at a random place. A network trained with weak feedback, put beside one with
full feedback, says whether the recurrent one stands more: compare what each loses to its own accuracy on clean images.

docs/logs/what-feedback-does.txt has the table of two networks with the same channels, fixed filters and images.
"""

from functools import partial

import numpy as np

import ep
from ep import datasets
from ep.train import commandline as cli, equilibrium, loop

SPOILT = {"clean": (0, 0), "noise 5": (5, 0), "noise 10": (10, 0), "noise 20": (20, 0),  # name: (noise, side of the square)
          "square 8": (0, 8), "square 12": (0, 12), "square 16": (0, 16)}


def main():
    args = options()
    dataset, networks = datasets.load(args.dataset, args.data, download=False), [ep.load(path) for path in args.networks]
    for network in networks:
        datasets.check_seen(dataset, network.about)
    images, labels = dataset.test_images[:args.images], dataset.test_labels[:args.images]
    spoilt = {name: dataset.normalise(spoil(images, *how)) for name, how in SPOILT.items()}
    print(f"{len(labels)} test images of {dataset.source}")
    print(f"{'right, %':>34}" + "".join(f"{name:>11}" for name in SPOILT))
    with loop.worker_threads(args.threads) as map:
        for path, network in zip(args.networks, networks):
            settle = ep.Phase(100, "checkerboard", 1e-3, omega=(network.about or {}).get("omega", 1.0))  # as it was trained
            for name, same, phase in (("with", network, settle),
                                      ("without", equilibrium.without_feedback(network), equilibrium.SWEEP)):
                fast = ep.engine.prepared(same, map)
                found = [loop.evaluate(fast, x, labels, partial(ep.relax, phase=phase), map=map)[0] for x in spoilt.values()]
                print(f"{path.parent.name + '/' + path.name:.24} {name:>8} " + "".join(f"{100 * a:11.1f}" for a in found),
                      flush=True)


def spoil(images, noise, side):
    """Images (N, H, W, C) of grey levels with noise of this standard deviation, and a square of the mean colour in each."""
    rng, spoilt = np.random.default_rng(0), images.astype("float32")
    spoilt += noise * rng.standard_normal(images.shape, dtype="float32")
    mean = images.mean((0, 1, 2))
    for image in spoilt if side else ():
        i, j = (rng.integers(0, size - side + 1) for size in image.shape[:2])
        image[i:i + side, j:j + side] = mean
    return spoilt.clip(0, 255).round().astype(images.dtype)


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("networks", type=cli.path, metavar="NETWORK.npz", nargs="+", help="trained networks, as ep.load reads them")
    add("--dataset", metavar="NAME", default="auto", help="whose test images (default: CIFAR-10, else embedded images)")
    add("--data", type=cli.path, metavar="DIR", help="where it is")
    add("--images", type=cli.count, default=1000, help="test images (default: 1,000)")
    add("--threads", type=cli.count, default=cli.cores(), help="chunks at once (default: all cores)")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
