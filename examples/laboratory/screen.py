"""What helps a network without batch normalisation, on images that it has not seen? One change at a time, in short trainings.

    python examples/laboratory/screen.py --data DIR --seeds 3                      # every variant, appended to screen.jsonl
    python examples/laboratory/screen.py --data DIR --seeds 2 preset smoothing     # some of them
    python examples/laboratory/screen.py --table                                   # what the file says

Every training is --preset cpu of ep.train on the first 20,000 training images of CIFAR-10 for two epochs, with a warm-up of 50
updates, and is evaluated on the last 5,000 training images. No test image is looked at. A variant is a `Variant`: settings of
ep.train, and plain functions around its `build`, `train_epoch` and `evaluate`. Its base is the variant that it is compared with.
Every one leaves the gradient of equilibrium propagation as it is: filters are fixed synapses, smoothing is another target, and
the rest happens outside of it.

Finished rows are skipped, seed by seed, so the same command goes on. Each row has the seconds of a core that it took, which other
programs on the machine change little.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

import ep
from ep import datasets, engine
from ep.train import commandline as cli, experiment, optimizers

COMMON = dict(train_images=20000, validation_images=5000, epochs=2, warm_up=50, chunk=64)


# --- what a variant may change ------------------------------------------------------------------------------------------


class Variant(NamedTuple):
    """A change of the base, which is the name of another variant."""

    base: str = ""
    settings: dict = {}  # of `experiment.resolve`
    optimizer: Callable = experiment.build_optimizer  # (config, network) -> optimizer
    gradient: Callable = experiment.gradient_function  # (config, map=) -> gradient(network, x, y, rng)
    targets: Callable = lambda labels, classes: labels  # (N,) -> (N,) or (N, classes)
    view: Callable = lambda images, seed, epoch: images  # what an epoch sees of the stored images
    change: Callable = lambda x, rng: x  # of a batch of inputs, after augmentation
    keep: float = 0.0  # of the average of the weights, at each update; 0: the last weights are evaluated


def smoothed(labels, classes, smoothing=0.1):
    """(1 - a) one-hot + a/classes, (N, classes)"""
    return ((1 - smoothing) * (labels[:, None] == np.arange(classes)) + smoothing / classes).astype("float32")


def alternating(images, seed, epoch):
    """Each image mirrored in every second epoch; a coin says in which. (`--flip` tosses one for each image and epoch.)"""
    coin = np.random.default_rng([seed, 17]).integers(0, 2, len(images))
    return np.where(((coin + epoch) % 2 == 1)[:, None, None, None], images[:, :, ::-1], images)


def cutout(x, rng, size=8):
    """A square of each input set to 0, the mean of all images; part of it may lie outside."""
    rows, columns = (np.arange(length) for length in x.shape[1:3])
    top, left = (rng.integers(-size // 2, length - size // 2, (len(x), 1)) for length in x.shape[1:3])
    down, right = (rows >= top) & (rows < top + size), (columns >= left) & (columns < left + size)
    return np.where((down[:, :, None] & right[:, None, :])[..., None], np.float32(0), x)


def cosine(config, network):
    """Muon with a rate that falls along half a cosine, not in a straight line."""
    optimizer = experiment.build_optimizer(config, network)
    rates, end, rise = optimizer.rates, optimizer.anneal_steps, optimizer.warm_up + 1
    optimizer.rate = lambda layer, done: optimizers.annealed(rates[layer], done, end) * min(1.0, (done + 1) / rise)
    return optimizer


def momentum(config, network, momentum):
    """Muon with another factor on the mean of the gradients."""
    optimizer = experiment.build_optimizer(config, network)
    optimizer.MOMENTUM = momentum
    return optimizer


def by_backpropagation(config, map):
    """PyTorch's gradient of the feed-forward network, for the settings with feedback=0."""
    import backpropagation
    import torch

    torch.set_num_threads(1)
    return backpropagation.backpropagated


# --- the variants -------------------------------------------------------------------------------------------------------


VARIANTS = {
    "preset": Variant(),
    "adam": Variant("preset", dict(optimizer="adam")),  # with its rates, decay and initial weights
    "adam, no filters": Variant("adam", dict(optimizer="adam", whitening=0)),
    "no filters": Variant("preset", dict(whitening=0)),
    "27 filters": Variant("preset", dict(whitening=27)),
    "decay 0.02": Variant("preset", dict(weight_decay=0.02)),
    "decay 0.1": Variant("preset", dict(weight_decay=0.1)),
    "decay 0.5": Variant("preset", dict(weight_decay=0.5)),
    "decay 1": Variant("preset", dict(weight_decay=1.0)),
    "rate x 2": Variant("preset", dict(lr=(2.4e-2, 1.2e-2))),
    "rate / 2": Variant("preset", dict(lr=(6e-3, 1.2e-2))),
    "readout's rate x 2": Variant("preset", dict(lr=(1.2e-2, 2.4e-2))),
    "readout's rate / 2": Variant("preset", dict(lr=(1.2e-2, 6e-3))),
    "cosine": Variant("preset", {}, cosine),
    "no warm-up": Variant("preset", dict(warm_up=0)),
    "momentum 0.9": Variant("preset", {}, partial(momentum, momentum=0.9)),
    "momentum 0.97": Variant("preset", {}, partial(momentum, momentum=0.97)),
    "batches of 32": Variant("preset", dict(batch_size=32)),
    "batches of 128": Variant("preset", dict(batch_size=128, lr=(1.7e-2,))),
    "drives 0.333": Variant("preset", dict(initial_drive=0.333)),
    "drives 0.1": Variant("preset", dict(initial_drive=0.1)),
    "readout's weights x 2": Variant("preset", dict(scale=(1.0, 6.0))),
    "readout's weights / 3": Variant("preset", dict(scale=(1.0, 1.0))),
    "smoothing": Variant("preset", targets=smoothed),
    "average": Variant("preset", keep=0.98),
    "alternating flips": Variant("preset", dict(flip=False), view=alternating),
    "cutout": Variant("preset", change=cutout),
    "pad 4": Variant("preset", dict(pad=4)),
    "relu6": Variant("preset", dict(activation="relu6")),
    "narrower, longer": Variant("preset", dict(channels=(24, 48, 96, 192), epochs=3)),
    "wider, shorter": Variant("preset", dict(channels=(48, 96, 192, 384), epochs=1)),
    "backpropagation": Variant("preset", dict(feedback=0.0), gradient=by_backpropagation),
}


# --- a training ---------------------------------------------------------------------------------------------------------


def trained(variant, seed, dataset, threads, **common):
    """{"accuracy": of held-out images, ...} of one training."""
    config = experiment.resolve(dataset, "cpu", seed=seed, **common | variant.settings)
    n, first = config.train_images, experiment.for_calibration(dataset)
    network = experiment.build_network(config, first)
    optimizer = variant.optimizer(config, network)
    gradient = variant.gradient(config, map=threads)
    y, average = variant.targets(dataset.train_labels[:n], config.classes), {k: w.copy() for k, w in network.parameters().items()}

    def prepare(batch, rng):
        if rng is None:
            return dataset.normalise(batch)
        return variant.change(dataset.normalise(datasets.augment(batch, rng, config.pad, config.flip)), rng)

    def on_step(number, step):
        for name, w in network.parameters().items() if variant.keep else ():
            average[name] += (1 - variant.keep) * (w - average[name])

    start, clock = time.process_time(), time.monotonic()
    for epoch in range(config.epochs):
        ep.train_epoch(network, variant.view(dataset.train_images[:n], seed, epoch), y, gradient, optimizer, epoch=epoch,
                       batch_size=config.batch_size, seed=seed, prepare=prepare, on_step=on_step)
    seconds = time.process_time() - start
    if variant.keep:
        network.set_parameters(average)
    accuracy, loss = ep.evaluate(engine.prepared(network), dataset.test_images, dataset.test_labels,
                                 partial(ep.relax, phase=experiment.phases(config).free), prepare=prepare, map=threads)
    return dict(accuracy=accuracy, loss=loss, cpu_seconds=round(seconds, 1), wall_seconds=round(time.monotonic() - clock, 1))


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(rows):
    """Markdown: mean accuracy, the differences to the base seed by seed, their mean, and the processor's seconds."""
    found = {(row["variant"], row["seed"]): row for row in rows}
    lines = ["| variant | base | held out, mean (seeds) | minus base, in points | seed by seed | seconds of a core |",
             "|---|---|---|---|---|---|"]
    for name, variant in VARIANTS.items():
        mine = {seed: row for (one, seed), row in found.items() if one == name}
        if not mine:
            continue
        gains = [100 * (row["accuracy"] - found[variant.base, seed]["accuracy"]) for seed, row in sorted(mine.items())
                 if (variant.base, seed) in found]
        mean = f"{100 * np.mean([row['accuracy'] for row in mine.values()]):.1f} ({len(mine)})"
        gain = f"{np.mean(gains):+.1f}" if gains else ""
        seconds = np.mean([row["cpu_seconds"] for row in mine.values()])
        lines.append(f"| {name} | {variant.base} | {mean} | {gain} | {', '.join(f'{g:+.1f}' for g in gains)} | {seconds:.0f} |")
    return "\n".join(lines)


def main():
    args = options()
    if unknown := [name for name in args.variants if name not in VARIANTS]:
        raise ep.EPError(f"there is no variant {unknown[0]}: expected one of {', '.join(VARIANTS)}")
    if not args.table:
        whole = datasets.load("cifar10", args.data, download=False)
        dataset = datasets.hold_out(whole, COMMON["validation_images"])
        done = {(row["variant"], row["seed"]) for row in rows_of(args.out)}
        with ep.worker_threads(args.threads) as threads:
            for name, seed in [(name, seed) for name in args.variants or VARIANTS for seed in range(args.seeds)]:
                if (name, seed) in done:
                    continue
                row = dict(variant=name, seed=seed, **trained(VARIANTS[name], seed, dataset, threads, **COMMON))
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
    print(table(rows_of(args.out)))


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("variants", nargs="*", metavar="VARIANT", help=f"which (default: all): {', '.join(VARIANTS)}")
    add("--seeds", type=cli.count, default=3, metavar="N", help="the seeds 0 ... N - 1 (default: 3)")
    add("--data", type=cli.path, metavar="DIR", help="where CIFAR-10 is")
    add("--threads", type=cli.count, default=1, help="they change no result (default: 1)")
    add("--table", action="store_true", help="train nothing")
    add("--out", type=cli.path, metavar="FILE", default=Path("screen.jsonl"), help="(default: screen.jsonl)")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
