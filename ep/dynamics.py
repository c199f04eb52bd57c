"""The dynamics: how a network relaxes to its fixed point, free or nudged.

    s_n <- sigma( u_n - [n = L] beta dC/ds_L )          fixed point: s^beta, and s* = s^0                    (1)

u_n is the drive of layer n (network.py). One *step* updates every layer once, and a *schedule* says in which groups: a group
is updated together, from the same old values, and the next group already sees the new ones.

A nudged phase can be relaxed in two ways. `relax` computes the nudged states s^beta themselves, and what nudging did is then
a difference of two states. That difference becomes small where the feedback is weak: layer n answers a nudge of size beta by
about beta gamma^(L - n), and subtracting two float32 states leaves little more than rounding. `deviate` therefore relaxes the
difference itself, equation (11), which loses no digits however small it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .backend import Array, Gradient, States, array_module
from .checks import real, whole
from .errors import EPError
from .network import Network
from .nudging import Nudging

LARGEST_WEIGHT = 1e12  # w_n in (11); beyond it sigma is a straight line for every change that it sees

# --- what a phase is ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """One relaxation: how many steps, in which order the layers are updated, and when it may stop earlier.

    steps        at most so many, at least 1
    schedule     a name in SCHEDULES
    tolerance    end as soon as the residual is at most this; 0: never
    check_every  compute the residual every so many steps, and at the last (it makes a GPU wait). Default: at every step if
                 there is a tolerance, else only at the last
    Raises EPError for numbers that make no sense, and for an unknown schedule.
    """

    steps: int
    schedule: str = "synchronous"
    tolerance: float = 0.0
    check_every: int | None = None

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise EPError(f"unknown schedule '{self.schedule}': expected one of {', '.join(SCHEDULES)}")
        object.__setattr__(self, "steps", whole(self.steps, "steps", 1))
        object.__setattr__(self, "tolerance", real(self.tolerance, "tolerance", 0))
        if self.check_every is not None:
            object.__setattr__(self, "check_every", whole(self.check_every, "check_every", 1))

    @classmethod
    def of(cls, phase: "Phase | int") -> "Phase":
        """`phase` itself, or a phase of so many steps."""
        return phase if isinstance(phase, Phase) else cls(phase)

    def checks(self, t: int) -> bool:
        """Is the residual computed at step t = 1, 2, ...?"""
        every = self.check_every or (1 if self.tolerance > 0 else self.steps)
        return t == self.steps or t % every == 0


@dataclass(frozen=True)
class Conventions:
    """Where the difference of nudged states, equation (4), leaves a choice. The defaults give the gradient; PAPERS_CODE has what
    the published code of the paper chose, so that both can be compared number by number (docs/theory/paper.md).

    readout   where the softmax readout's own gradient dC/dtheta is taken. "free": at s*, which is exact. "nudged": at the nudged
              states, sum_k c_k beta_k dC/dtheta (s^{beta_k}); with symmetric nudging this is the mean over its two states
    rest      what the phase at beta = 0 does. "moves": K steps like the others, unless the free phase has converged. "stays": it
              is s_T, the state where the free phase stopped, converged or not
    products  of asymmetric networks, where dW and dB are products of two states. "free": one state is s*, the other nudged, at
              the switches of s*. "own": the same, but dB at the switches of the nudged states. "common": both states are nudged,
              at their own switches, and half of the product goes to W and half to B, for `kolen_pollack` adds them up
    Raises EPError for other words.
    """

    readout: str = "free"
    rest: str = "moves"
    products: str = "free"

    def __post_init__(self):
        choices = dict(readout=("free", "nudged"), rest=("moves", "stays"), products=("free", "own", "common"))
        for name, words in choices.items():
            if getattr(self, name) not in words:
                raise EPError(f"unknown convention {name}='{getattr(self, name)}': expected one of {', '.join(words)}")


PAPERS_CODE = Conventions(readout="nudged", rest="stays", products="own")
PAPERS_COMMON_UPDATE = replace(PAPERS_CODE, products="common")  # the published code with Kolen-Pollack


@dataclass(frozen=True)
class Phases:
    """The free phase and the nudged phases of one gradient: T = free.steps, K = nudged.steps.

    free, nudged  a `Phase` each, or a number of steps
    deviations    True: the nudged phases relax the deviation from s*, by (11), at the switches of s*. False: they relax the
                  nudged states, by (1), with the switches of those states, as the paper's code does
    conventions   `Conventions` of the difference of nudged states
    Raises EPError for other conventions than the default with deviations, for which there is nothing to choose.
    """

    free: Phase
    nudged: Phase
    deviations: bool = True
    conventions: Conventions = Conventions()

    if TYPE_CHECKING:  # what a type checker cannot see in __post_init__: numbers become phases
        def __init__(self, free: Phase | int, nudged: Phase | int, deviations: bool = True,
                     conventions: Conventions = Conventions()) -> None: ...

    def __post_init__(self):
        if self.deviations and self.conventions != Conventions():
            raise EPError("the conventions of the paper's code are about differences of nudged states: use deviations=False")
        object.__setattr__(self, "free", Phase.of(self.free))
        object.__setattr__(self, "nudged", Phase.of(self.nudged))


# --- schedules: network -> [group of layers, ...] -------------------------------------------------------------------------


def synchronous(network):
    """All layers at once, from the old values."""
    return [range(1, len(network.shapes))]


def checkerboard(network):
    """Layers that a synapse joins never move together: the wiring is a graph, and its layers are coloured.

    In a chain these are the odd layers, then the even ones. Such a step never raises E (without max-pooling).
    """
    colour = {}
    for n in _by_depth(network):
        neighbours = {colour.get(i + j - n) for i, j in network.wiring if n in (i, j)}
        colour[n] = next(c for c in range(len(network.shapes)) if c not in neighbours)
    return [[n for n in colour if colour[n] == c] for c in range(max(colour.values()) + 1)]


def up(network):
    """One layer after the other, from the input to the last: a *sweep*. From zero, the first sweep is the feed-forward pass."""
    return [[n for n in _by_depth(network) if network.depths[n] == depth] for depth in range(1, max(network.depths) + 1)]


def down(network):
    """A sweep from the last layer to the first: one of them carries a nudge all the way down."""
    return up(network)[::-1]


def _by_depth(network):
    return sorted(range(1, len(network.shapes)), key=lambda n: network.depths[n])


SCHEDULES = {schedule.__name__: schedule for schedule in (synchronous, checkerboard, up, down)}

# --- relaxing ---------------------------------------------------------------------------------------------------------


@dataclass
class Relaxation:
    """Where a relaxation ended.

    states    [s_1 ... s_L]; of a nudged phase by `deviate`, the deviations [delta_1 ... delta_L]
    switches  of every synapse at these states (the frozen ones, if they were frozen)
    steps     how many were made
    residual  largest |s_new - s_old| over layers, units and images of the last step
    converged residual <= tolerance; a relaxation of a fixed number of steps has the tolerance 0
    history   [(step, residual)] of every step at which the residual was computed
    u         [u_1 ... u_L], the arguments of sigma that gave these states: s_n = sigma(u_n)
    """

    states: States
    switches: list
    steps: float  # these two are means over the images where several relaxations are merged
    residual: float
    converged: float
    history: list[tuple[int, float]] = field(default_factory=list)
    u: States = field(default_factory=list)


def relax(network: Network, x: Array, phase: Phase | int, y: Array | None = None, beta: complex = 0.0, *,
          start: States | None = None, switches: list | None = None, inputs: dict | None = None) -> Relaxation:
    """Iterate (1) from `start` (default: all states zero) as `phase` says; returns a `Relaxation`.

    x (N, *input shape). phase: a `Phase`, or a number of steps.
    y (N,) labels or (N, classes) targets, needed if beta != 0. beta: nudging strength, real or complex.
    switches: keep these max-pooling switches throughout ("frozen"); default: those of the current states ("live"). Those
    of a synapse from the input never change, frozen or not.
    inputs: network.input_drives(x), if they are known already: they are the same in every phase.
    Raises EPError for x, y or states that do not fit, and for complex beta in a network that is not holomorphic.
    """
    phase, (x, y, beta, start) = Phase.of(phase), checked(network, x, y, beta, start)
    states = network.init_state(x) if start is None else start
    if isinstance(beta, complex):
        states = [s + 0j for s in states]
    inputs, frozen = inputs or network.input_drives(x), switches is not None
    switches = network.switches(inputs, states) if switches is None else list(switches)
    if len(switches) != len(network.synapses):
        raise EPError(f"expected the switches of {len(network.synapses)} synapses: got a list of {len(switches)}")
    groups, u = SCHEDULES[phase.schedule](network), [None] * len(states)

    def step():
        for group in groups:
            drives = network.drives_of(group, inputs, states, switches, frozen)
            if beta != 0 and len(states) in group:
                L = len(states)
                drives[L] = drives[L] + beta * network.cost.force(states[-1], y)  # force = -dC/ds_L
            for n in group:
                u[n - 1], states[n - 1] = drives[n], network.activation.sigma(drives[n])  # s_n <- sigma(u_n)

    result = iterate(step, states, phase)
    result.switches, result.u = switches if frozen else network.switches(inputs, states), u
    return result


def deviate(network: Network, y: Array, beta: complex, free: Relaxation, phase: Phase | int,
            transposed: bool = True) -> Relaxation:
    """The nudged phase at `beta` as deviations from `free`, the `Relaxation` of the free phase. Returns a `Relaxation`.

    At the switches of s* the drives are linear in the states, with the Jacobian D. Subtracting (1) at s* = sigma(u*) from (1)
    gives the dynamics of s - s*, and it is kept multiplied by the weight of its layer, delta_n = w_n (s_n - s_n*):

        delta_n <- w_n [ sigma( u_n* + d_n / w_n ) - sigma( u_n* ) ]                                                  (11)
        d       =  D^T delta - [n = L] beta dC/ds( s_L* + delta_L )

    D^T stands here because w_i D_ij = w_j D_ji: multiplying by the weights transposes D. So this is the response of a
    symmetric network, and of an asymmetric one it is the response through the transposed Jacobian, which gives the exact
    gradient (vectorfield.py). transposed=False is the plain response of an asymmetric network, through D.
    y: targets as `network.targets` returns them. The phase starts at delta = 0, and the residual is that of delta.
    """
    phase, beta, u, L = Phase.of(phase), nudge(network, beta), free.u, len(free.states)
    weights = [min(max(w, 1 / LARGEST_WEIGHT), LARGEST_WEIGHT) for w in network.weights]  # at gamma = 0 there are inf and 0
    delta = [0.0 * s if not isinstance(beta, complex) else 0j * s for s in free.states]
    groups = SCHEDULES[phase.schedule](network)

    def step():
        for group in groups:
            d = network.transposed_drives(delta, free.switches, group, transposed)
            if L in group:
                d[L] = d[L] + beta * network.cost.force(free.states[-1] + delta[-1], y)  # w_L = 1
            for n in group:
                w = weights[n - 1]
                delta[n - 1] = w * network.activation.difference(u[n - 1], d[n] / w)

    result = iterate(step, delta, phase)
    result.switches = free.switches
    return result


def iterate(step, states, phase):
    """Call step(), which replaces the arrays in the list `states`, as often as `phase` says."""
    history = []
    for t in range(1, phase.steps + 1):
        old = list(states)
        step()
        if phase.checks(t):
            history.append((t, residual(states, old)))
            if history[-1][1] <= phase.tolerance and phase.tolerance > 0:
                break
    steps, last = history[-1]
    return Relaxation(states, [], steps, last, last <= phase.tolerance, history)


def response(network: Network, y: Array, free: Relaxation, nudging: Nudging, phase: Phase | int,
             transposed: bool = True) -> tuple[States, list[Relaxation]]:
    """(mu, [`Relaxation` of each nudged phase]):  mu_n = - sum_k c_k delta_n^{beta_k}, the response of the layers to nudging.

    For small beta this is - w_n ds_n/dbeta, and equal to the mu that backpropagation through time sends back. y: targets.
    """
    mu: States = [0.0 * s for s in free.states]
    phases = []
    for beta, c in zip(nudging.points, nudging.weights):
        if beta == 0:
            continue  # nobody pushes: delta stays 0
        nudged = deviate(network, y, beta, free, phase, transposed)
        phases.append(nudged)
        mu = [mu_n - c * delta_n for mu_n, delta_n in zip(mu, nudged.states)]
    return [mu_n.real for mu_n in mu] if nudging.take_real else mu, phases


class Solver(NamedTuple):
    """The three functions that cost time; ep/fast has others with the same arguments and results."""

    relax: Callable[..., Relaxation] = relax
    response: Callable[..., tuple[States, list[Relaxation]]] = response
    products: Callable[..., Gradient] = lambda network, *arguments: network.parameter_adjoint(*arguments)


READABLE = Solver()

# --- what both kinds of gradient return --------------------------------------------------------------------------------


@dataclass
class Estimate:
    """A gradient and how it was obtained: what `eqprop_gradient` and `bptt_gradient` return.

    gradient  {"1.W": dL/dW, ...}: batch mean, to be descended
    loss      L = C(s*, y), batch mean; correct: number of right predictions at s*
    free      the `Relaxation` of the free phase; nudged: those of the nudged phases, in the order of the points
    known     numbers for the log that have been computed on the way (ep/fast/graph.py), else empty: "squares", {name: sum of the
              squares of its gradient}, and "stuck", as train.loop.stuck_shares returns it
    """

    gradient: Gradient
    loss: float
    correct: int
    free: Relaxation
    nudged: list[Relaxation] = field(default_factory=list)
    known: dict = field(default_factory=dict)


def estimate(network, gradient, free, y, nudged=()):
    """The `Estimate` from gradients summed over the batch: divide by N, add what is known at s*."""
    s, N = free.states[-1], len(y)
    return Estimate(
        gradient={name: gradient[name] / N for name in network.parameters()},
        loss=float(network.cost.value(s, y).sum()) / N,
        correct=int((network.predict(free.states) == y.argmax(1)).sum()),
        free=free, nudged=list(nudged))


def residual(states: States, old: States) -> float:
    """Largest |s_new - s_old| over layers, units and images, as a Python float."""
    xp = array_module(states[0])
    return float(xp.stack([abs(s - o).max() for s, o in zip(states, old)]).max())


def checked(network, x, y, beta, start=None):
    """(x, y, beta, start): as `Network.examples` and `nudge` return them, and the states of `start` in the dtype of x.

    Raises EPError for arguments that do not fit.
    """
    beta = nudge(network, beta)
    if beta != 0 and y is None:
        raise EPError("nudging (beta != 0) needs the targets y, one per input")
    x, y = (network.inputs(x), None) if y is None else network.examples(x, y)
    expected = [(len(x), *shape) for shape in network.shapes[1:]]
    if start is not None and [s.shape for s in start] != expected:
        raise EPError(f"expected a start of states of the shapes {expected}: got {[s.shape for s in start]}")
    if start is not None:
        start = [s.astype(x.dtype) if s.dtype != x.dtype and s.dtype.kind == x.dtype.kind else s for s in start]
    return x, y, beta, start


def nudge(network, beta):
    """beta as a Python number, so that float32 states stay float32; EPError if it is complex and the network not holomorphic."""
    if np.iscomplexobj(beta) and not network.holomorphic:
        raise EPError("complex nudging needs a holomorphic network: use sigmoid or tanh and average (or no) pooling "
                      "instead of clipping and max-pooling")
    return complex(beta) if np.iscomplexobj(beta) else real(beta, "the nudging strength beta")
