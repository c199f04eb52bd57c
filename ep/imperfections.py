"""Imperfections: what a network that is built of circuits, oscillators or magnets does to rule (4), as data.

Such a network relaxes by itself, and an instrument reads its states. These things then differ from the equations:

    W_k    = rounded(W) + drift rms(W) n            weights of phase k: 0 is the free phase, 1, 2, ... are the nudged ones
    W'_k   = W_k (1 + mismatch n)                   on the way down, where (1) has W_k again
    s_n    <- rounded( clip( sigma(u_n) + update_noise n ) )        each update of a layer
    s_read = s + read_noise n / sqrt(R)             what (4) is computed from: the noise that the mean of R readings has

n stands for standard normal numbers, others at each place, and rms for the root mean square. The *device* is the network that
relaxes. The rule multiplies two states that were read, as if both ways were the same. The input is known, and is not read.

Noise is drawn from default_rng([seed, kind, phase, image, *place]), by each image for itself: it depends neither on threads nor
on which images are relaxed together. Drift and mismatch are the same for all images, and mismatch for all phases and places. A
CUDA graph must not record this: it would repeat the same numbers for ever.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .backend import Array, array_module
from .checks import instance, real, whole, wholes
from .dynamics import Estimate, Relaxation, checked_beta, relax
from .eqprop import check_energy, eqprop_from_states
from .errors import EPError
from .network import Network
from .nudging import Nudging
from .phase import Phases
from .vectorfield import Asymmetric

MISMATCH, DRIFT, UPDATE, READ = range(4)  # kinds of random numbers


@dataclass(frozen=True)
class Imperfections:
    """What is imperfect about a device; by default nothing. Noise of states has their unit.

    read_noise    standard deviation of one reading of a state; readings: R of them are averaged
    update_noise  standard deviation of what is added to each new state of a layer, which is then clipped to the activation's
                  bounds, if it is real
    state_bits    each new state is rounded to one of 2^bits levels from bound to bound; 0: not
    weight_bits   weights, but no biases, are rounded to 2^bits levels from -r to r, where r is weight_range times the root mean
                  square of their array; 0: not
    mismatch      relative difference of the way down from the way up, one number a weight, always the same for a seed
    drift         of every weight, drawn anew for each phase; relative to the root mean square of its array
    seed          of the device and all noise; place: numbers that say where in a training, such as (epoch, step); first: the
                  number of the first image of the batch
    Raises EPError for numbers that make no sense.
    """

    read_noise: float = 0.0
    readings: int = 1
    update_noise: float = 0.0
    state_bits: int = 0
    weight_bits: int = 0
    weight_range: float = 3.0
    mismatch: float = 0.0
    drift: float = 0.0
    seed: int = 0
    place: tuple[int, ...] = ()
    first: int = 0

    def __post_init__(self):
        for name in ("read_noise", "update_noise", "weight_range", "mismatch", "drift"):
            object.__setattr__(self, name, real(getattr(self, name), name, 0))
        for name, least in dict(readings=1, state_bits=0, weight_bits=0, seed=0, first=0).items():
            object.__setattr__(self, name, whole(getattr(self, name), name, least))
        object.__setattr__(self, "place", tuple(wholes(self.place, "place")))

    def coarse(self, network: Network) -> Network:
        """The network with the weights that the device can hold; the readout of rule (4) uses these, too."""
        def held(W):
            r = self.weight_range * rms(W)
            return rounded(W.clip(-r, r), -r, r, self.weight_bits)

        return with_weights(network, held) if self.weight_bits else network

    def device(self, network: Network, phase: int = 0) -> Network:
        """The network that relaxes in this phase: drift, and then mismatch. Raises EPError for mismatch of an asymmetric one."""
        if self.drift:
            rng = self.rng(DRIFT, phase, 0)
            network = with_weights(network, lambda W: W + self.drift * rms(W) * normal(rng, W))
        device = copy.copy(network)
        device.synapses = list(network.synapses)
        for k, (synapse, (i, _)) in enumerate(zip(network.synapses, network.wiring)):
            if self.mismatch and i > 0 and synapse.parameters():
                if not synapse.has_phi or not synapse.bilinear or not hasattr(synapse, "W"):
                    raise EPError("mismatch is for synapses with the same weights W on both ways, up and down: synapse "
                                  f"{k + 1} is a {type(synapse).__name__}")
                n = normal(np.random.default_rng([self.seed, MISMATCH, k]), synapse.W)
                device.synapses[k] = Asymmetric(synapse, synapse.W * (1 + self.mismatch * n))
        return device

    def disturbance(self, network: Network, phase: int, images: int) -> Callable[[int, Array], Array] | None:
        """`disturb` of `relax` for this phase; None where updates are perfect."""
        noise, bounds = self.noise(UPDATE, phase, images), [sigma.bounds for sigma in network.activations]

        def disturb(n, s):
            low, high = bounds[n - 1]
            if self.update_noise:
                s = s + self.update_noise * noise(s)
                s = s if s.dtype.kind == "c" else s.clip(low, high)
            return rounded(s, low, high, self.state_bits)

        return disturb if self.update_noise or self.state_bits else None

    def read(self, relaxation: Relaxation, phase: int = 0) -> Relaxation:
        """The relaxation, with its states as the instrument reads them. Its switches stay those of the device: where the two ways
        differ, hand on the `states` alone."""
        states, sd = relaxation.states, self.read_noise / math.sqrt(self.readings)
        if sd:
            noise = self.noise(READ, phase, len(states[0]))
            states = [s + sd * noise(s) for s in states]
        return replace(relaxation, states=states)

    def noise(self, kind, phase, images):
        """noise(a): standard normal numbers like a (images, ...), next time others; each image has a generator of its own."""
        rngs = [self.rng(kind, phase, self.first + image) for image in range(images)]
        return lambda a: array_module(a).stack([normal(rng, one) for rng, one in zip(rngs, a)])

    def rng(self, kind, phase, image):
        return np.random.default_rng([self.seed, kind, phase, image, *self.place])


def imperfect_gradient(network: Network, x: Array, y: Array, phases: Phases, *, nudging: Nudging, imperfections: Imperfections,
                       prepared: Callable[[Network], Network] = lambda network: network) -> Estimate:
    """`eqprop_gradient` by states, of a device that has imperfections; returns an `Estimate`, whose loss is that of what is read.

    prepared: such as ep.engine.prepared, for the devices that are made here of `network`.
    Raises EPError for deviations, for a tolerance beside noise in the updates, and where `eqprop_gradient` does by states.
    """
    if instance(phases, Phases, "phases").deviations:
        raise EPError("imperfections are those of states, which a device has and an instrument reads; deviations are the exact "
                      "reference: use Phases(..., deviations=False)")
    instance(imperfections, Imperfections, "imperfections")
    if imperfections.update_noise and (phases.free.tolerance or phases.nudged.tolerance):
        raise EPError("states with noise in every update never settle: use phases without a tolerance")
    for beta in instance(nudging, Nudging, "nudging").points:
        checked_beta(network, beta)
    check_energy(network, transposed=False)
    rule, (x, y) = imperfections.coarse(network), network.examples(x, y)
    same = None if imperfections.drift else prepared(imperfections.device(rule))  # in all phases

    def settled(k, phase, *nudge, start=None):
        device = same or prepared(imperfections.device(rule, k))
        ended = relax(device, x, phase, *nudge, start=start, disturb=imperfections.disturbance(rule, k, len(x)))
        of_rule = [sw[0] if type(theirs) is Asymmetric and own.has_phi else sw
                   for sw, theirs, own in zip(ended.switches, device.synapses, rule.synapses)]
        return replace(ended, switches=of_rule)  # of a way down that differs the rule knows nothing

    free, tolerance = settled(0, phases.free), phases.free.tolerance
    nudged = [free if beta == 0 and tolerance > 0 and free.converged else
              settled(k, phases.nudged, y, beta, start=free.states) for k, beta in enumerate(nudging.points, start=1)]
    read, *reads = [imperfections.read(phase, k) for k, phase in enumerate([free, *nudged])]
    estimate = eqprop_from_states(prepared(rule), x, y, read, dict(zip(nudging.points, reads)), nudging)
    return replace(estimate, free=free, nudged=nudged)


def with_weights(network, change):
    """A copy of the network with the weights change(W) in the place of W; biases stay."""
    other = copy.deepcopy(network)
    other.set_parameters({name: w if name.endswith(".b") else change(w) for name, w in network.parameters().items()})
    return other


def rms(W):
    return float(abs(W * W).mean()) ** 0.5


def rounded(a, low, high, bits):
    """The nearest of 2^bits levels from low to high, both included; 0 bits: a itself."""
    if not bits or low == high:
        return a
    step = (high - low) / (2**bits - 1)
    return low + step * array_module(a).rint((a - low) / step)


def normal(rng, like):
    """Standard normal numbers of the shape, type and place of an array; both parts of complex ones."""
    dtype = like.real.dtype
    n = rng.standard_normal(like.shape, dtype)
    return array_module(like).asarray(n + 1j * rng.standard_normal(like.shape, dtype) if like.dtype.kind == "c" else n)
