"""How far is a network from the equilibrium that equilibrium propagation is about, and how recurrent is it? For every result.

    accuracy   of the states after the T steps of the free phase, and of the fixed point that they are on the way to
    cosine     of the gradient estimate with the exact gradient of the loss at the fixed point, layer by layer
    regime     what is left without the feedback, of the gradient and of the accuracy; and the spectral radius

Where the free phase settles and the estimate is right, the accuracies are equal and the cosines are 1. Where they are not, the
numbers of a run still say how well it learns, but no theorem says why. Where nothing is lost without feedback, the network is
nearly feed-forward, and EP in it nearly backpropagation.
"""

import copy
import math
from dataclasses import replace
from functools import partial

import numpy as np

from .. import engine
from ..backend import Array, Gradient
from ..dynamics import Estimate, Phase, Phases, relax
from ..network import Network
from ..radius import spectral_radius
from ..rbp import rbp_gradient
from .loop import CHUNK, chunks, evaluate, numbers
from .optimizers import layer_of

SETTLED = Phase(200, "checkerboard", 1e-5)  # how a fixed point is looked for: from the states at T, so it is theirs
SWEEP = Phase(1, "up")
FEW, MANY = 128, 1000  # images to relax so far: many, if nearly all of the few have settled, for else it takes minutes


def settled(network):
    """SETTLED, with a tolerance that is a share of the upper bound of the states: so is what float32 rounds off."""
    return replace(SETTLED, tolerance=SETTLED.tolerance * max(sigma.bounds[1] for sigma in network.activations))


def distance(network, images, labels, gradient, phases, *, prepare, combined=dict, map=map, chunk=CHUNK):
    """Both answers as a flat dictionary of numbers, for the log.

    images, labels: of which the first MANY are looked at, and the first CHUNK for the gradient. Test images, for once training
    images have been learned, little is left of their gradient.
    gradient(network, x, y) -> Step, the one that trains. phases: its `Phases`. combined: what is made of the exact gradient
    before they are compared, as of the estimate (see FEEDBACK_UPDATES).
    Cosines are None where most images have no fixed point within reach: there is no exact gradient then.
    """
    result = accuracies(engine.prepared(network), images, labels, phases.free, prepare=prepare, map=map, chunk=chunk)
    x, y, smallest, exact = prepare(images[:CHUNK], None), labels[:CHUNK], None, None
    cosine = dict.fromkeys(map(layer_of, network.parameters()))
    if result["settled_images"] >= 0.5:
        exact = exact_gradient(network, x, y, phases.free)
        cosine = cosines(gradient(network, x, y).gradient, combined(exact.gradient))
        smallest = min(cosine.values())
    alone = evaluate(engine.prepared(without_feedback(network)), images[:MANY], labels[:MANY], partial(relax, phase=SWEEP),
                     prepare=prepare, map=map, chunk=chunk)
    return {**result, **{f"cosine_{layer}": c for layer, c in cosine.items()}, "smallest_cosine": smallest,
            **regime(network, x, y, phases.free, exact), "accuracy_without_feedback": alone[0]}


def accuracies(network, images, labels, free, *, prepare, map=map, chunk=CHUNK):
    """Right answers at T and at the fixed point, as shares of the same images.

        accuracy_at_T         after the phase `free`
        fixed_point_accuracy  after relaxing on, as `settled` says
        changed_images        share of those right at only one of them: it tells noise from a real difference
        settled_images        share of those that reached its tolerance
        fixed_point_images    how many images
    """
    def one_chunk(part):
        x, y = prepare(images[part], None), labels[part]
        at_T = relax(network, x, free)
        still = relax(network, x, settled(network), start=at_T.states)
        right, later = (network.predict(states) == network.targets(y).argmax(1) for states in (at_T.states, still.states))
        return [*numbers([right.sum(), later.sum(), (right != later).sum(), still.settled.sum()]), len(y)]

    images, labels = images[:MANY], labels[:MANY]
    parts = chunks(len(labels), chunk)
    few = -(-FEW // chunk)
    found = list(map(one_chunk, parts[:few]))
    if sum(row[3] for row in found) >= 0.95 * sum(row[4] for row in found):
        found += list(map(one_chunk, parts[few:]))
    *sums, n = np.sum(found, axis=0).tolist()
    names = ("accuracy_at_T", "fixed_point_accuracy", "changed_images", "settled_images")
    return {**{name: total / n for name, total in zip(names, sums)}, "fixed_point_images": int(n)}


def regime(network: Network, x: Array, y: Array, free: Phase, exact: Estimate | None) -> dict:
    """How recurrent the network is at the fixed points of a few images, as a flat dictionary.

        spectral_radius               mean over the images (radius.py), and the largest
        largest_spectral_radius
        cosine_one_pass               of one backward pass at the fixed point with the exact gradient, smallest over hidden layers
        largest_cosine_feed_forward   of backpropagation in the same weights without feedback, largest over hidden layers

    exact: what `exact_gradient` returned for them; None, if there is none: then so are all of these.
    """
    names = ("spectral_radius", "largest_spectral_radius", "cosine_one_pass", "largest_cosine_feed_forward")
    if exact is None:
        return dict.fromkeys(names)
    wide, x, down = engine.prepared(in_float64(network)), x.astype("float64"), Phase(1, "down")
    radius = spectral_radius(wide, x, exact.free)
    one_pass = rbp_gradient(wide, x, y, Phases(until_settled(free), down), exact.free.states)
    feed_forward = rbp_gradient(without_feedback(wide), x, y, Phases(SWEEP, down))
    return dict(zip(names, (float(radius.mean()), float(radius.max()), min(hidden(one_pass, exact)),
                            max(hidden(feed_forward, exact)))))


def without_feedback(network):
    """The same network, and weights, with the gain 0: one sweep up is then all that it does (without lateral synapses)."""
    other = copy.copy(network)
    other.feedback = 0.0
    return other


def hidden(estimate, exact):
    """Cosines of the layers below the last, whose own gradient needs no feedback."""
    found = list(cosines(estimate.gradient, exact.gradient).values())
    return found[:-1] or found


def exact_gradient(network: Network, x: Array, y: Array, free: Phase) -> Estimate:
    """dL/dtheta at the fixed point that the phase `free` ends near, by recurrent backpropagation in float64: an `Estimate`.

    The phase itself runs in the network's own precision, and in float64 the network settles on from there: where there are
    several fixed points, it is that of the estimate. The network is copied. Right to about 1e-8, if there is such a fixed point:
    see `free.converged` of the result.
    """
    start = [s.astype("float64") for s in relax(engine.prepared(network), x, free).states]
    phases = Phases(until_settled(free), Phase(SETTLED.steps, "down", 1e-10))
    return rbp_gradient(engine.prepared(in_float64(network)), x.astype("float64"), y, phases, start)


def until_settled(free: Phase) -> Phase:
    """The phase `free`, but until it has settled, in float64."""
    schedule = "checkerboard" if free.schedule == "synchronous" else free.schedule  # where that would alternate for ever
    return replace(free, steps=free.steps + SETTLED.steps, schedule=schedule, tolerance=1e-10, check_every=None)


def in_float64(network: Network) -> Network:
    """A copy of the network, on the same device."""
    wide = copy.deepcopy(network)
    wide.set_parameters({name: w.astype("float64") for name, w in network.parameters().items()})
    return wide


def cosines(gradient: Gradient, exact: Gradient) -> dict[str, float]:
    """{layer: cosine of the angle between two gradients, weights and biases together}; 0 where either is 0 or not finite."""
    products = {layer_of(name): np.zeros(3) for name in exact}
    for name, e in exact.items():
        g = gradient[name].astype("float64")
        products[layer_of(name)] += numbers([(g * e).sum(), (g * g).sum(), (e * e).sum()])
    return {layer: float(ge / math.sqrt(gg * ee)) if 0 < gg * ee < math.inf else 0.0 for layer, (ge, gg, ee) in products.items()}
