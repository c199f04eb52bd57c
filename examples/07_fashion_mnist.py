"""Does the same rule train a fully connected network and a convolutional one?

    python examples/07_fashion_mnist.py                      # MLP 784-256-10
    python examples/07_fashion_mnist.py --network convnet    # 16 and 32 channels

Symmetric EP on Fashion-MNIST (downloaded; or Debian's package dataset-fashion-mnist; or --data DIR with the IDX files, of MNIST
too), nearly as `--preset cpu --optimizer adam` does it: gain 0.01, two sweeps up, one down as deviations. The phases settle, and
every printed line says how nearly. All 60,000 training images for five epochs, seed 0; accuracy on all 10,000 test images, and on
the first 1,000 of them after the two sweeps and at the fixed point; the smallest cosine with the exact gradient of any layer:

    mlp      88.2%    88.1%, 88.1%    0.994       docs/logs/settled-fashion-mnist-mlp.jsonl
    convnet  91.3%    92.3%, 92.3%    0.992       docs/logs/settled-fashion-mnist-convnet.jsonl

No setting was chosen on these images. Before there was a gain (gain 1, SGD, steps that need not settle) it was 86.9% and 88.8%.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import ep
from ep import datasets
from ep.builders import calibrate
from ep.datasets import idx
from ep.train import commandline as cli, experiment, loop, runs

GAIN, SCALE = 0.01, (1.0, 6.0)  # the readout's initial weights times 6, as in the preset `cpu`
NETWORKS = {  # name: (builder, settings)
    "mlp": (partial(ep.mlp, [784, 256, 10], scale=SCALE, feedback=GAIN), dict(channels=(), lr=(1e-3, 3e-3))),
    "convnet": (partial(ep.convnet, [16, 32], (28, 28, 1), paddings=[1, 1], scale=SCALE, feedback=GAIN),
                dict(channels=(16, 32), lr=(4e-3, 1.2e-2))),
}
COMMON = dict(dataset="fashion-mnist", feedback=GAIN, scale=SCALE, initial_drive=0.333, nudged_phases="deviations", beta=0.1,
              steps_free=2, schedule="up", steps_nudged=1, schedule_nudged="down", optimizer="adam", weight_decay=0.02,
              batch_size=64, epochs=5)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("--network", choices=list(NETWORKS), default="mlp")
    parser.add_argument("--data", type=cli.path, metavar="DIR", help=f"holds the four IDX files (default: EP_DATA, the cache, "
                        f"{idx.DEBIAN})")
    parser.add_argument("--images", type=cli.count, metavar="N", help="train on the first N images")
    parser.add_argument("--epochs", type=cli.count)
    parser.add_argument("--threads", type=cli.count, default=cli.cores())
    parser.add_argument("--out", type=cli.path, default=Path("runs/fashion_mnist"), help="folder for the runs and the figure")
    args = parser.parse_args()
    dataset = datasets.load("auto" if args.data else "fashion-mnist", args.data)
    if dataset.name not in idx.KINDS:
        raise ep.EPError(f"{dataset.source} is neither MNIST nor Fashion-MNIST: --data names the folder of their four IDX files")
    print(datasets.banner(dataset))
    n = args.images
    dataset = dataset._replace(train_images=dataset.train_images[:n], train_labels=dataset.train_labels[:n])
    build, settings = NETWORKS[args.network]
    train(build(), dataset, COMMON | settings | cli.given(args, ["epochs"]), args.threads,
          args.out / args.network)
    plot(args.out, dataset.source)


def train(network, dataset, settings, threads, folder):
    """The library's loop: log, curves and checkpoint in the folder, and the distance to equilibrium in every line of the log."""
    test = len(dataset.test_labels)
    updates = settings["epochs"] * loop.steps_per_epoch(len(dataset.train_labels), settings["batch_size"])
    config = experiment.Config(**settings, warm_up=updates // 20, source=dataset.source, train_images=len(dataset.train_labels),
                               test_images=test, final_test_images=test)

    def prepare(images, rng):
        x = images.astype(np.float32) / 255
        return x.reshape(len(x), *network.shapes[0])  # flat for an MLP

    calibrate(network, prepare(dataset.train_images[:experiment.CALIBRATION], None), config.initial_drive)
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
