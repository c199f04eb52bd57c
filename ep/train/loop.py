"""Training: three short functions around any gradient, EP's or BPTT's, and anyone's arrays.

    gradient(network, x, y, rng) -> Estimate, or the Step that `in_chunks` makes of many    rng: this batch's own generator
    prepare(images, rng) -> x                      a batch of stored images -> float inputs; rng None: no augmentation

Whatever is random in a batch is drawn from default_rng([seed, epoch, step]), for the whole batch at once. So there is no
generator state to keep: (seed, epoch, step) says where a run stands, and the number of threads changes nothing.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..backend import Array, array_module, to_host
from ..checks import arrayed, whole
from ..dynamics import Estimate, Relaxation
from ..errors import EPError
from ..network import Network
from .step import Part, Step, merged, part

CHUNK = 16  # images that are relaxed together by one thread: their patches fit into a CPU's caches (a GPU wants whole batches)


def train_epoch(network: Network, images: Array, labels: Array, gradient: Callable[..., Estimate | Step], optimizer: Any, *,
                batch_size: int, epoch: int = 0, seed: int = 0, prepare: Callable[..., Array] | None = None,
                first_step: int = 0, on_step: Callable[[int, Step], object] = lambda number, step: None) -> None:
    """One pass over the images in an order drawn from (seed, epoch); `on_step` sees every step's number and `Step`.

    images (N, ...), labels (N,). first_step: skip the steps before it (to resume). An incomplete last batch is used too.
    Raises EPError if there are no images or another number of labels, or for the optimizer of another network; and (exit code 1),
    before any parameter has changed, if a gradient is not finite.
    """
    (images, labels), batch_size, epoch = counted(images, labels), whole(batch_size, "batch size", 1), whole(epoch, "epoch")
    theirs = getattr(optimizer, "network", network).parameters()
    if any(theirs.get(name) is not w for name, w in network.parameters().items()):
        raise EPError("this optimizer changes the parameters of another network: make one for this network")
    order = np.random.default_rng([whole(seed, "seed"), epoch]).permutation(len(labels))
    for number in range(first_step, steps_per_epoch(len(labels), batch_size)):
        batch = order[number * batch_size:(number + 1) * batch_size]
        rng = np.random.default_rng([seed, epoch, number])
        x = images[batch] if prepare is None else prepare(images[batch], rng)
        made = gradient(network, x, labels[batch], rng)
        step = made if isinstance(made, Step) else merged([as_part(network, made)])
        step.check_finite(f"at epoch {epoch + 1}, step {number + 1}")
        optimizer.step(step.gradient, epoch)
        on_step(number, step)


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


def in_chunks(gradient: Callable[..., Estimate | Part], network: Network, x: Array, y: Array, map: Callable = map,
              size: int = CHUNK) -> Step:
    """gradient(network, x, y) chunk by chunk, merged in the order of the chunks: the result is independent of `map`.

    It depends a little on `size`, where a tolerance ends the relaxation: images leave a chunk half after half.
    """
    x, y = counted(x, y)
    return merged(list(map(lambda chunk: as_part(network, gradient(network, x[chunk], y[chunk])), chunks(len(y), size))))


def as_part(network, made):
    return made if isinstance(made, Part) else part(network, made)


# --- before the work starts -------------------------------------------------------------------------------------------


def rehearse(network, gradient, prepare, images, labels):
    """The gradient of one image, thrown away: settings that do not fit together raise their EPError here."""
    rng = np.random.default_rng(0)
    gradient(network, prepare(images[:1], rng), labels[:1], rng)


def numbers(scalars):
    """[arrays of shape ()] -> [Python numbers], in one look: a GPU waits for each."""
    return to_host(array_module(scalars[0]).stack(scalars)).tolist()
