"""What does a network that is built of physics still learn: read noise, few bits, and two ways of a synapse that differ?

    python examples/laboratory/noisy_training.py                  # embedded images; 12 trainings, 5 minutes of one core
    python examples/laboratory/noisy_training.py --data DIR --rows "read noise" --gains 1 --channels 16 32 64 \\
        --train-images 4000 --epochs 1                            # CIFAR-10: 3 trainings, 2 minutes of one core

Each row is one training with the settings of --preset recurrent --optimizer adam (symmetric nudging by states, beta 0.2,
max-pooling), the same initial weights, batches and number of updates. Only the device differs (ep.Imperfections), and the gain:
at a gain below 1 the same weights have a smaller radius. It relaxes with its imperfections in the test, too. At the end: the
share of test images that are right, and the smallest cosine that its estimate has with the exact gradient of the fixed point,
over the hidden layers, for 64 test images. "own" and "Kolen-Pollack": the way down has weights of its own that start at W (1 +
mismatch n) and learn, by (7); "fixed": it stays at W (1 + mismatch n), and rule (4) is used.
Prints the table, and writes a line for each row to OUT/noisy_training.jsonl.
"""

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import ep
from ep import Imperfections, datasets, engine
from ep.datasets.augment import augment
from ep.train import commandline as cli, equilibrium, experiment
from ep.train.loop import as_part, chunks
from ep.train.runs import LOOK
from ep.train.step import merged
from ep.vectorfield import FEEDBACK_UPDATES

ROWS = [  # (name, gain, imperfections, how the way down learns)
    *(("read noise", gain, dict(read_noise=noise), "symmetric") for gain in (1.0, 0.1) for noise in (0.0, 1e-3, 1e-2)),
    *(("weight bits", 1.0, dict(weight_bits=bits), "symmetric") for bits in (4, 2)),
    ("state bits", 1.0, dict(state_bits=6), "symmetric"),
    *(("mismatch", 1.0, dict(mismatch=0.3), rule) for rule in ("fixed", "own", "kolen-pollack"))]


def initial(dataset, config, gain, device, rule):
    """The same initial weights for every row; with a way down of its own, (network, what is left of the device)."""
    network = experiment.build_network(config, experiment.for_calibration(dataset))
    network.feedback = gain
    if rule in FEEDBACK_UPDATES:
        own = device.device(network)
        own.set_parameters(own.parameters())  # of its own
        return own, Imperfections()
    return network, device


def trained(dataset, config, gain, device, rule):
    """(network, the device that it is relaxed on, mean steps of the free phase) after the training."""
    network, device = initial(dataset, config, gain, device, rule)
    combined = FEEDBACK_UPDATES[rule][1] if rule in FEEDBACK_UPDATES else dict
    optimizer, phases = experiment.build_optimizer(config, network), experiment.phases(config)
    watched, number, steps = experiment.for_calibration(dataset)[:16], itertools.count(), []

    def gradient(network, x, y, rng):
        here = next(number)
        step = merged([as_part(network, ep.imperfect_gradient(
            network, x[c], y[c], phases, nudging=experiment.nudging(config), prepared=engine.prepared,
            imperfections=replace(device, place=(here,), first=c.start))) for c in chunks(len(y), config.chunk)])
        step.gradient = combined(step.gradient)
        return step

    def on_step(done, step):
        steps.append(step.steps)
        if done % LOOK == LOOK - 1 and (r := ep.radius.settled_radius(network, watched, engine.prepared)) > config.radius_limit:
            ep.radius.scale_hidden(network, config.radius_limit / r)

    def prepare(images, rng):
        return dataset.normalise(augment(images, rng, config.pad, config.flip) if config.flip or config.pad else images)

    n = config.train_images
    for epoch in range(config.epochs):
        ep.train_epoch(network, dataset.train_images[:n], dataset.train_labels[:n], gradient, optimizer, epoch=epoch,
                       batch_size=config.batch_size, prepare=prepare, on_step=on_step)
    return network, device, sum(steps) / len(steps), len(steps)


def accuracy(network, device, dataset, config):
    """The share of test images that are right when the device has settled."""
    rule = device.coarse(network)
    images, labels = dataset.test_images[:config.test_images], dataset.test_labels[:config.test_images]
    return ep.evaluate(engine.prepared(device.device(rule)), images, labels, lambda network, x: ep.relax(
        network, x, experiment.phases(config).free, disturb=device.disturbance(rule, 0, len(x))),
        prepare=lambda images, rng: dataset.normalise(images))[0]


def smallest_cosine(network, device, dataset, config, rule):
    """Of the device's estimate with the exact gradient of its loss, over the hidden layers, for 64 test images."""
    x, y, phases = dataset.normalise(dataset.test_images[:64]), dataset.test_labels[:64], experiment.phases(config)
    relaxes, combined = device.device(device.coarse(network)), FEEDBACK_UPDATES[rule][1] if rule in FEEDBACK_UPDATES else dict
    exact, w = combined(equilibrium.exact_gradient(relaxes, x, y, phases.free).gradient), relaxes.parameters()
    if rule == "fixed":  # B = (1 + mismatch n) W moves with W
        for B in [name for name in exact if name.endswith(".B")]:
            W = f"{B[:-1]}W"
            exact[W] = exact[W] + w[B] / w[W] * exact.pop(B)
    found = ep.imperfect_gradient(network, x, y, phases, nudging=experiment.nudging(config), imperfections=device,
                                  prepared=engine.prepared)
    return min(list(equilibrium.cosines(combined(found.gradient), exact).values())[:-1])


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("--data", type=cli.path, metavar="DIR", help="where CIFAR-10 is (default: embedded images)")
    add("--rows", metavar="NAME", help="only the rows of this name, such as 'mismatch' (default: all)")
    add("--gains", type=cli.not_negative, nargs="+", metavar="GAIN", help="only rows of these gains (default: all)")
    add("--channels", type=cli.count, nargs="+", default=[8, 16, 16], metavar="N", help="default: 8 16 16")
    add("--train-images", type=cli.count, default=2000, metavar="N", help="default: 2000")
    add("--test-images", type=cli.count, default=1000, metavar="N", help="default: 1000")
    add("--epochs", type=cli.count, default=2, help="default: 2")
    add("--batch-size", type=cli.count, default=16, metavar="N", help="default: 16")
    add("--out", type=cli.path, default=Path("runs/noisy_training"), help="folder for the table")
    args = parser.parse_args()
    dataset = datasets.load("cifar10" if args.data else "synthetic", args.data, download=False)
    config = experiment.resolve(dataset, "recurrent", optimizer="adam", channels=tuple(args.channels), epochs=args.epochs,
                                train_images=args.train_images, test_images=args.test_images, batch_size=args.batch_size)
    args.out.mkdir(parents=True, exist_ok=True)
    print(f"{dataset.source}; channels {args.channels}, {args.train_images} images x {args.epochs}, batches of {args.batch_size}")
    for name, gain, imperfections, rule in ROWS:
        if args.rows not in (None, name) or gain not in (args.gains or (gain,)):
            continue
        start = time.process_time()
        network, device, T, updates = trained(dataset, config, gain, Imperfections(**imperfections), rule)
        seconds = time.process_time() - start
        right = accuracy(network, device, dataset, config)
        cosine = smallest_cosine(network, device, dataset, config, rule)
        row = dict(name=name, gain=gain, **imperfections, way_down=rule, updates=updates, test_accuracy=right,
                   test_images=config.test_images, smallest_cosine=cosine, mean_steps_free=T, cpu_seconds=seconds,
                   channels=args.channels, images=dataset.name, train_images=args.train_images, epochs=args.epochs,
                   batch_size=args.batch_size)
        with open(args.out / "noisy_training.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        what = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in imperfections.items())
        print(f"gain {gain:<4g} {what:18} {rule:14} {right:6.1%} of {config.test_images}, cosine "
              f"{cosine:5.2f}, T {T:4.1f}, {updates} updates, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    cli.run(main)
