"""Training: three short functions around any gradient, EP's or BPTT's, and anyone's arrays.

    gradient(network, x, y, rng) -> Estimate       rng: this batch's own random generator
    prepare(images, rng) -> x                      a batch of stored images -> float inputs; rng None: no augmentation

Whatever is random in a batch is drawn from default_rng([seed, epoch, step]), for the whole batch at once. So there is no
generator state to keep: (seed, epoch, step) says where a run stands, and the number of threads changes nothing.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..backend import Array, array_module, to_host
from ..checks import arrayed, whole
from ..dynamics import Estimate, Relaxation
from ..errors import EPError
from ..network import Network

CHUNK = 16  # images that are relaxed together by one thread: their patches fit into a CPU's caches (a GPU wants whole batches)


def train_epoch(network: Network, images: Array, labels: Array, gradient: Callable[..., Estimate], optimizer: Any, *,
                batch_size: int, epoch: int = 0, seed: int = 0, prepare: Callable[..., Array] | None = None,
                first_step: int = 0, on_step: Callable[[int, Estimate], object] = lambda step, estimate: None) -> None:
    """One pass over the images in an order drawn from (seed, epoch); `on_step` sees every step's `Estimate`.

    images (N, ...), labels (N,). first_step: skip the steps before it (to resume). An incomplete last batch is used too.
    Raises EPError if there are no images or another number of labels; and (exit code 1), before any parameter has changed, if a
    gradient is not finite.
    """
    (images, labels), batch_size = counted(images, labels), whole(batch_size, "batch size", 1)
    order = np.random.default_rng([whole(seed, "seed"), epoch]).permutation(len(labels))
    for step in range(first_step, steps_per_epoch(len(labels), batch_size)):
        batch = order[step * batch_size:(step + 1) * batch_size]
        rng = np.random.default_rng([seed, epoch, step])
        x = images[batch] if prepare is None else prepare(images[batch], rng)
        estimate = gradient(network, x, labels[batch], rng)
        check_finite(estimate, epoch, step)
        optimizer.step(estimate.gradient, epoch)
        on_step(step, estimate)


def evaluate(network: Network, images: Array, labels: Array, relax: Callable[..., Relaxation], *,
             prepare: Callable[..., Array] | None = None, map: Callable = map, chunk: int = CHUNK) -> tuple[float, float]:
    """(accuracy from 0 to 1, mean loss) of the free fixed points that relax(network, x) reaches.

    Raises EPError if there are no images, or another number of labels.
    """
    images, labels = counted(images, labels)

    def one_chunk(part):
        x = images[part] if prepare is None else prepare(images[part], None)
        states, y = relax(network, x).states, network.targets(labels[part], x.dtype)
        return numbers([(network.predict(states) == y.argmax(1)).sum(), network.cost.value(states[-1], y).sum()])

    results = list(map(one_chunk, chunks(len(labels), chunk)))
    return tuple(sum(column) / len(labels) for column in zip(*results))


def counted(images, labels):
    """Both as arrays; EPError unless there is at least one image, and one label for each."""
    images, labels = arrayed(images, "images"), arrayed(labels, "labels")
    if len(images) != len(labels) or not len(labels):
        raise EPError(f"expected images and one label for each: got {len(images)} images and {len(labels)} labels")
    return images, labels


def steps_per_epoch(images, batch_size):
    return -(-images // batch_size)


# --- chunks and threads -----------------------------------------------------------------------------------------------


@contextmanager
def worker_threads(threads: int) -> Iterator[Callable]:
    """A `map` that runs in `threads` threads, each with single-threaded BLAS (NumPy releases the interpreter lock)."""
    with threadpool_limits(1), ThreadPoolExecutor(whole(threads, "threads", 1)) as pool:
        yield pool.map


def chunks(n, size=CHUNK):
    """[slice(0, size), slice(size, 2 size), ...] over n images: cut by the index in the batch alone."""
    size = whole(size, "images of a chunk", 1)
    return [slice(start, start + size) for start in range(0, n, size)]


def in_chunks(gradient: Callable[..., Estimate], network: Network, x: Array, y: Array, map: Callable = map,
              size: int = CHUNK) -> Estimate:
    """gradient(network, x, y) chunk by chunk, merged in the order of the chunks: the result is independent of `map`.

    It depends on `size`, where a tolerance ends the relaxation: a chunk stops as a whole.
    """
    x, y = counted(x, y)
    parts = list(map(lambda chunk: gradient(network, x[chunk], y[chunk]), chunks(len(y), size)))
    return merge(parts, [len(y[chunk]) for chunk in chunks(len(y), size)])


def merge(parts, sizes):
    """One `Estimate` for a batch from those of its chunks. `free.steps` is then the mean over the images,
    `free.residual` the largest, `free.converged` the share of images whose chunk reached the tolerance."""
    if len(parts) == 1:  # a GPU's whole batch: nothing to add up, and what is known of it stays true
        return replace(parts[0], nudged=[], free=replace(parts[0].free, switches=[], u=[]))
    share = [size / sum(sizes) for size in sizes]
    history = {}
    for part in parts:
        for t, residual in part.free.history:
            history[t] = float(np.maximum(history.get(t, 0.0), residual))  # not Python's max, which may lose a NaN
    free = Relaxation(
        states=[array_module(layer[0]).concatenate(layer) for layer in zip(*(part.free.states for part in parts))], switches=[],
        steps=sum(a * part.free.steps for a, part in zip(share, parts)),
        residual=float(np.max([part.free.residual for part in parts])),
        converged=sum(a * part.free.converged for a, part in zip(share, parts)),
        history=sorted(history.items()))
    return Estimate(
        gradient={name: sum(a * part.gradient[name] for a, part in zip(share, parts)) for name in parts[0].gradient},
        loss=sum(a * part.loss for a, part in zip(share, parts)),
        correct=sum(part.correct for part in parts), free=free)


# --- before the work starts -------------------------------------------------------------------------------------------


def rehearse(network, gradient, prepare, images, labels):
    """The gradient of one image, thrown away: settings that do not fit together raise their EPError here."""
    rng = np.random.default_rng(0)
    gradient(network, prepare(images[:1], rng), labels[:1], rng)


def seconds_per_step(network, x, phase, relax, map, threads):
    """Measured seconds per image and step of this `Phase` while `threads` chunks like x are relaxed at once by `relax`."""
    list(map(lambda _: relax(network, x, replace(phase, steps=1)), range(threads)))  # the first touches new memory
    start = time.perf_counter()
    list(map(lambda _: relax(network, x, replace(phase, steps=4)), range(threads)))
    return (time.perf_counter() - start) / (4 * threads * len(x))


# --- what tells a failing run from a good one -------------------------------------------------------------------------


def check_finite(estimate, epoch, step):
    """Raise EPError naming the first layer whose gradient is NaN or infinite."""
    squares = estimate.known.get("squares")
    if squares and all(map(math.isfinite, squares.values())):
        return
    gradient = estimate.gradient
    for name, good in zip(gradient, numbers([array_module(g).isfinite(g).all() for g in gradient.values()])):
        if not good:
            raise EPError(f"the gradient of {name} is not finite at epoch {epoch + 1}, step {step + 1}: the parameters are "
                          "unchanged since the step before; try a smaller learning rate or scale", exit_code=1)


def gradient_norms(estimate):
    """{layer: Euclidean norm of its gradient, weights and biases together}."""
    gradient, totals = estimate.gradient, {}
    squares = estimate.known.get("squares") or dict(zip(gradient, numbers([(g * g).sum() for g in gradient.values()])))
    for name, square in squares.items():
        layer = name.split(".")[0]
        totals[layer] = totals.get(layer, 0.0) + square
    return {layer: total**0.5 for layer, total in totals.items()}


def stuck_shares(network, estimate):
    """Per layer, the share of units at the same bound of the activation in every image: such a unit learns nothing."""
    if "stuck" in estimate.known:
        return estimate.known["stuck"]
    states = estimate.free.states
    low, high = network.activation.bounds
    return numbers([((s <= low).all(0) | (s >= high).all(0)).mean() for s in states])


def numbers(scalars):
    """[arrays of shape ()] -> [Python numbers], in one look: a GPU waits for each."""
    return to_host(array_module(scalars[0]).stack(scalars)).tolist()
