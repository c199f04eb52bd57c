"""One training step: the gradients of the chunks of a batch put together, and what the log wants to know of it.

Everything up to `Step` stays on the device: `part` and `numbers_of` launch and look at no number, so that a GPU can record them
with the gradient (ep/engine/graph.py). The Python numbers of a `Step` are then looked at all at once.
"""

import math
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate
from operator import and_
from typing import Any

import numpy as np

from ..backend import Array, Gradient, array_module, to_host
from ..dynamics import Estimate
from ..errors import EPError


@dataclass
class Step:
    """A gradient over a batch, and Python numbers.

    gradient  {"1.W": dL/dW, ...}: batch mean, to be descended
    loss      batch mean; correct: number of right predictions at s*; images: how many
    steps     of the free phase, mean over the images; residual: the largest of its last step
    converged share of the images that settled: whose last change is at most the tolerance
    history   [(step, largest residual)] of the free phase
    stuck     per layer, the share of units at the same bound of the activation in every image: such a unit learns nothing
    squares   {name: sum of the squares of its gradient}
    """

    gradient: Gradient
    loss: float
    correct: int
    images: int
    steps: float
    residual: float
    converged: float
    history: list[tuple[int, float]]
    stuck: list[float]
    squares: dict[str, float]

    def norms(self) -> dict[str, float]:
        """{layer: Euclidean norm of its gradient, weights and biases together}."""
        totals: dict[str, float] = {}
        for name, square in self.squares.items():
            layer = name.split(".")[0]
            totals[layer] = totals.get(layer, 0.0) + square
        return {layer: total**0.5 for layer, total in totals.items()}

    def check_finite(self, when: str) -> None:
        """Raise EPError naming the first parameter whose gradient is NaN or infinite."""
        for name, square in self.squares.items():
            if not math.isfinite(square):
                raise EPError(f"the gradient of {name} is not finite, or too large to be squared, {when}: the parameters are "
                              "unchanged since the step before; try a smaller learning rate or scale", exit_code=1)


@dataclass
class Part:
    """What a chunk of images adds to a step, on the device.

    gradient   mean over these images
    at_bounds  (2, units): whether a unit is at the lower bound in all of them, and at the upper; layer by layer
    numbers    loss, right predictions and settled images, summed, and the changes of the free phase
    units      of each layer; times: the steps at which there is a change, the last one last
    steps      mean over the images
    alone      `numbers_of` a batch that is this part alone, where they were recorded with it
    """

    images: int
    gradient: Gradient
    at_bounds: Array
    numbers: Array
    units: list[int]
    times: list[int]
    steps: float
    alone: Array | None = None


def part(network, estimate: Estimate) -> Part:
    """The `Part` of an `Estimate`."""
    free, units = estimate.free, [math.prod(shape) for shape in network.shapes[1:]]
    changes = [*(change for _, change in free.earlier), free.change]
    numbers = [estimate.costs.sum(), estimate.right.sum(), free.settled.sum(), *changes]
    bounds = at_bounds(free.states, [sigma.bounds for sigma in network.activations], units)
    return Part(len(estimate.costs), estimate.gradient, bounds, packed(numbers), units,
                [*(t for t, _ in free.earlier), free.steps], free.mean_steps)


def at_bounds(states, bounds, units):
    """(2, units), as a `Part` has it."""
    start = 0
    found = array_module(states[0]).empty((2, sum(units)), dtype=bool)
    for s, (low, high), size in zip(states, bounds, units):
        at_low, at_high = (row[start:start + size].reshape(s.shape[1:]) for row in found)
        (s <= low).all(0, out=at_low)
        (s >= high).all(0, out=at_high)
        start += size
    return found


def packed(numbers):
    """Numbers on the device, and arrays of them, as one array."""
    first, start = numbers[0], 0
    out = array_module(first).empty(sum(number.size for number in numbers), dtype=first.dtype)
    for number in numbers:
        out[start:start + number.size] = number
        start += number.size
    return out


def recorded(recorder, gradient, key, network, x, y) -> Part:
    """The `Part` of gradient(network, x, y), launched as a CUDA graph; key: all that gradient depends on beside its arguments."""
    def launch(x, y):
        made = part(network, gradient(network, x, y))
        return [*made.gradient.values(), made.at_bounds, made.numbers, numbers_of([made], made.gradient, made.at_bounds)], made

    (*gradients, bounds, numbers, alone), made = recorder(launch, network, key, *network.examples(x, y))
    return replace(made, gradient=dict(zip(made.gradient, gradients)), at_bounds=bounds, numbers=numbers, alone=alone)


def merged(parts: list[Part]) -> Step:
    """The `Step` of a batch from its parts, added up in their order."""
    N = sum(one.images for one in parts)
    if len(parts) == 1 and parts[0].alone is not None:
        return step(parts, parts[0].gradient, parts[0].alone)
    gradient: dict[str, Any] = parts[0].gradient if len(parts) == 1 else {
        name: sum((one.images / N) * one.gradient[name] for one in parts) for name in parts[0].gradient}
    return step(parts, gradient, numbers_of(parts, gradient, reduce(and_, [one.at_bounds for one in parts])))


def numbers_of(parts, gradient, at_bounds):
    """All numbers of the `Step` in one array on the device: squares, stuck units of each layer, and those of the parts."""
    squares = [(g * g).sum() for g in gradient.values()]
    stuck, ends = at_bounds[0] | at_bounds[1], [*accumulate(parts[0].units)]
    stuck = [stuck[start:end].sum(dtype=squares[0].dtype) for start, end in zip([0, *ends], ends)]
    return packed([*squares, *stuck, *(one.numbers for one in parts)])


def step(parts: list[Part], gradient: Gradient, numbers: Array) -> Step:
    """The `Step`, after the one look at the device. Of the parts only what the host knows is used."""
    found = iter(to_host(numbers).tolist())
    squares, stuck = {name: next(found) for name in gradient}, [next(found) / units for units in parts[0].units]
    N, loss, correct, steps, converged, residual = sum(one.images for one in parts), 0.0, 0, 0.0, 0.0, 0.0
    history: dict[int, float] = {}
    for one in parts:
        loss, correct, converged = loss + next(found), correct + round(next(found)), converged + next(found) / N
        changes = [next(found) for _ in one.times]
        for t, change in zip(one.times, changes):
            history[t] = float(np.maximum(history.get(t, 0.0), change))  # NaN if one is, which Python's max may lose
        steps += one.steps * one.images / N
        residual = float(np.maximum(residual, changes[-1]))
    return Step(gradient, loss / N, correct, N, steps, residual, converged, sorted(history.items()), stuck, squares)
