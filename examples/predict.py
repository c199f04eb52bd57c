"""What does a trained network see in an image, and how does it make up its mind?

    python examples/predict.py photo.jpg other.png      # image files: the middle square, shrunk to 32x32
    python examples/predict.py --data DIR               # without files: the first test images of CIFAR-10

Two seconds. Relaxes the shipped network (models/cifar10.npz, trained by symmetric EP: docs/results.md), or --model
RUN_DIR/network.npz of a finished run of cifar10_sym_ep.py, step by step; prints the likeliest classes and saves predict.png: each
image, and how the probabilities change while the network relaxes.
"""

from pathlib import Path

import numpy as np
from trained import SHIPPED

import ep
from ep import datasets
from ep.train import commandline as cli


def main():
    args = options()
    network = ep.load(args.model)
    if network.shapes[0] != (32, 32, 3):
        raise ep.EPError(f"{args.model} is for inputs of shape {network.shapes[0]}, not for 32x32 colour images")
    images, names = read(args)
    x, s, probabilities = datasets.normalise(images), None, []
    for _ in range(args.steps):  # the free phase, looked at after every step
        s = ep.relax(network, x, steps=1, start=s, schedule="checkerboard").states
        probabilities.append(network.cost.output(s[-1]))  # o = softmax(W s_L + b), (N, classes)
    for name, o in zip(names, probabilities[-1]):
        best = np.argsort(-o)[:3]
        print(f"{name}: " + ", ".join(f"{datasets.CLASSES[k]} {o[k]:.0%}" for k in best))
    plot(images, names, np.array(probabilities), args.out)


def read(args):
    """(images (N, 32, 32, 3) uint8, names): the files, or test images with their true class."""
    if not args.files:
        *_, images, labels = datasets.load("cifar10", args.data, download=False)[:4]
        return images[:args.count], [f"a test image of class {datasets.CLASSES[k]}" for k in labels[:args.count]]
    from PIL import Image, ImageOps, UnidentifiedImageError  # comes with matplotlib

    try:
        images = [ImageOps.fit(Image.open(path).convert("RGB"), (32, 32)) for path in args.files]
    except (OSError, UnidentifiedImageError) as error:
        raise ep.EPError(f"cannot read an image: {error}; give paths of PNG or JPEG files") from None
    return np.stack([np.asarray(image) for image in images]), args.files


def plot(images, names, probabilities, path):
    """One column per image: the image, and the probabilities of its three likeliest classes over the steps."""
    from matplotlib.figure import Figure  # slow to import, and no display is needed

    figure = Figure(figsize=(1 + 2.4 * len(images), 4.6), layout="constrained")
    axes = figure.subplots(2, len(images), squeeze=False, sharey="row")
    steps = range(1, len(probabilities) + 1)
    for n, (image, name) in enumerate(zip(images, names)):
        axes[0, n].imshow(image)
        axes[0, n].set_title(Path(name).name.replace("a test image of class ", "true: "), fontsize="medium")
        axes[0, n].axis("off")
        for k, colour in zip(np.argsort(-probabilities[-1, n])[:3], ("#0072B2", "#D55E00", "#009E73")):
            axes[1, n].plot(steps, probabilities[:, n, k], color=colour, label=datasets.CLASSES[k])
        axes[1, n].set(ylim=(0, 1), xlabel="step of the free phase")
        axes[1, n].legend(fontsize="small", loc="upper left")
        axes[1, n].grid(alpha=0.3)
    axes[1, 0].set_ylabel("probability")
    figure.savefig(path, dpi=110)
    print(f"written: {path}")


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("files", nargs="*", metavar="IMAGE", help="image files (default: test images of CIFAR-10)")
    add("--model", type=Path, default=SHIPPED, metavar="PATH", help="network.npz of a run, or what Network.save wrote "
        "(default: the shipped one)")
    add("--data", metavar="DIR", help="where cifar-10-batches-bin is")
    add("--count", type=cli.count, default=5, help="number of test images (default: 5)")
    add("--steps", type=cli.count, default=8, metavar="T", help="steps of the free phase (default: 8, as the "
        "shipped network was trained: 10_settling.py shows what more do)")
    add("--out", default="predict.png", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
