"""The dynamics: how a network relaxes to its fixed point, free or nudged.

    s_n <- sigma( u_n - [n = L] beta dC/ds_L )          fixed point: s^beta, and s* = s^0                    (1)

u_n is the drive of layer n (network.py), and [n = L] is 1 for the last layer and 0 for the others. `iterate` is the loop over
steps and layers, the only one in this package. `relax` and `deviate` tell it what drives a layer and how it moves; so do rbp.py
and radius.py.

A nudged phase relaxes the states s^beta themselves (`relax`), or their difference from s* (`deviate`, equation (11)). Layer n
answers a nudge by about beta gamma^(L - n). Where feedback is weak, subtracting two float32 states leaves little of that but
rounding, and the difference that is relaxed itself has all its digits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np

from .backend import Array, Gradient, States, array_module, to_host
from .checks import arrayed, real
from .errors import EPError
from .network import Network
from .nudging import Nudging
from .phase import SCHEDULES as SCHEDULES, Phase as Phase, Phases as Phases  # for who imports this file

LARGEST_FACTOR = 1e12  # w_n in (11); beyond it sigma is a straight line for every change that it sees
FEW = 4  # images that are not parted: their arrays are small enough

# --- relaxing ---------------------------------------------------------------------------------------------------------


@dataclass
class Relaxation:
    """Where a relaxation ended.

    states    [s_1 ... s_L]; of a nudged phase by `deviate`, the deviations [delta_1 ... delta_L]
    switches  of every synapse at these states; of deviations, those of s*
    steps     how many were made; with a tolerance, for the image that took the most
    before    the states before the last step
    tolerance of the phase
    u         [u_1 ... u_L], the arguments of sigma that gave these states: s_n = sigma(u_n); [] of deviations
    earlier   [(step, change)] of the steps before the last at which the change was computed
    mean_steps  over the images
    """

    states: States
    switches: list
    steps: int
    before: list
    tolerance: float = 0.0
    u: States = field(default_factory=list)
    earlier: list[tuple[int, Any]] = field(default_factory=list)
    mean_steps: float = 0.0

    def __post_init__(self):
        self.mean_steps = self.mean_steps or float(self.steps)

    @cached_property
    def changes(self) -> Array:
        """Largest |s_new - s_old| over layers and units in the last step of each image, (N,), on the device."""
        return largest_changes(self.states, self.before)

    @cached_property
    def change(self) -> Any:
        """The largest of them: a number on the device."""
        return self.changes.max()

    @property
    def residual(self) -> float:
        """The same as a Python number: to read it, the host waits for a GPU."""
        return float(self.change)

    @property
    def history(self) -> list[tuple[int, float]]:
        """[(step, residual)] of every step at which it was computed, and of the last."""
        return [*((t, float(change)) for t, change in self.earlier), (self.steps, self.residual)]

    @property
    def settled(self) -> Array:
        """(N,), on the device: for which images the last change is at most the tolerance. Where there is none, that is 0."""
        return self.changes <= self.tolerance

    @property
    def converged(self) -> bool:
        """Whether all have settled: residual <= tolerance."""
        return self.residual <= self.tolerance


def relax(network: Network, x: Array, phase: Phase | int, y: Array | None = None, beta: complex = 0.0, *,
          start: States | None = None, inputs: dict | None = None, trajectory: list | None = None,
          disturb: Callable[[int, Array], Array] | None = None) -> Relaxation:
    """Iterate (1) from `start` (default: all states zero) as `phase` says; returns a `Relaxation`.

    x (N, *input shape). phase: a `Phase`, or a number of steps.
    y (N,) labels or (N, classes) targets, needed if beta != 0. beta: nudging strength, real or complex.
    inputs: network.input_drives(x), if they are known already: they are the same in every phase.
    trajectory: a list that gets (states, u, switches) of the start, where there is no u, and of the end of every step.
    disturb: disturb(n, s) is what a device makes of the new state s (N, ...) of layer n (imperfections.py).
    Raises EPError for x, y or states that do not fit, and for complex beta in a network that is not holomorphic.
    """
    phase, (x, y, beta, start) = Phase.of(phase), checked(network, x, y, beta, start)
    omega, L = over_relaxation(network, phase), len(network.shapes) - 1
    inputs = network.input_drives(x) if inputs is None else inputs
    messages = Messages(network, x, beta, start, inputs)
    states, sigmas = messages.states, network.activations
    u: list[Any] = [None] * L

    def drive(n):
        terms = messages.terms(n)
        if n == L and beta != 0:
            terms.append((beta, network.cost.force(spread(states[-1], len(y)), y)))  # - beta dC/ds_L
        return over_relaxed(terms, omega, states[n - 1], sigmas[n - 1].slope)

    def update(n, terms):
        u[n - 1], s = sigmas[n - 1].respond(terms)  # s_n <- sigma(u_n)
        messages.move(n, s if disturb is None else disturb(n, spread(s, len(x))))

    def remember():
        trajectory.append((for_each_image(states, len(x)), for_each_image(u, len(x)), messages.switches()))

    if trajectory is not None:
        remember()
    enough, after_step = (0.5, None) if trajectory is None else (1.0, remember)
    steps, before, earlier = iterate(network, phase, states, drive, update, enough, after_step)
    states, before, u = (for_each_image(arrays, len(x)) for arrays in (states, before, u))
    if omega != 1:
        u = [stretched(u_n, s, 1 / omega, sigma.slope) for u_n, s, sigma in zip(u, states, sigmas)]
    together = Relaxation(states, messages.switches(), steps, before, phase.tolerance, u, earlier)

    def go_on(rest, phase):
        return relax(network, x[rest], phase, None if y is None else y[rest], beta, start=cut(states, rest),
                     inputs={k: tuple(cut(message, rest)) for k, message in inputs.items()}, disturb=disturb)

    return others_go_on(together, phase, go_on)


def deviate(network: Network, y: Array, beta: complex, free: Relaxation, phase: Phase | int, transposed: bool = True,
            start: States | None = None) -> Relaxation:
    """The nudged phase at `beta` as deviations from `free`, the `Relaxation` of the free phase. Returns a `Relaxation`.

    First at gain 1, where all factors w_n are 1. At the switches of s* the drives are linear in the states; call their
    Jacobian D. Subtracting (1) at s* = sigma(u*) from (1) gives the dynamics of delta = s - s*:

        delta_n <- sigma( u_n* + d_n ) - sigma( u_n* ),     d = D delta - [n = L] beta dC/ds( s_L* + delta_L )

    At another gain the deviation is kept multiplied by the factor of its layer, delta_n = w_n (s_n - s_n*). It then has the same
    size in all layers, and D becomes its transpose, because w_i D_ij = w_j D_ji:

        delta_n <- w_n [ sigma( u_n* + d_n / w_n ) - sigma( u_n* ) ]                                                  (11)
        d       =  D^T delta - [n = L] beta dC/ds( s_L* + delta_L )

    This is the response of a symmetric network. Of an asymmetric one it is the response through the transposed Jacobian, which
    gives the exact gradient (vectorfield.py); transposed=False is its plain response, d_n = w_n sum_i D_ni delta_i / w_i.
    y: labels or targets, one per image. The phase starts at delta = 0, or at `start`, and the residual is that of delta.
    """
    phase, beta, y = Phase.of(phase), checked_beta(network, beta), network.targets(y, free.states[-1].dtype)
    if len(y) != len(free.states[-1]):
        raise EPError(f"expected one label or target per image of the free phase: got {len(y)} for {len(free.states[-1])}")
    start = start if start is None else started(network, start, free.states[-1])
    omega, sigmas, L = over_relaxation(network, phase), network.activations, len(free.states)
    factors = [min(max(w, 1 / LARGEST_FACTOR), LARGEST_FACTOR) for w in network.energy_factors]  # at gamma = 0: inf and 0
    u = free.u
    delta: list[Any] = [None] * L if start is None else list(start)  # None: still zero, and nothing comes from it
    if omega != 1:
        u = [stretched(u_n, s, omega, sigma.slope) for u_n, s, sigma in zip(u, free.states, sigmas)]

    def drive(n):
        terms = network.deviation_terms(n, delta, free.switches, transposed)
        if n == L:
            s_L = free.states[-1] if delta[-1] is None else free.states[-1] + delta[-1]
            terms.append((1.0, beta * network.cost.force(s_L, y)))  # - beta dC/ds( s_L* + delta_L )
        return over_relaxed(terms, omega, delta[n - 1], sigmas[n - 1].slope)

    def update(n, terms):
        if terms:
            delta[n - 1] = sigmas[n - 1].deviate(u[n - 1], free.states[n - 1], terms, factors[n - 1])

    steps, before, earlier = iterate(network, phase, delta, drive, update, enough=0.5)
    zero = 0j if isinstance(beta, complex) else 0.0
    delta, before = ([zero * s if d is None else d for s, d in zip(free.states, deltas)] for deltas in (delta, before))
    together = Relaxation(delta, free.switches, steps, before, phase.tolerance, earlier=earlier)

    def go_on(rest, phase):
        theirs = Relaxation(cut(free.states, rest), cut(free.switches, rest), free.steps, [], u=cut(free.u, rest))
        return deviate(network, y[rest], beta, theirs, phase, transposed, cut(delta, rest))

    return others_go_on(together, phase, go_on)


def iterate(network, phase, states, drive, update, enough=1.0, after_step=None):
    """The loop over steps and layers: as many steps as `phase` says, or until `enough` of the images have settled.

    update(n, drive(n)) has to put the new layer n into `states` (None: zero). The layers of a group see each other's old states.
    enough: a share, below 1 for who lets `others_go_on`; and all where there are FEW.
    Returns (steps, the states before the last one, [(step, change)] of earlier steps), as a `Relaxation` has them.
    """
    groups, earlier = SCHEDULES[phase.schedule](network), []
    for t in range(1, phase.steps + 1):
        before = list(states)
        for group in groups:
            drives = {n: drive(n) for n in group}
            for n, terms in drives.items():
                update(n, terms)
        if after_step:
            after_step()
        if t < phase.steps and phase.checks(t):
            changes = largest_changes(states, before)
            if phase.tolerance > 0:  # only here a GPU waits
                settled = to_host(changes <= phase.tolerance)
                if settled.all() or len(settled) > FEW and settled.mean() >= enough:
                    break
            earlier.append((t, changes.max()))
    return t, before, earlier


def others_go_on(together: Relaxation, phase: Phase, go_on: Callable) -> Relaxation:
    """The relaxation of all images, once half of them have settled: the half that still changes most goes on without the rest.

    So an image makes the steps that it needs, and few more, whoever is relaxed beside it.
    go_on(their numbers, the phase that is left) -> `Relaxation`.
    """
    N, left = len(together.changes), phase.steps - together.steps
    if phase.tolerance == 0 or N <= FEW or left == 0 or together.converged:
        return together
    rest = np.sort(to_host(together.changes).argsort(kind="stable")[N // 2:])
    later = go_on(rest, replace(phase, steps=left))
    before = [s.copy() for s in together.before]  # after one step they are the caller's `start`
    for all_of_it, new in ((together.states, later.states), (before, later.before), (together.u, later.u),
                           (together.switches, later.switches)):
        for a, b in zip(all_of_it, new):
            put(a, rest, b)
    return replace(together, before=before, steps=together.steps + later.steps,
                   mean_steps=together.steps + later.mean_steps * len(rest) / N,
                   earlier=[*together.earlier, (together.steps, together.change),
                            *((together.steps + t, change) for t, change in later.earlier)])


def put(a, images, b):
    """a[images] <- b, of arrays and of pairs of such; None is nothing."""
    if isinstance(a, tuple):
        for one, other in zip(a, b):
            put(one, images, other)
    elif a is not None:
        a[images] = b


class Messages:
    """What the synapses of a network say at the present states. A synapse sends a message up and, times its gain, one down.

    What a `Nonlinear` synapse says depends on both its ends, and is made anew for each layer that asks. Three rules save work for
    the others, and change no number:
        * A message up is kept until its sender moves.
        * A layer that is still zero sends nothing down.
        * A layer that nothing of the images has reached yet is the same for all of them. It is kept once, as (1, ...), and so
          are its messages up. (This also decides about the windows of max-pooling that tie there: equally for all images.)
    """

    def __init__(self, network, x, beta, start, inputs):
        self.network, self.x, self.sent, self.N = network, x, dict(inputs), len(x)
        given = network.init_state(x[:1] if network.bilinear else x) if start is None else start
        given = [once(s) for s in given] if network.bilinear else given
        self.states = [s + 0j for s in given] if isinstance(beta, complex) else given
        self.moved = [start is not None] * (1 + len(given))

    def up(self, k):
        """(drive, switches) of synapse k on its post layer."""
        if k not in self.sent:
            pre = self.states[self.network.wiring[k][0] - 1]
            self.sent[k] = self.network.synapses[k].drive_post(pre)
        return self.sent[k]

    def terms(self, n):
        """[(factor, message), ...]: what adds up to the drive u_n."""
        ups, downs = [], self.network.nonlinear_terms(n, [self.x, *self.states])
        for k, ((i, j), gain) in enumerate(zip(self.network.wiring, self.network.gains)):
            if not self.network.synapses[k].bilinear:
                continue
            if j == n:
                ups.append((1.0, self.up(k)[0]))
            if i == n and gain and self.moved[j]:
                post, images = self.states[j - 1], max(len(self.states[i - 1]), len(self.states[j - 1]))
                down = self.network.synapses[k].drive_pre(spread(post, images), spread(self.up(k)[1], images))
                downs.append((gain, down))
        return ups + downs or [(1.0, 0.0 * self.states[n - 1])]

    def move(self, n, s):
        """Layer n has the state s now."""
        self.states[n - 1], self.moved[n] = s, True
        for k, (i, _) in enumerate(self.network.wiring):
            if i == n:
                self.sent.pop(k, None)

    def switches(self):
        """Of every synapse at the present states."""
        return [spread(self.up(k)[1], self.N) if synapse.bilinear else None for k, synapse in enumerate(self.network.synapses)]


def once(s):
    """A state of N images as (1, ...), if it is the same for all of them (on a GPU, asking would mean waiting)."""
    if array_module(s) is np and len(s) > 1 and (s[0] == s[-1]).all() and (s == s[:1]).all():
        return s[:1]
    return s


def spread(a, N):
    """An array (1, ...) for N images; pairs of such, too. What is there for each image, or is None, stays as it is."""
    if isinstance(a, tuple):
        return tuple(spread(part, N) for part in a)
    if a is None or len(a) == N:
        return a
    xp = array_module(a)
    return xp.ascontiguousarray(xp.broadcast_to(a, (N, *a.shape[1:])))


def for_each_image(arrays, N):
    return [spread(a, N) for a in arrays]


def largest_changes(states, before):
    """Largest |s_new - s_old| over layers and units, of each image, on the device; None is zero."""
    xp = array_module(next(s for s in states if s is not None))
    changes = [abs(s if old is None else s - old) for s, old in zip(states, before) if s is not None]
    return reduce(xp.maximum, [change.max(tuple(range(1, change.ndim - 1))).max(1) for change in changes])


def residual(states: States, old: States) -> float:
    """The largest change of all, a Python number."""
    return float(largest_changes(states, old).max())


# --- over-relaxation ------------------------------------------------------------------------------------------------------


def over_relaxation(network, phase):
    """omega of the phase, after a look at whether this network can be over-relaxed."""
    smooth = [sigma.name for sigma in network.activations if sigma.slope is None]
    if phase.omega != 1 and smooth:
        raise EPError(f"over-relaxation (omega = {phase.omega:g}) is for sigma = clip(slope u, low, high): the smooth "
                      f"{smooth[0]} would leave its range; use omega = 1")
    if phase.omega > 1 and (not network.bilinear or any(i == j for i, j in network.wiring)):
        raise EPError(f"over-relaxation (omega = {phase.omega:g}) is for layers whose units do not act on each other: with a "
                      "lateral or nonlinear synapse use omega = 1, or less to damp the steps")
    return phase.omega


def over_relaxed(terms, omega, s, slope):
    """s <- clip( s + omega (slope u - s) ): as the argument of sigma, omega u + (1 - omega) s / slope.

    Deviations relax in the same way: d is to delta what u is to s.
    """
    if omega == 1 or not terms:
        return terms
    return [(omega * factor, a) for factor, a in terms] + ([((1 - omega) / slope, s)] if s is not None else [])


def stretched(u, s, factor, slope):
    """The argument whose distance from s / slope is `factor` times that of u; sigma of it is sigma(u) = s, too.

    Only units at a bound have such a distance. Over-relaxation has multiplied it by omega.
    """
    return s / slope + factor * (u - s / slope)


# --- the response to nudging ------------------------------------------------------------------------------------------------


def response(network: Network, y: Array, free: Relaxation, nudging: Nudging, phase: Phase | int,
             transposed: bool = True) -> tuple[States, list[Relaxation]]:
    """(mu, [`Relaxation` of each nudged phase]):  mu_n = - sum_k c_k delta_n^{beta_k}, the response of the layers to nudging.

    For small beta this is - w_n ds_n/dbeta, and the sum of all mu_t that backpropagation through time sends back. y: labels or
    targets.
    Where beta_k = 0 nobody pushes: delta stays 0, and there is nothing to relax.
    """
    mu: States = []
    phases = []
    for beta, c in zip(nudging.points, nudging.weights):
        if beta != 0:
            phases.append(nudged := deviate(network, y, beta, free, phase, transposed))
            mu = [m - c * d for m, d in zip(mu, nudged.states)] if mu else [-c * d for d in nudged.states]
    return [m.real for m in mu] if nudging.take_real else mu, phases


def cut(arrays, part):
    """Part of each of them, or of both of a pair; None stays None."""
    return [None if a is None else tuple(cut(a, part)) if isinstance(a, tuple) else a[part] for a in arrays]


# --- what both kinds of gradient return --------------------------------------------------------------------------------


@dataclass
class Estimate:
    """A gradient and how it was obtained: what every gradient of this package returns.

    gradient  {"1.W": dL/dW, ...}: batch mean, to be descended
    costs     (N,) C(s*, y) of each image; right: (N,) whether it is classified correctly at s*
    free      the `Relaxation` of the free phase; nudged: those of the nudged phases, in the order of the points (as deviations
              without those where beta_k = 0)
    """

    gradient: Gradient
    costs: Array
    right: Array
    free: Relaxation
    nudged: list[Relaxation] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """L = C(s*, y), batch mean."""
        return float(self.costs.sum()) / len(self.costs)

    @property
    def correct(self) -> int:
        """Number of right predictions at s*."""
        return int(self.right.sum())


def estimate(network, gradient, free, y, nudged=()):
    """The `Estimate` from gradients summed over the batch: divide by N, add what is known at s*."""
    return Estimate(gradient={name: gradient[name] / len(y) for name in network.parameters()},
                    costs=network.cost.value(free.states[-1], y), right=network.predict(free.states) == y.argmax(1),
                    free=free, nudged=list(nudged))


# --- what a caller passes ---------------------------------------------------------------------------------------------------


def checked(network, x, y, beta, start=None):
    """(x, y, beta, start): as `Network.examples` and `checked_beta` return them, and the states of `start` in the dtype of x.

    Raises EPError for arguments that do not fit.
    """
    beta = checked_beta(network, beta)
    if beta != 0 and y is None:
        raise EPError("nudging (beta != 0) needs the targets y, one per input")
    x, y = (network.inputs(x), None) if y is None else network.examples(x, y)
    return x, y, beta, start if start is None else started(network, start, x)


def started(network, start, x):
    """The states to start from, for as many images as x, and of its precision; EPError if they do not fit."""
    start, expected = [arrayed(s, "start") for s in start], [(len(x), *shape) for shape in network.shapes[1:]]
    if [s.shape for s in start] != expected:
        raise EPError(f"expected a start of states of the shapes {expected}: got {[s.shape for s in start]}")
    dtypes = [np.result_type(x.dtype, np.complex64) if s.dtype.kind == "c" else x.dtype for s in start]
    return [s.astype(dtype) if s.dtype != dtype else s for s, dtype in zip(start, dtypes)]


def checked_beta(network, beta):
    """beta as a Python number, so that float32 states stay float32; EPError if it is complex and the network not holomorphic."""
    if np.iscomplexobj(beta) and not network.holomorphic:
        raise EPError("complex nudging needs a holomorphic network: use a smooth activation (SHIFTED_SIGMOID, TANH) and average "
                      "(or no) pooling instead of clipping and max-pooling")
    return complex(beta) if np.iscomplexobj(beta) else real(beta, "the nudging strength beta")
