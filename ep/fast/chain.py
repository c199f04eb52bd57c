"""The buffers of a relaxation: states, drives, and the synapses between them. They live on from one training step to the next.

    layout      states are (H, W, N, C) inside: a layer's row is one run of W*N*C numbers
    padding     each state lives inside the zero border that its convolution needs
    switches    three booleans per window (bottom row? right in the top row? right in the bottom row?), refreshed only
                where the state below has changed
    zeros       a drive from a layer that is still zero is not computed: the first sweep up is the feed-forward pass
    ties        from zero, a layer that nothing of the images has reached is the same for all of them, and constant but for
                its border. Its windows tie, and rounding would choose the winners: see `drive_post`
"""

import threading

import numpy as np

from ..activations import HARD_SIGMOID
from .plan import plain
from .pooling import inside, outside
from .synapses import FastConv, FastDense, first
from .winograd import Scratch

BLOCK = 1 << 15  # numbers of a block that is worked on while it is in the cache
KEPT = 2  # chains that a thread keeps: for whole chunks, and for the rest of a batch
LOCAL = threading.local()


def chain_of(kernels, N):
    """This thread's buffers for N images of such a network."""
    network, kept = kernels.network, LOCAL.__dict__.setdefault("chains", {})
    dtype = network.synapses[0].b.dtype
    ways = tuple(pair and (pair[0].way_up, pair[1].way_down, pair[0] is pair[1]) for pair in kernels.pairs)
    pools = tuple((plain(s)[0].W.shape, getattr(s, "pool", None) and s.pool.name) for s in network.synapses)
    ends = tuple(network.shapes), getattr(network.synapses[0], "padding", None), getattr(network.synapses[0], "stride", None)
    key = N, dtype, ways, pools, ends
    chain = kept.pop(key, None) or Chain(kernels, N, dtype)
    kept[key] = chain  # the last in the dictionary is the last that was used
    for old in list(kept)[:-KEPT]:
        del kept[old]
    return chain


class Chain:
    """synapses[k] joins s_{k+1} and s_{k+2}; `first` leads from the input to s_1."""

    def __init__(self, kernels, N, dtype):
        network, self.N, self.responses, self.held = kernels.network, N, {}, []
        scratch = Scratch(dtype)
        self.first = first(network.synapses[0], N, dtype)
        self.synapses = [(FastConv if pair else FastDense)(synapse, pair, N, scratch)
                         for synapse, pair in zip(network.synapses[1:], kernels.pairs)]
        self.drives = [self.first.drive, *(synapse.drive for synapse in self.synapses)]
        self.states = [*(synapse.pre for synapse in self.synapses), np.zeros_like(self.drives[-1])]

    def take(self, kernels):
        """The present weights."""
        self.network = kernels.network
        for synapse, *weights in zip(self.synapses, self.network.synapses[1:], kernels.pairs, self.network.gains[1:]):
            synapse.start(*weights)

    def load(self, states, switches):
        """Continue from states and switches as a `Relaxation` has them. switches None: those of the states."""
        for s, s_0 in zip(self.states, states, strict=True):
            s[...] = inside(s_0)
        self.set_switches(switches)
        self.zero, self.reached = [False] * (len(states) + 1), [True] + [not constant(s) for s in states]
        self.fresh = [False] * len(self.synapses)

    def set_switches(self, switches):
        for synapse, sw in zip(self.synapses, (switches or [])[1:]):
            synapse.set_switches(sw)

    def clear(self):
        """All states zero, or rather: what they hold is not looked at, but for the last one's, by the cost."""
        self.states[-1][...] = 0
        L = len(self.states)
        self.zero, self.reached, self.fresh = [False] + [True] * L, [True] + [False] * L, [False] * len(self.synapses)

    def new_u(self):
        """Arrays of their own for the u of this relaxation: its result keeps them."""
        self.u = [np.empty_like(drive) for drive in self.drives]

    def hold(self, states, switches, u=()):
        """Remember that the buffers hold these arrays, as a `Relaxation` has them."""
        self.held = [*states, *switches, *u]

    def holds(self, states, switches, u=()):
        wanted = [*states, *switches, *u]
        return len(self.held) >= len(wanted) and all(a is b for a, b in zip(wanted, self.held))

    # --- one step ---------------------------------------------------------------------------------------------------------

    def step(self, group, y, beta, frozen, check):
        """Equation (1) for the layers in `group`; returns the largest |s_new - s_old| of their parts if `check`."""
        reached = {n: self.will_be_reached(n, beta) for n in group}
        parts = {n: self.drive(n, y, beta, frozen, check) for n in group}
        if len(group) > 1:  # all drives from the old states, then the new states
            parts = {n: list(part) for n, part in parts.items()}
        changes = [self.update(n, *part, check) for n in group for part in parts[n]]
        for n in group:
            self.zero[n], self.reached[n] = False, reached[n]
            if n < len(self.states):
                self.fresh[n - 1] = False
        return changes

    def will_be_reached(self, n, beta):
        """Whether anything of the images, or of their targets, is in layer n after this step."""
        L = len(self.states)
        return self.reached[n] or self.reached[n - 1] or (self.reached[n + 1] if n < L else beta != 0)

    def drive(self, n, y, beta, frozen, check):
        """Yields (rows, u_n of these rows). A step that is not checked is not the last, and its u need not be kept in self.u."""
        L, u, up = len(self.states), self.u[n - 1], self.first.drive if n == 1 else self.drive_post(n - 2, frozen)
        if n < L and not self.zero[n + 1]:
            for rows, down in self.drive_pre(n - 1, frozen):
                yield rows, np.add(up[rows], down, out=u[rows])
            return
        nudge = beta * inside(self.network.cost.force(outside(self.states[-1]), y)) if n == L and beta != 0 else None
        for rows in blocks(u):
            if nudge is not None:
                yield rows, np.add(up[rows], nudge[rows], out=u[rows])
            elif check:
                u[rows] = up[rows]
                yield rows, u[rows]
            else:
                yield rows, up[rows]

    def update(self, n, rows, u, check):
        """s_n <- sigma(u_n) in these rows; returns the largest change if `check`."""
        s, new, change = self.states[n - 1][rows], self.squash(u), None
        if check:
            moved = new if self.zero[n] else new - s
            change = max(float(moved.max()), -float(moved.min()))
        s[...] = new
        return change

    def squash(self, u):
        """sigma(u), bit for bit, without a pass over memory that can be spared."""
        activation = self.network.activation
        if activation == HARD_SIGMOID:
            half = 0.5 * u
            return np.clip(half, 0.0, 1.0, out=half)
        return activation.sigma(u)

    def drive_post(self, k, frozen):
        """The drive of synapse k on its post layer; computed anew only if its pre layer has changed.

        Where nothing of the images has reached the pre layer, equal corners of a window have to stay equal, so that the first
        wins as in ops.max_pool: there the readable synapse computes it, for one image.
        """
        synapse = self.synapses[k]
        if not self.fresh[k]:
            if self.zero[k + 1]:
                synapse.drive_of_zero(frozen)
            elif not frozen and not self.reached[k + 1]:
                self.drive_post_of_one(k)
            else:
                synapse.drive_post(frozen)
            self.fresh[k] = True
        return synapse.drive

    def drive_post_of_one(self, k):
        drive, switches = self.network.synapses[k + 1].drive_post(outside(self.synapses[k].pre)[:1].copy())
        self.synapses[k].drive[...] = inside(drive)
        self.synapses[k].set_switches(switches)

    def drive_pre(self, k, frozen):
        if not frozen:
            self.drive_post(k, frozen)  # for the switches
        return self.synapses[k].drive_pre(self.states[k + 1])

    # --- the result ---------------------------------------------------------------------------------------------------------

    def switches(self, frozen):
        """As `Relaxation` has them: of the present states, unless frozen."""
        if not frozen:
            for k in range(len(self.synapses)):
                self.drive_post(k, frozen)
        return [self.first.switches, *(synapse.switches() for synapse in self.synapses)]


def blocks(u):
    """Slices of rows of u that fit into the cache together with what is computed from them; vectors whole."""
    if u.ndim < 4:
        return [slice(None)]
    rows = max(1, BLOCK // max(1, u[0].size))
    return [slice(i, i + rows) for i in range(0, len(u), rows)]


def constant(s):
    """Whether a layer (N, H, W, C) is one number per channel: windows above it tie."""
    return s.ndim == 4 and bool((s == s[:1, :1, :1]).all())
