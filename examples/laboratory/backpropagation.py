"""What does backpropagation reach with the same recipe? Needs PyTorch and a finished run of the main job.

    python examples/laboratory/backpropagation.py RUN                # RUN: the run folder of examples/cifar10_sym_ep.py

Trains the feed-forward network of that run, the limit of no feedback, by PyTorch's autograd: the same initial weights, order
of images, augmentation, optimizer, rates and number of updates. Only the gradient is another one. So the difference to the
run's accuracy is what equilibrium propagation costs, or the noise of one seed. Time: half to two thirds of the run's.

    epoch 1: backpropagation 56.8%, equilibrium propagation 56.1% (2000 images)       ... one line an epoch, from both logs
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

import ep
from ep import datasets, engine
from ep.train import commandline as cli, experiment, loop
from ep.train.step import Step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("run", type=cli.path, help="run folder of the main job")
    parser.add_argument("--data", type=cli.path, metavar="DIR", help="where its images are now (default: where they were)")
    parser.add_argument("--threads", type=cli.count, default=1, help="of PyTorch (default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = Path(args.run)
    config = experiment.Config(**json.loads((run / "config.json").read_text()))
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    dataset = datasets.hold_out(datasets.load(config.dataset, args.data or config.data, download=False), config.validation_images)
    first = experiment.for_calibration(dataset)
    network, optimizer, _ = experiment.build(config, x=first)
    network.feedback = 0.0  # one sweep is then the feed-forward pass
    n = config.train_images

    def prepare(batch, rng):
        return dataset.normalise(batch if rng is None else datasets.augment(batch, rng, config.pad, config.flip))

    with ep.worker_threads(args.threads) as threads:
        for epoch in range(len(log)):
            bar = tqdm(total=loop.steps_per_epoch(n, config.batch_size), desc=f"epoch {epoch + 1}", leave=False)
            ep.train_epoch(network, dataset.train_images[:n], dataset.train_labels[:n], backpropagated, optimizer,
                           batch_size=config.batch_size, epoch=epoch, seed=config.seed, prepare=prepare,
                           on_step=lambda number, step, bar=bar: bar.update())
            bar.close()
            tested, forward = log[epoch]["test_images"], partial(ep.relax, phase=ep.Phase(1, "up"))
            accuracy, _ = ep.evaluate(engine.prepared(network), dataset.test_images[:tested], dataset.test_labels[:tested],
                                      forward, prepare=prepare, map=threads)
            print(f"epoch {epoch + 1}: backpropagation {accuracy:.1%}, equilibrium propagation "
                  f"{log[epoch]['test_accuracy']:.1%} ({tested} images)", flush=True)


def backpropagated(network, x, y, rng):
    """The feed-forward network's `Step` by autograd: any wiring of convolutions and identities, sigma a clip, softmax."""
    theta = {name: torch.from_numpy(w).requires_grad_() for name, w in network.parameters().items()}  # the same memory
    layers, (low, high) = {0: torch.from_numpy(x).permute(0, 3, 1, 2)}, network.activation.bounds  # (N, C, H, W) in PyTorch
    for n in sorted(range(1, len(network.shapes)), key=lambda n: network.depths[n]):
        u = sum(drive(synapse, theta, k, layers[i]) for k, (synapse, (i, j)) in
                enumerate(zip(network.synapses, network.wiring), start=1) if j == n)
        layers[n] = torch.clamp(network.activation.slope * u, low, high)
    logits = layers[len(network.shapes) - 1].permute(0, 2, 3, 1).flatten(1) @ theta["readout.W"] + theta["readout.b"]
    labels = torch.from_numpy(y.astype("int64"))
    loss = F.cross_entropy(logits, labels)
    gradient = {name: g.numpy() for name, g in zip(theta, torch.autograd.grad(loss, list(theta.values())))}
    squares = {name: float((g * g).sum()) for name, g in gradient.items()}
    return Step(gradient, loss.item(), int((logits.argmax(1) == labels).sum()), len(y), steps=1, residual=0.0, converged=1.0,
                history=[], stuck=[], squares=squares)


def drive(synapse, theta, k, pre):
    """Of the k-th synapse on its post layer."""
    if type(synapse) is ep.Identity:
        return pre
    if type(synapse) is ep.Filtered:  # fixed filters and their negatives, then the convolution that learns
        filters = torch.from_numpy(synapse.filters.W).permute(3, 2, 0, 1)
        y = F.conv2d(pre, filters, padding=synapse.filters.padding)
        pre, synapse = torch.cat((y, -y), 1).clamp(min=0), synapse.conv
    W = theta[f"{k}.W"].permute(3, 2, 0, 1)  # (k, k, C_in, C_out) -> (C_out, C_in, k, k)
    u = F.conv2d(pre, W, theta[f"{k}.b"], stride=synapse.stride, padding=synapse.padding)
    return F.max_pool2d(u, 2) if synapse.pool == ep.MAX_POOL else u


if __name__ == "__main__":
    cli.run(main)
