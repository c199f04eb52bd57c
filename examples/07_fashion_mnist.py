"""Does the same rule train a fully connected network and a convolutional one?

    python examples/07_fashion_mnist.py                      # MLP 784-256-10: about 1 minute of one core
    python examples/07_fashion_mnist.py --network convnet    # 16 and 32 channels: 4 to 5 minutes with two cores

Symmetric EP on Fashion-MNIST (downloaded; or Debian's package dataset-fashion-mnist; or --data DIR with the IDX files, of MNIST
too). Rates and the MLP's steps were chosen on 5,000 images held out of the training images. Printed at the end of either, all
10,000 test images, seed 0 (docs/logs; their seconds are those of a machine with something else to do):

    epoch 5: train accuracy 89.2%, test accuracy 86.9%      mlp
    epoch 5: train accuracy 90.3%, test accuracy 88.8%      convnet
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import ep
from ep import datasets
from ep.datasets import idx
from ep.train import commandline as cli, experiment, runs

NETWORKS = {  # name: (builder, settings)
    "mlp": (partial(ep.mlp, [784, 256, 10]), dict(channels=(), steps_free=12, steps_nudged=6, lr=(0.05,))),
    "convnet": (partial(ep.convnet, [16, 32], (28, 28, 1), paddings=[1, 1], scale=1.5),
                dict(channels=(16, 32), scale=(1.5,), steps_free=6, steps_nudged=3, lr=(0.03,))),  # two layers: soon nudged
}
COMMON = dict(dataset="fashion-mnist", beta=0.5, schedule="checkerboard", nudged_phases="states", batch_size=32,
              weight_decay=1e-4, epochs=5)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--network", choices=list(NETWORKS), default="mlp")
    parser.add_argument("--data", type=cli.path, metavar="DIR", help=f"holds the four IDX files (default: EP_DATA, the cache, "
                        f"{idx.DEBIAN})")
    parser.add_argument("--images", type=cli.count, metavar="N", help="train on the first N images")
    parser.add_argument("--epochs", type=cli.count)
    parser.add_argument("--lr", type=cli.positive, nargs="+", help="learning rate: one, or one per layer")
    parser.add_argument("--validation-images", type=cli.count, default=0, metavar="N", help="hold out the last N training "
                        "images and evaluate on them, never on test images: to choose settings")
    parser.add_argument("--threads", type=cli.count, default=cli.cores())
    parser.add_argument("--out", type=cli.path, default=Path("runs/fashion_mnist"), help="folder for the runs and the figure")
    args = parser.parse_args()
    dataset = datasets.hold_out(idx.load(None, args.data), args.validation_images)
    print(datasets.banner(dataset))
    n = args.images
    dataset = dataset._replace(train_images=dataset.train_images[:n], train_labels=dataset.train_labels[:n])
    build, settings = NETWORKS[args.network]
    train(build(), dataset, COMMON | settings | cli.given(args, ["epochs", "lr", "validation_images"]), args.threads,
          args.out / args.network)
    plot(args.out, dataset.source)


def train(network, dataset, settings, threads, folder):
    """The library's loop: log, curves and checkpoint in the folder, and the distance to equilibrium in every line of the log."""
    test = len(dataset.test_labels)
    config = experiment.Config(**dict(settings, source=dataset.source, train_images=len(dataset.train_labels), test_images=test,
                                      final_test_images=test))

    def prepare(images, rng):
        x = images.astype(np.float32) / 255
        return x.reshape(len(x), *network.shapes[0])  # flat for an MLP

    with ep.worker_threads(threads) as map:
        run = runs.Run.started(folder, config, network, experiment.build_optimizer(config, network))
        run.train(experiment.gradient_function(config, map=map), dataset, prepare, map)
        run.finish()


def plot(folder, source):
    """The logs of every network in the folder."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, colour in zip(NETWORKS, ("#0072B2", "#D55E00")):
        if (folder / name / "log.jsonl").exists():
            log = [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
            epochs = [line["epoch"] for line in log]
            test, train = ([100 * line[key] for line in log] for key in ("test_accuracy", "train_accuracy"))
            axes.plot(epochs, test, "o-", color=colour)
            axes.plot(epochs, train, "--", color=colour)
            axes.annotate(f"{name}: {test[-1]:.1f}%", (epochs[-1], test[-1]), (8, 0), textcoords="offset points", color=colour,
                          va="center", annotation_clip=False)
    axes.set(title=f"Does one rule train both? Symmetric EP on {source}", ylabel="accuracy (%)",
             xlabel="epoch (solid: test images, dashed: training images, while they are learned)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.8, axes.get_xlim()[1] * 1.25)  # room for the labels
    axes.grid(alpha=0.3)
    figure.savefig(folder / "fashion_mnist.png", dpi=90)


if __name__ == "__main__":
    cli.run(main)
