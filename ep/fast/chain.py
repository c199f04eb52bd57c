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
from .plan import dtype_of, plain
from .pooling import inside, outside
from .synapses import FastIdentity, between, first
from .winograd import Scratch

BLOCK = 1 << 15  # numbers of a block that is worked on while it is in the cache
KEPT = 2  # chains that a thread keeps: for whole chunks, and for the rest of a batch
LOCAL = threading.local()


def chain_of(kernels, N):
    """This thread's buffers for N images of such a network."""
    network, kept = kernels.network, LOCAL.__dict__.setdefault("chains", {})
    dtype = dtype_of(network)
    ways = tuple(pair and (pair[0].way_up, pair[1].way_down, pair[0] is pair[1]) for pair in kernels.pairs)
    key = N, dtype, ways, tuple(map(described, network.synapses)), tuple(network.wiring)
    chain = kept.pop(key, None) or Chain(kernels, N, dtype)
    kept[key] = chain  # the last in the dictionary is the last that was used
    for old in list(kept)[:-KEPT]:
        del kept[old]
    return chain


def described(synapse):
    """What decides about the buffers of a synapse, beside its ways."""
    W = plain(synapse)[0]
    sizes = (getattr(W, name, None) for name in ("pre_shape", "post_shape", "stride", "padding"))
    return type(synapse), *sizes, np.shape(getattr(W, "W", None)), getattr(synapse, "pool", None) and synapse.pool.name


class Chain:
    """The network's synapses and states in buffers; synapses[k] joins the layers i and j, (i, j) = wiring[k].

    A state lives in the buffer of one synapse that leads on from its layer. What others of them read is a copy, which `feed`
    makes when it is asked for. into[n], out_of[n]: the synapses that end, and that start, at layer n.
    """

    def __init__(self, kernels, N, dtype):
        network, self.N, self.held = kernels.network, N, []
        scratch, self.wiring, layers = Scratch(dtype), network.wiring, range(1, len(network.shapes))
        self.synapses = [first(synapse, N, dtype) if i == 0 else between(synapse, pair, N, scratch)
                         for synapse, pair, (i, _) in zip(network.synapses, kernels.pairs, self.wiring)]
        self.outer, self.inner = ([k for k, (i, _) in enumerate(self.wiring) if (i == 0) == outer] for outer in (True, False))
        self.into, self.out_of = ([[k for k, ends in enumerate(self.wiring) if ends[end] == n] for n in (0, *layers)]
                                  for end in (1, 0))
        self.out_of = [sorted(ks, key=lambda k: type(self.synapses[k]) is not FastIdentity) for ks in self.out_of]
        self.drives = [self.synapses[self.into[n][0]].drive for n in layers]
        self.states, self.guests = [], set()
        for n in layers:
            own = [k for k in self.out_of[n] if type(self.synapses[k]) is not FastIdentity]
            self.states.append(self.synapses[own[0]].pre if own else np.zeros_like(self.drives[n - 1]))
            self.guests |= set(own[1:])
            for k in set(self.out_of[n]) - set(own):
                self.synapses[k].pre = self.states[-1]

    def take(self, kernels):
        """The present weights."""
        self.network, gains = kernels.network, kernels.network.gains
        for k in self.inner:
            self.synapses[k].start(self.network.synapses[k], kernels.pairs[k], gains[k])

    def start(self, x, inputs):
        """Fill the drives of the input. inputs: {k: (drive, switches)} if they are known already."""
        for k in self.outer:
            self.synapses[k].start(self.network.synapses[k], x, inputs and inputs[k])

    def load(self, states, switches):
        """Continue from states and switches as a `Relaxation` has them. switches None: those of the states."""
        for s, s_0 in zip(self.states, states, strict=True):
            s[...] = inside(s_0)
        self.set_switches(switches)
        self.zero, self.reached = [False] * (len(states) + 1), [True] + [not constant(s) for s in states]
        self.fresh, self.fed = [False] * len(self.synapses), set()

    def set_switches(self, switches):
        for k in self.inner if switches else ():
            self.synapses[k].set_switches(switches[k])

    def clear(self):
        """All states zero, or rather: what they hold is not looked at, but for the last one's, by the cost."""
        self.states[-1][...] = 0
        L = len(self.states)
        self.zero, self.reached = [False] + [True] * L, [True] + [False] * L
        self.fresh, self.fed = [False] * len(self.synapses), set()

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
            for k in self.out_of[n]:
                self.fresh[k] = False
                self.fed.discard(k)
        return changes

    def will_be_reached(self, n, beta):
        """Whether anything of the images, or of their targets, is in layer n after this step."""
        neighbours = [self.wiring[k][0] for k in self.into[n]] + [self.wiring[k][1] for k in self.out_of[n]]
        return self.reached[n] or any(self.reached[m] for m in neighbours) or n == len(self.states) and beta != 0

    def drive(self, n, y, beta, frozen, check):
        """Yields (rows, u_n of these rows). A step that is not checked is not the last, and its u need not be kept in self.u."""
        terms = [self.drive_post(k, frozen) for k in self.into[n]]
        if n == len(self.states) and beta != 0:
            terms.append(beta * inside(self.network.cost.force(outside(self.states[-1]), y)))
        down = [self.drive_pre(k, frozen) for k in self.out_of[n] if not self.zero[self.wiring[k][1]]]
        return added(terms, down, self.u[n - 1], check)

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
        synapse, pre = self.synapses[k], self.wiring[k][0]
        if pre > 0 and not self.fresh[k]:
            if self.zero[pre]:
                synapse.drive_of_zero(frozen)
            elif not frozen and not self.reached[pre]:
                self.drive_post_of_one(k)
            else:
                self.feed(k)
                synapse.drive_post(frozen)
            self.fresh[k] = True
        return synapse.drive

    def drive_post_of_one(self, k):
        pre = self.states[self.wiring[k][0] - 1]
        drive, switches = self.network.synapses[k].drive_post(outside(pre)[:1].copy())
        self.synapses[k].drive[...] = inside(drive)
        self.synapses[k].set_switches(switches)

    def feed(self, k):
        """Make sure that synapse k reads the present state of its pre layer."""
        if k in self.guests and k not in self.fed:
            self.synapses[k].pre[...] = self.states[self.wiring[k][0] - 1]
            self.fed.add(k)

    def drive_pre(self, k, frozen):
        if not frozen:
            self.drive_post(k, frozen)  # for the switches
        return self.synapses[k].drive_pre(self.states[self.wiring[k][1] - 1])

    # --- the result ---------------------------------------------------------------------------------------------------------

    def switches(self, frozen):
        """As `Relaxation` has them: of the present states, unless frozen."""
        for k in () if frozen else self.inner:
            self.drive_post(k, frozen)
        return [synapse.switches if k in self.outer else synapse.switches() for k, synapse in enumerate(self.synapses)]


def added(terms, striped, out, keep=False):
    """Yields (rows, the sum in these rows) of `terms`, whole arrays, and of `striped`, generators of (rows, part) that cover one.

    The last addition is made stripe by stripe. The sum lies in `out`, or, if there is one summand and not `keep`, in that itself.
    """
    terms, striped = list(terms), list(striped)
    last = striped.pop() if striped else in_blocks(terms.pop())
    whole = None
    for term in terms:
        whole = term if whole is None else np.add(whole, term, out=out)
    for stripes in striped:
        for rows, part in stripes:
            np.add(0 if whole is None else whole[rows], part, out=out[rows])
        whole = out
    for rows, part in last:
        if whole is not None:
            yield rows, np.add(whole[rows], part, out=out[rows])
        elif keep:
            out[rows] = part
            yield rows, out[rows]
        else:
            yield rows, part


def in_blocks(a):
    return ((rows, a[rows]) for rows in blocks(a))


def blocks(u):
    """Slices of rows of u that fit into the cache together with what is computed from them; vectors whole."""
    if u.ndim < 4:
        return [slice(None)]
    rows = max(1, BLOCK // max(1, u[0].size))
    return [slice(i, i + rows) for i in range(0, len(u), rows)]


def constant(s):
    """Whether a layer (N, H, W, C) is one number per channel: windows above it tie."""
    return s.ndim == 4 and bool((s == s[:1, :1, :1]).all())
