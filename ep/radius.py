"""How recurrent is a network at its fixed points, and how many steps does it take to get there? One number: the spectral radius.

Near a fixed point s* = sigma(u*) a small deviation v from it changes, in one synchronous step, to

    v <- sigma'(u*) D v                      D the Jacobian of the drives, at the switches of s*                 (13)

so after many steps it has shrunk by a factor r a step, r the largest |eigenvalue| of this linear map. r = 0 is a feed-forward
network; the nearer r is to 1, the more often what a layer says comes back to it, and the longer the network takes to settle; with
r >= 1 it does not. In a chain a step of "up", "down" or "checkerboard" does what two synchronous steps do, so it shrinks v by
about r^2, and with over-relaxation by the omega of `best_omega` by about omega - 1.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np

from .activations import total
from .backend import Array, array_module, to_host
from .checks import real, whole
from .dynamics import Relaxation, iterate, relax
from .errors import EPError
from .network import Network
from .phase import Phase
from .synapse import Identity

ROUNDS = 20  # of two steps each
SETTLING = Phase(100, "checkerboard", 1e-3)
NEAR = 0.01  # a radius that is near enough to the one asked for


def spectral_radius(network: Network, x: Array, free: Relaxation, rounds: int = ROUNDS) -> np.ndarray:
    """r of each image, (N,), by Arnoldi's iteration on two steps of (13), from a random vector that is the same for every image.

        (Sigma D^T)^2 q_k = h_0k q_0 + ... + h_(k+1)k q_(k+1)        each round adds a unit vector q, orthogonal to those before

    Sigma holds sigma'(u*), and D^T has the eigenvalues of D. The largest |eigenvalue| of the small matrix h, (rounds, rounds), is
    soon that of the large one, r^2. (Of one step a chain has two, r and -r: its even and odd layers take turns. With skips it may
    be a negative one alone: beyond -1 synchronous steps alternate, where sweeps still settle.)
    free: the `Relaxation` of the free phase on x, settled. Raises EPError if it is not of as many images.
    """
    x, rounds = network.inputs(x), whole(rounds, "rounds", 1)
    if len(x) != len(free.states[-1]):
        raise EPError(f"expected the relaxation of these images: got {len(x)} images, and states of {len(free.states[-1])}")
    u, xp, N = network.drives(x, free.states)[0], array_module(x), len(x)
    slopes, v = [sigma.dsigma(u_n) for sigma, u_n in zip(network.activations, u)], list(free.states)
    ends = np.cumsum([s[0].size for s in v]).tolist()  # of the layers in a vector of all units
    rounds = min(rounds, ends[-1])
    if not comes_back(network):
        return np.zeros(N)

    def update(n, terms):
        v[n - 1] = slopes[n - 1] * total(terms) if terms else 0.0 * v[n - 1]

    def two_steps(q):
        v[:] = [part.reshape(s.shape) for part, s in zip(xp.split(q, ends[:-1], axis=1), free.states)]
        iterate(network, Phase(2), v, lambda n: network.deviation_terms(n, v, free.switches), update)
        return xp.concatenate([v_n.reshape(N, -1) for v_n in v], axis=1)

    q = xp.asarray(np.broadcast_to(np.random.default_rng(0).standard_normal(ends[-1]), (N, ends[-1])), dtype=v[0].dtype)
    Q, h = [q / xp.linalg.norm(q[0])], xp.zeros((N, rounds, rounds))  # Q = [q_0, q_1, ...], of all images
    for k in range(rounds):
        new = two_steps(Q[k])
        before = xp.sqrt((new * new).sum(1))
        for j, q in enumerate(Q):
            h[:, j, k] = c = (q * new).sum(1)
            new -= c[:, None] * q
        if k + 1 < rounds:
            size = xp.sqrt((new * new).sum(1))
            left = size > 1e-5 * before  # else all that comes is known already
            h[:, k + 1, k] = size * left
            Q.append(new * (left / xp.where(left, size, 1.0)).astype(new.dtype)[:, None])
    return np.sqrt(abs(np.linalg.eigvals(to_host(h))).max(1))


def comes_back(network):
    """Whether any layer hears something of a layer above, or of itself."""
    return any(gain for (i, _), gain in zip(network.wiring, network.gains) if i > 0)


def settled_radius(network: Network, x: Array, prepared: Callable = lambda network: network) -> float:
    """The mean spectral radius at the fixed points of x. prepared: the network on faster synapses (ep.engine.prepared)."""
    fast = prepared(network)
    return float(spectral_radius(fast, x, relax(fast, x, SETTLING)).mean())


def scale_hidden(network: Network, factor: float) -> None:
    """Multiply the hidden weights, in place: all but those from the input, for only these are in a loop.

    r is about in proportion to them, but for what `identities_alone` adds.
    """
    for synapse, (i, _) in zip(network.synapses, network.wiring):
        for name, w in synapse.parameters().items() if i > 0 else ():
            if name != "b":
                w *= factor


def identities_alone(network: Network) -> float:
    """r without weights, where no unit is at a bound: no scale of the weights makes it smaller there. sigma = clip(slope u, ...).

        slope 2 sqrt(gain) cos( pi / (k + 1) )      of k layers in a row that k - 1 identities join, one after the other
    """
    D = np.zeros((len(network.shapes) - 1,) * 2)  # Sigma D of one unit of each layer: an identity joins it to its own place
    slopes = [sigma.slope or 0.0 for sigma in network.activations]  # a smooth sigma has less than its largest: not known here
    for synapse, (i, j), gain in zip(network.synapses, network.wiring, network.gains):
        if type(synapse) is Identity and i > 0:
            D[j - 1, i - 1] += slopes[j - 1]
            D[i - 1, j - 1] += slopes[i - 1] * gain
    return float(abs(np.linalg.eigvals(D)).max())


def calibrate_radius(network: Network, x: Array, radius: float, prepared: Callable = lambda network: network) -> Network:
    """Scale the initial hidden weights, in place, until the mean radius over the images x is this one. Returns the network.

    Where no scale gives it, because units reach their bounds before, it is the largest radius below it that was found.
    An `Identity` has no weights, and is not scaled. Raises EPError, before any change, for a radius that is not between 0 and 1,
    for a network in which nothing comes back, and if the identities alone have a larger radius; and if every radius that was
    found is larger.
    """
    if not 0 < radius < 1:
        raise EPError(f"expected a spectral radius between 0 and 1, for with a larger one no network settles: got {radius:g}")
    if not comes_back(network):
        raise EPError("nothing comes back to any layer of this network, so its spectral radius is 0 whatever its weights: it "
                      "takes two hidden layers and a feedback gain above 0 (or no initial radius)")
    if (alone := identities_alone(network)) >= radius:
        raise EPError(f"expected a spectral radius above {alone:.2f}, that of the identities alone, which have no weights to "
                      f"scale: got {radius:g}. Use a sigma of smaller slope (the hard sigmoid has 1/2), fewer blocks a stage, or "
                      "a smaller feedback gain; or a larger radius, below 1")
    scale, low, high = 1.0, 0.0, math.inf  # scales that are known to be too small, and too large
    best: tuple[float, float] = 0.0, 0.0  # (the largest radius below, its scale)
    for _ in range(30):
        r = settled_radius(network, x, prepared)
        if abs(r - radius) < NEAR:
            return network
        best = max(best, (r, scale)) if best[0] < r < radius else best
        low, high = (scale, high) if r < radius else (low, scale)
        better = math.sqrt(low * high) if 0 < low and high < math.inf else scale * min(max(radius / max(r, 1e-9), 0.25), 4)
        scale_hidden(network, better / scale)
        scale = better
    if not best[0]:
        raise EPError(f"no scale of the hidden weights gives this network a spectral radius of {radius:g} (the last had "
                      f"{r:.2f}): try another radius, or a smaller feedback gain")
    scale_hidden(network, best[1] / scale)
    warnings.warn(f"no scale of the hidden weights gives a spectral radius of {radius:g}: it is {best[0]:.2f}", stacklevel=2)
    return network


def best_omega(r: float) -> float:
    """The over-relaxation that settles fastest, 2 / (1 + sqrt(1 - r^2)) (Young 1954). Raises EPError unless 0 <= r < 1."""
    if not 0 <= (r := real(r, "the spectral radius (of several images take the mean)")) < 1:
        raise EPError(f"a network whose spectral radius is {r:.3g} does not settle, whatever the over-relaxation: make its "
                      "hidden weights smaller (r is about in proportion to them), or its feedback gain")
    return 2 / (1 + math.sqrt(1 - r * r))
