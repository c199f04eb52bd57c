"""What a phase is: how many steps, in which order the layers move, and when it may end. Data, no dynamics.

A *step* updates every layer once. A *schedule* says in which groups: the layers of a group move together, from the same old
values, and the next group already sees the new ones.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .checks import real, whole
from .errors import EPError


@dataclass(frozen=True)
class Phase:
    """One relaxation: how many steps, in which order the layers are updated, and when it may stop earlier.

    steps        at most so many, at least 1
    schedule     a name in SCHEDULES
    tolerance    an image ends once its largest change in a step is at most this (those of a batch half after half: others_go_on
                 in dynamics.py); 0: never
    check_every  compute the residual every so many steps, and at the last. Default: at every step if there is a tolerance,
                 else only at the last
    omega        over-relaxation, s_n <- clip( s_n + omega (slope u_n - s_n) ), for sigma = clip(slope u, low, high). 1: none.
                 0 < omega < 2; in free steps the energy never rises (docs/theory/convergence.md), unless the units of a layer
                 act on each other. Not with the synchronous schedule, nor above 1 with lateral or nonlinear synapses. An
                 asymmetric network has no energy, and above 1 may not settle
    Raises EPError for numbers that make no sense, and for an unknown schedule.
    """

    steps: int
    schedule: str = "synchronous"
    tolerance: float = 0.0
    check_every: int | None = None
    omega: float = 1.0

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise EPError(f"unknown schedule '{self.schedule}': expected one of {', '.join(SCHEDULES)}")
        object.__setattr__(self, "steps", whole(self.steps, "steps", 1))
        object.__setattr__(self, "tolerance", real(self.tolerance, "tolerance", 0))
        object.__setattr__(self, "omega", real(self.omega, "omega", 0))
        if not 0 < self.omega < 2 or self.omega != 1 and self.schedule == "synchronous":
            raise EPError(f"omega: over-relaxation takes a number between 0 and 2, and a schedule other than synchronous, where "
                          f"the energy never rises: got {self.omega:g} and {self.schedule}; use omega = 1, or another schedule")
        if self.check_every is not None:
            object.__setattr__(self, "check_every", whole(self.check_every, "check_every", 1))

    @classmethod
    def of(cls, phase: "Phase | int") -> "Phase":
        """`phase` itself, or a phase of so many steps."""
        return phase if isinstance(phase, Phase) else cls(phase)

    def checks(self, t: int) -> bool:
        """Is the residual computed at step t = 1, 2, ..., before the last?"""
        every = self.check_every or (1 if self.tolerance > 0 else self.steps)
        return t % every == 0


@dataclass(frozen=True)
class Phases:
    """The free phase and the nudged phases of one gradient: T = free.steps, K = nudged.steps.

    free, nudged  a `Phase` each, or a number of steps
    deviations    False: the nudged phases relax the nudged states, by (1), with the switches of those states, for rule (4), as
                  the paper's code does. True: they relax the deviation from s*, by (11), at the switches of s*, for (12). That
                  is a little faster, and loses no digits
    """

    free: Phase
    nudged: Phase
    deviations: bool = False

    if TYPE_CHECKING:  # what a type checker cannot see in __post_init__: numbers become phases
        def __init__(self, free: Phase | int, nudged: Phase | int, deviations: bool = False) -> None: ...

    def __post_init__(self):
        object.__setattr__(self, "free", Phase.of(self.free))
        object.__setattr__(self, "nudged", Phase.of(self.nudged))


# --- schedules: network -> [group of layers, ...] -------------------------------------------------------------------------


def synchronous(network):
    """All layers at once, from the old values."""
    return [range(1, len(network.shapes))]


def checkerboard(network):
    """Layers that a synapse joins never move together: the wiring is a graph, and its layers are coloured.

    In a chain these are the odd layers, then the even ones. Such a free step never raises E. (The units of a layer with a lateral
    synapse move together all the same, so there E may rise: docs/theory/convergence.md says when not.)
    """
    colour = {}
    for n in _by_depth(network):
        neighbours = {colour.get(i + j - n) for i, j in network.wiring if n in (i, j)}
        colour[n] = next(c for c in range(len(network.shapes)) if c not in neighbours)
    return [[n for n in colour if colour[n] == c] for c in range(max(colour.values()) + 1)]


def up(network):
    """One layer after the other, from the input to the last: a *sweep*. From zero, the first sweep is the feed-forward pass."""
    return [[n for n in _by_depth(network) if network.depths[n] == depth] for depth in sorted(set(network.depths[1:]))]


def down(network):
    """A sweep from the last layer to the first: one of them carries a nudge all the way down."""
    return up(network)[::-1]


def _by_depth(network):
    return sorted(range(1, len(network.shapes)), key=lambda n: network.depths[n])


SCHEDULES = {schedule.__name__: schedule for schedule in (synchronous, checkerboard, up, down)}
