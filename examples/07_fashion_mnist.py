"""Does the same rule train a fully connected network and a convolutional one?

    python examples/07_fashion_mnist.py                      # MLP 784-256-10: about 1 minute of one core
    python examples/07_fashion_mnist.py --network convnet    # 16 and 32 channels: 4 to 5 minutes with two cores

Symmetric EP on Fashion-MNIST (downloaded; or Debian's package dataset-fashion-mnist; or --data DIR with the IDX files, of MNIST too).
Rates and the MLP's steps were chosen on 5,000 images held out of the training images. Printed at the end of either, all
10,000 test images, seed 0 (docs/logs; their seconds are those of a machine with something else to do):

    epoch 5: train accuracy 89.2%, test accuracy 86.9%      mlp
    epoch 5: train accuracy 90.3%, test accuracy 88.8%      convnet
"""

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

import ep
from ep import datasets, fast
from ep.datasets import idx
from ep.train import commandline as cli

NETWORKS = {  # name: (builder, settings of the phases, learning rate, training images, epochs)
    "mlp": (partial(ep.mlp, [784, 256, 10]), dict(steps_free=12, steps_nudged=6), 0.05, 60000, 5),
    "convnet": (partial(ep.convnet, [16, 32], (28, 28, 1), paddings=[1, 1], scale=1.5),
                dict(steps_free=6, steps_nudged=3), 0.03, 60000, 5),  # two layers: a nudge reaches the lower one in one step
}
BETA, BATCH = 0.5, 32


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--network", choices=list(NETWORKS), default="mlp")
    parser.add_argument("--data", type=cli.path, metavar="DIR", help=f"holds the four IDX files (default: EP_DATA, the cache, "
                        f"{idx.DEBIAN})")
    parser.add_argument("--images", type=cli.count, metavar="N", help="train on the first N images")
    parser.add_argument("--epochs", type=cli.count)
    parser.add_argument("--lr", type=cli.positive, help="learning rate")
    parser.add_argument("--validation-images", type=cli.count, default=0, metavar="N", help="hold out the last N training images "
                        "and evaluate on them, never on test images: to choose settings")
    parser.add_argument("--threads", type=cli.count, default=cli.cores())
    parser.add_argument("--out", type=cli.path, default=Path("runs/fashion_mnist"), help="folder for log and figure")
    args = parser.parse_args()
    dataset = datasets.hold_out(idx.load(None, args.data), args.validation_images)
    print(datasets.banner(dataset))
    build, phases, lr, images, epochs = NETWORKS[args.network]
    images, epochs = args.images or images, args.epochs or epochs
    log = train(build(), dataset, phases, args.lr or lr, images, epochs, args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{args.network}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    plot(args.out, dataset.source)


def train(network, dataset, phases, lr, images, epochs, threads):
    """The log: one line per epoch, and one before the first."""
    optimizer, log, start = ep.SGD(network, lr, 0.9, 1e-4, epochs), [], time.perf_counter()
    nudging, flat, correct = ep.Nudging.symmetric(BETA), len(network.shapes[0]) == 1, []

    def prepare(images, rng):
        x = images.astype(np.float32) / 255
        return x.reshape(len(x), -1) if flat else x

    with ep.worker_threads(threads) as map:
        def gradient(network, x, y, rng):
            relax = fast.prepared(network, map=map)
            one_chunk = partial(ep.eqprop_gradient, nudging=nudging, schedule="checkerboard", relax=relax, **phases)
            estimate = ep.in_chunks(one_chunk, network, x, y, map)
            correct.append(estimate.correct / len(y))
            return estimate

        def test():
            relax = partial(fast.prepared(network, map=map), steps=phases["steps_free"], schedule="checkerboard")
            return ep.evaluate(network, dataset.test_images, dataset.test_labels, relax, prepare=prepare, map=map)

        for epoch in range(epochs):
            correct.clear()
            steps = -(-len(dataset.train_labels[:images]) // BATCH)
            with tqdm(total=steps, desc=f"epoch {epoch + 1}/{epochs}", unit="step", leave=False) as bar:
                ep.train_epoch(network, dataset.train_images[:images], dataset.train_labels[:images], gradient, optimizer,
                               batch_size=BATCH, epoch=epoch, prepare=prepare, on_step=lambda *_: bar.update())
            accuracy, loss = test()
            log.append(dict(epoch=epoch + 1, train_accuracy=float(np.mean(correct)), test_accuracy=accuracy, test_loss=loss,
                            seconds=time.perf_counter() - start, source=dataset.source))
            print("epoch {epoch}: train accuracy {train_accuracy:.1%}, test accuracy {test_accuracy:.1%}, {seconds:.0f} s"
                  .format_map(log[-1]), flush=True)
    return log


def plot(folder, source):
    """The logs of every network in the folder."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, colour in zip(NETWORKS, ("#0072B2", "#D55E00")):
        if (folder / f"{name}.jsonl").exists():
            log = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
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
